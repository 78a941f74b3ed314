"""The thread that has the model: jobs wait in a queue, one pass runs at a time."""

from __future__ import annotations


class ModelWorker:
    """Loads a model when it is first asked, and answers job after job."""
