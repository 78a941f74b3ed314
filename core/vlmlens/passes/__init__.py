"""One forward pass: what goes in and comes out, reading and editing activations, saving work.

May use sites, tokens and samples. It needs no plugin: a model is any object with what `model`
lists. Add a new way to read or change activations to `tracing`, the only module that registers
hooks. Add a new way to compute less as a module beside `skipping`. Importing a module loads torch,
except `batch` and `model`.
"""
