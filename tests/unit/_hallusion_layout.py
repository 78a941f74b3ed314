"""A file in HallusionBench's layout and size, for which the published constants hold exactly.

The constants do not determine the labels. So these sets are fitted: an integer program chose
how often each kind of set occurs, such that questions per subcategory, figures, pairs, sets, labels
and all scores of a constant answer are those of the real file. No label is the real one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FITTED = """
VD figure 1 o:00
VD figure 1 o:000
VD figure 5 o:111 e:000
VD figure 2 o:001 e:010 e:001
VD figure 3 o:001 e:010 e:010
VD illusion 4 o:01 e:10 e:10
VD illusion 1 o:001
VD illusion 2 o:001 e:000
VD illusion 5 o:011 e:001 e:100
VD illusion 3 o:0011 e:1100
VD illusion 1 o:0001 e:0010 e:0100
VD illusion 2 o:0001 e:0110 e:1000
VD math 2 o:01 e:10 e:01
VD math 1 o:0011 e:1100
VD math 11 o:0111 e:1001
VD ocr 3 o:0
VD ocr 1 o:0 e:0
VD ocr 2 o:01
VD ocr 20 o:01 e:10
VD video 1 o:01
VD video 1 o:0001
VD video 19 o:0001 e:0010
VD video 1 o:0111 e:1000 e:1000
VS chart 1 n:01 o:01 e:01 e:00
VS chart 20 n:001 o:001 e:110
VS chart 1 n:011 o:001 e:100
VS chart 1 n:000 e:111 e:001
VS map 1 n:01 o:01 e:10 e:10
VS map 1 n:01 o:01 e:10 e:11
VS map 1 n:11 o:11 e:01 e:10
VS map 6 n:0011 o:0011 e:1100
VS ocr 12 n:01 o:01 e:10
VS ocr 1 n:011 e:100 e:101
VS table 17 n:1 o:1 e:0
VS table 1 n:00 o:01
VS table 1 n:01 o:01
VS table 1 n:11 e:01 e:01
VS table 10 n:001 o:001 e:000
"""
"""Category, subcategory, how many sets, and per figure what it is (n: none, o: original, e: edited)
and the labels of its questions."""

_SEEN = {"n": "0", "o": "1", "e": "2"}


def rows() -> Iterator[dict[str, Any]]:
    """The rows of the file: as in the real one, every value is a string."""
    sets: dict[str, int] = {}
    for line in FITTED.split("\n"):
        if not line:
            continue
        category, subcategory, times, *figures = line.split()
        for _ in range(int(times)):
            number = sets.get(subcategory + category, 0)
            sets[subcategory + category] = number + 1
            for figure, each in enumerate(figures):
                seen, labels = each.split(":")
                for question, label in enumerate(labels):
                    yield {
                        "category": category,
                        "subcategory": subcategory,
                        "visual_input": _SEEN[seen],
                        "set_id": str(number),
                        "figure_id": str(figure),
                        "sample_note": "fitted",
                        "question_id": str(question),
                        "question": f"Is statement {question} about set {number} true?",
                        "gt_answer_details": "It is so.",
                        "gt_answer": label,
                        "filename": None
                        if seen == "n"
                        else f"./{category}/{subcategory}/{number}_{figure}.png",
                    }


def official(folder: Path) -> Path:
    """The file as the authors publish it. No figure is written."""
    path = folder / "HallusionBench.json"
    path.write_text(json.dumps(list(rows())))
    return path
