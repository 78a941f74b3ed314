"""Makes the pictures of docs/gallery.md with the commands that it shows, and writes what they say.

Use: python -m scripts.site.gallery FOLDER [NAME ...]. FOLDER keeps the runs; without names, all
are made. It needs about ten minutes on two cores, and no network.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "images" / "gallery"
BEGIN, END = "<!-- gallery: scripts/site/gallery.py -->\n", "<!-- end of gallery -->\n"
LARGEST = 150_000
"""Bytes of a picture."""
_WIDTH = 1000
_COLORS = 128


@dataclass(frozen=True)
class Shown:
    """One picture of the gallery.

    Args:
        name: The name of its file.
        question: The heading.
        command: What makes it, behind `vlmlens`.
        analysis: Whose figure and finding it is.
        figure: The figure's name; of a figure with sheets the first.
        finding: How the sentence begins.
        more: The page about the analysis.
        what: What the picture shows, for those who do not see it.
    """

    name: str
    question: str
    command: str
    analysis: str
    figure: str
    finding: str
    more: str
    what: str


_LOOK = 'look docs/images/scene.png "Color of the main object:"'
SHOWN = (
    Shown(
        "rests-on", "Which part of the picture does the answer rest on?", _LOOK, "look", "look-map",
        "It rests on", "look.md", "A striped cube; its patches are bright, all others are dark",
    ),
    Shown(
        "formed-at", "Where is the answer formed?", _LOOK, "look", "look-lens",
        "It is formed at", "look.md",
        "A table of tokens by block: purple in the first two blocks, blue from block 2 on",
    ),
    Shown(
        "seen-not-used", "Is something seen and not used?",
        "run --limit 600 --analysis probe --analysis blind-test", "probe", "probe-surface",
        "surface: read from", "analyses.md",
        "Accuracy of probes for the surface by layer: high in the vision encoder, then at chance",
    ),
    Shown(
        "carried-by", "Which rows carry the answer, and up to which block?",
        "run --data demo:pairs --limit 60 --analysis patching", "patching",
        "patching-denoise-color", "color: up to", "causal-analyses.md",
        "A heat map of rows by block: image rows matter up to block 1, the last row from block 2",
    ),
    Shown(
        "circuit", "Which components suffice?",
        "run --data demo:pairs --limit 80 --analysis circuit", "circuit", "circuit-color",
        "color:", "circuit.md", "A graph of heads and MLPs from the inputs up to the logits",
    ),
    Shown(
        "colors", "Do samples of one color lie together?", "run --limit 200 --analysis concepts",
        "concepts", "concepts-color-points", "color: samples of a concept", "concepts.md",
        "Samples as points in the first principal components, one color per cluster",
    ),
    Shown(
        "alike", "Which layers hold the same?", "run --limit 60 --analysis similarity",
        "similarity", "similarity-cka", "From layer to layer", "similarity.md",
        "A heat map of CKA between layers: a block of vision, a block of language, little between",
    ),
    Shown(
        "features", "Do a sparse autoencoder's features tell more than untrained ones?",
        "run --limit 600 --analysis sae --set analysis.sae.column=vision.block.3/all", "sae",
        "sae-concepts-vision-block-3-all", "vision.block.3/all: the SAE", "sae.md",
        "AUC of the best single feature of each value, beside an untrained dictionary",
    ),
)  # fmt: skip


def section(sentences: Mapping[str, str]) -> str:
    """The generated part of the page, with the sentence for each picture by its name."""
    return "\n".join(_entry(each, sentences[each.name]) for each in SHOWN)


def _entry(shown: Shown, sentence: str) -> str:
    return (
        f"## {shown.question}\n\n> {sentence}\n\n```\nvlmlens {shown.command}\n```\n\n"
        f"![{shown.what}](images/gallery/{shown.name}.png)\n\n[More]({shown.more})\n"
    )


def sentences(page: str) -> dict[str, str]:
    """The sentence that the page has for each picture, by its name."""
    found = re.findall(
        r"^> (.+)\n(?:.*\n)*?!\[.*\]\(images/gallery/([\w-]+)\.png\)", page, re.MULTILINE
    )
    return {name: sentence for sentence, name in found}


def sentence_of(findings: Sequence[str], shown: Shown) -> str:
    """The finding that a picture stands for.

    Raises:
        SystemExit: No finding begins like that.
    """
    for text in findings:
        if text.startswith(shown.finding):
            return text
    raise SystemExit(f"{shown.name}: no finding of {shown.analysis} begins {shown.finding!r}.")


def run_of(shown: Shown, folder: Path) -> Path:
    """The run that a picture is of; made where `folder` does not have it."""
    first = next(each for each in SHOWN if each.command == shown.command)
    run = folder / first.name
    if not (run / "report.html").exists():
        words = [*shlex.split(shown.command), "--out", str(run)]
        subprocess.run([sys.executable, "-m", "vlmlens", *words], cwd=ROOT, check=True)
    return run


def small(png: bytes) -> bytes:
    """The same picture, at most 1000 pixels wide, in 128 colors."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    if image.width > _WIDTH:
        image = image.resize(
            (_WIDTH, round(image.height * _WIDTH / image.width)), Image.Resampling.LANCZOS
        )
    sink = io.BytesIO()
    image.quantize(_COLORS).save(sink, "PNG", optimize=True)
    return sink.getvalue()


def make(shown: Shown, folder: Path) -> str:
    """Make one picture, and give its sentence."""
    import vlmlens

    run = run_of(shown, folder)
    command = ["report", str(run), "--figures", "png"]
    subprocess.run([sys.executable, "-m", "vlmlens", *command], cwd=ROOT, check=True)
    files = sorted((run / "papers").glob(f"{shown.analysis}.{shown.figure}.*png"))
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{shown.name}.png").write_bytes(small(files[0].read_bytes()))
    result = vlmlens.Run(run).results[shown.analysis]
    return sentence_of([finding.text for finding in result.findings], shown)


def main() -> None:
    """Make what was named, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="of pictures; default: all")
    chosen = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    said = sentences(page)
    for shown in SHOWN:
        if not chosen.names or shown.name in chosen.names:
            said[shown.name] = make(shown, chosen.folder.absolute())
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + section(said) + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
