"""A local web app over runs: `vlmlens view`.

It may use everything below the command line. The report's components draw; nothing here computes a
number that a result does not hold, but `live`, which asks the model. Starlette and uvicorn are
imported here alone (extra `view`).

To add a page: a function in `pages/`, a line in `app.py`. To add a live view: see `live/`.
"""
