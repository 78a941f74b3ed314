"""Drawn tasks whose truth is known: depth, correspondence, the odd one out, texture.

They are of the kind of the tasks in "Hidden in plain sight" (arXiv 2506.08008): what is asked for
can be read directly from features of the vision tower at marked places. Task ``i`` is a pure
function of its kind, ``seed`` and ``i``. The right answer is a colour of the marks; every answer
is right equally often, in every block of as many tasks as there are answers.

Example:
    >>> task = make_task("depth", 0)
    >>> task.choices, task.label in task.choices, [picture.size for picture in task.pictures()]
    (('red', 'blue'), True, [(128, 128)])
"""

from vlmlens_plugins.demo.tasks.making import KINDS, TASKS_VERSION, make_task
from vlmlens_plugins.demo.tasks.task import Point, Task

__all__ = ["KINDS", "TASKS_VERSION", "Point", "Task", "make_task"]
