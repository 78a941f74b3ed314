"""Asking the user's prompts of samples: one prompt replaces theirs, several make the product."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from vlmlens.errors import DataError
from vlmlens.samples import Sample


def with_prompts(samples: Sequence[Sample], prompts: Sequence[str]) -> list[Sample]:
    """The samples, asked the user's prompts instead of their own.

    Without prompts they stay as they are. One prompt replaces theirs. Of several, each is asked of
    each sample: the k-th (from 0) gives the id `ID#k`, its text is the task (behind the sample's
    own task, where it has one), and all of a sample's questions share its group. Label, choices
    and attributes stay: a prompt of the user's is another wording, or none that matters to a probe.

    Raises:
        DataError: A prompt is blank, or given twice.

    >>> [s.id for s in with_prompts([Sample("a.png", "")], ["Colour?", "Shape?"])]
    ['a.png#0', 'a.png#1']
    """
    _check(prompts)
    if not prompts:
        return list(samples)
    if len(prompts) == 1:
        return [replace(sample, prompt=prompts[0]) for sample in samples]
    return [_asked(sample, k, prompt) for sample in samples for k, prompt in enumerate(prompts)]


def _asked(sample: Sample, k: int, prompt: str) -> Sample:
    return replace(
        sample,
        id=f"{sample.id}#{k}",
        prompt=prompt,
        group=sample.split_group,
        task=f"{sample.task}: {prompt}" if sample.task else prompt,
    )


def _check(prompts: Sequence[str]) -> None:
    for prompt, times in Counter(prompts).items():
        if not prompt.strip():
            raise DataError(
                f"The prompt {prompt!r} is blank.",
                subject=prompt,
                hint='Say what to ask: --prompt "Color of the main object:".',
            )
        if times > 1:
            raise DataError(
                f"The prompt {prompt!r} is given {times} times.",
                subject=prompt,
                hint="Give every prompt once.",
            )
