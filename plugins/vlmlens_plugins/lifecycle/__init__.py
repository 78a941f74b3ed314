"""Lifecycle plugins that ship with vlmlens.

Every command loads the modules that entry points name, so they import nothing heavy.
"""
