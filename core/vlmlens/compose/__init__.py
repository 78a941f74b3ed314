"""From a run file to a checked plan, without loading weights.

Chooses the plugins, reads the samples, and checks everything that needs no weights: images,
analyses, columns, disk space. May use runs and what is below. Add a new check of a combination of
parts to `applicability`, and one of images to `image_check`; `plan.compose` calls them in order.
The JSON schema of the run file is in `schema`, since it lists the options of installed plugins.
"""
