"""docs/gallery.md: its pictures are there and small, and its sentences are what is still said."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from scripts.site import gallery
from scripts.site.gallery import LARGEST, PAGE, PICTURES, SHOWN, Shown, sentence_of, sentences

import vlmlens

TEXT = PAGE.read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def alike(said: str, written: str, tolerance: float = 0.03) -> bool:
    """Whether two sentences differ in nothing but the last digits of numbers."""
    if NUMBER.sub("#", said) != NUMBER.sub("#", written):
        return False
    pairs = zip(NUMBER.findall(said), NUMBER.findall(written), strict=True)
    return all(float(a) == pytest.approx(float(b), abs=tolerance) for a, b in pairs)


def shown(name: str) -> Shown:
    return next(each for each in SHOWN if each.name == name)


def test_the_page_is_what_the_script_writes() -> None:
    written = TEXT.split(gallery.BEGIN)[1].split(gallery.END)[0]
    said = sentences(TEXT)
    assert list(said) == [each.name for each in SHOWN]
    assert written == gallery.section(said)
    assert all(said[each.name].startswith(each.finding) for each in SHOWN)


def test_every_picture_is_there_small_and_shown() -> None:
    files = {path.stem: path for path in PICTURES.iterdir()}
    assert files.keys() == {each.name for each in SHOWN}
    for path in files.values():
        assert path.stat().st_size < LARGEST
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert len(image.convert("L").resize((64, 64)).getcolors() or ()) > 8, "not blank"


def test_a_sentence_is_still_said(tmp_path: Path) -> None:
    """The cheapest of the commands, run as the page has it."""
    entry = shown("alike")
    words = shlex.split(entry.command)
    assert words == ["run", "--limit", "60", "--analysis", "similarity"]
    run = vlmlens.run(limit=60, analysis="similarity", out=tmp_path / "run")
    findings = [finding.text for finding in run.results["similarity"].findings]
    said = sentence_of(findings, entry)
    written = sentences(TEXT)["alike"]
    assert alike(said, written), said
    assert not alike(said, written.replace("projector", "vision.block.3"))
    assert not alike(said, written.replace("0.95", "0.85"))


def test_the_script_refuses_a_finding_that_is_not_there() -> None:
    with pytest.raises(SystemExit, match=r"alike: no finding of similarity begins"):
        sentence_of(["Nothing of the kind."], shown("alike"))
