"""Runs on the Hugging Face hub: sending one as a dataset repository, and fetching one.

May use everything but the command line, the Python API and the conformance kit. What is sent is
made anew from data that was read and screened (`_copy`); no file is sent as it is. Add a file that
may be sent to `_names`, a kind of text that must not be to `_screen`.
"""

from vlmlens.sharing._pull import MAX_SIZE, pull
from vlmlens.sharing._push import Pushed, push

__all__ = ["MAX_SIZE", "Pushed", "pull", "push"]
