"""The run folder: its files, its columns, what the model wrote, its shards.

May use stores, the registry and what is below; it composes and executes nothing. A new file in a
run's folder gets a module here and a line in the docstring of `run`.
"""
