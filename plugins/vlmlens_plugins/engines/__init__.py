"""Engines: what hands leases to workers. One module per engine; `_handout` is what they share."""
