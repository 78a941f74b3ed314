"""The pages over stored runs: a module each, with a function per address that `app` lists.

They read a `ShownRun` and draw with the report's components; each list comes by slice.
"""
