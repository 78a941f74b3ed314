"""Check every listed checkpoint that is here and fits: the kit, the analyses, a known question.

`python -m scripts.check_checkpoints --models DIR --out DIR` runs it; docs/models.md says how. Each
step runs in a process that may crash or hang; its outcome is one file, so that a second start goes
on where the first one ended. `tiny DIR` writes tiny checkpoints with random weights, laid out as on
the Hub, to try it on.

- `listed`: the checkpoints of the adapters' manifests.
- `places`: where a checkpoint lies, how large it is, and its digest.
- `machine`: memory, and whether a checkpoint fits into it.
- `records`: one JSON file per checkpoint and step.
- `process`: the process that does the steps, with a time limit each.
- `working`: what that process does; `kit`, `small_runs` and `question` are the steps.
- `telling`: the lines and the summary; `page`: what docs/models.md says.
- `tiny`: the tiny checkpoints.
"""
