"""Rows of activations: what each stands for, and the selectors that name some of them.

May use samples, images and errors; needs no model. Add a selector: its form to `named`, the rows
that it means to `image_rows` or `question`. `vlmlens.tokens` hands out the public names, and its
docstring lists the selectors.
"""
