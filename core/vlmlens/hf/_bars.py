"""Import the bars of tqdm, as transformers does, without its warning in notebooks.

Where ipywidgets is not installed, tqdm writes its bars as text; nothing is wrong then.
"""

import warnings
from importlib import import_module

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "IProgress not found")
    import_module("tqdm.auto")
