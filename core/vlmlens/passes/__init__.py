"""One forward pass: what goes in and comes out, reading and editing activations, saving work.

May use sites, tokens and samples. It knows no plugin: a model is anything that has what `model`
lists. A new way to read or change activations goes into `tracing`, which alone registers hooks; a
new way to compute less becomes a module beside `skipping`. The modules load torch when they are
imported; `batch` and `model` do not.
"""
