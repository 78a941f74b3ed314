"""Asking the model while looking: one pass at a time, with a queue that can be left.

`pages.live_jobs` is what the page's script asks; `worker` loads the model and works in a thread of its own;
`question` is what is asked; each kind of view is a module with one function.
"""
