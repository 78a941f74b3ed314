"""The rows of MMMU on the hub or in a folder, where each subject may be a configuration."""

from __future__ import annotations

from collections.abc import Iterator

from vlmlens_plugins.benchmarks.configurations import Part, parts_in
from vlmlens_plugins.benchmarks.mmmu.subjects import SUBJECTS

FORMS = {
    "hub columns": "id, question, options, answer, question_type, image_1, ...",
    "VLMEvalKit's table": "index, question, A, B, ..., answer, image, category",
}
TITLE = "MMMU"


def subjects_in(source: str, subset: str | None, revision: str | None) -> Iterator[Part]:
    """The rows of a source, subject by subject where it has a configuration per subject.

    Args:
        source: A table, a folder, or `ORG/NAME[:SPLIT]`.
        subset: The only configuration to read; None: all subjects.
        revision: Branch, tag or commit on the hub.

    Raises:
        DataError: There is no such thing, or nothing of MMMU in it.
    """
    return parts_in(TITLE, SUBJECTS, FORMS, source, subset, revision)
