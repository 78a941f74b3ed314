"""Where the rows of an SAE come from, and how they are mixed.

- `layouts.py`: what each row of a column stands for.
"""
