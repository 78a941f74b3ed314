"""Asking the model while looking: one pass at a time, with a queue that can be left.

`worker` works in a thread of its own; `model` loads the model; `question` is what is asked; each
kind of view is a module with one function. The page and its addresses: `pages.live`,
`pages.live_jobs`.
"""
