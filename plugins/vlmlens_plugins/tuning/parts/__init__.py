"""The parts of a model that can be trained, one module per kind."""
