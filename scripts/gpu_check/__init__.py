"""Checks vlmlens on one GPU; run it with ``python -m scripts.gpu_check``. See docs/gpu.md.

- `listing.py`: the checks, each with its time limit and what is expected; `checks/`: one module
  for each check;
- `running.py`, `worker.py`, `child.py`: checks in child processes that are killed at their limit;
- `outcome.py`, `records.py`: one JSON line for each check, and going on from a file of them;
- `place.py`: running from a checkout that is not installed;
- `trial.py`, `setting.py`: what a check is given; `shapes.py`, `checkpoint.py`, `questions.py`: the
  model and the samples; `measuring.py`, `columns.py`, `extracting.py`: what checks share.

Nothing outside of the child processes imports torch.
"""
