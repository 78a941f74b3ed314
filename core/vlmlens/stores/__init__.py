"""Stores: opening them, what all backends check, several read as one.

May use the registry and what is below. For writers of backends the names below are public: the
checks of a block, putting values together, errors. How a store is found by name, by URI or by
looking at it is in `opening`; copying between stores is the room `transfer`.
"""
