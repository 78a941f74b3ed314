"""Executing: load, extract, analyse, report; in one process or several.

May use everything but the command line. The stages of a run are in `execution`, what they share in
`stages`, worker processes in `workers`, the page of a run in `run_report`, analysing a store that
has no run in `bare_store`.
"""
