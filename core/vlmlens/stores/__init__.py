"""Stores: opening one, checks that all backends share, and reading several stores as one.

May use the registry and what is below. `writing` is public, for authors of storage backends: checks
of a block, joining values, common errors. `opening` finds a store by name, by URI or by its
content. `sharded` reads the shards of a run. Copying between stores is the room `transfer`.
"""
