"""The run folder: its files, its columns, its generated texts, its shards.

May use stores, the registry and what is below. It neither composes nor executes a run. For a new
file in a run's folder, add a module here and a line to the docstring of `run`.
"""
