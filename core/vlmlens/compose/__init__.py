"""From a run file to a checked plan, without loading weights.

Chooses the plugins, reads the samples, and checks all that can be checked beforehand: images,
analyses, columns, disk space. May use runs and what is below. A new check of a combination belongs
into `applicability`, one of images into `image_check`; `plan.compose` calls them in order.
"""
