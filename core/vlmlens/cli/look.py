"""`vlmlens look`: one picture, one question."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from vlmlens.cli import _completion as completion
from vlmlens.cli._options import Mode, SpecFlags, installed, look_flags, output_flags, shares
from vlmlens.cli._output import Output
from vlmlens.cli._results import next_steps, run_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vlmlens.runner.run_folder import RunMode
    from vlmlens.runs.look import Look
    from vlmlens.samples import Sample


@shares(flags=look_flags, output=output_flags)
def look(
    images: Annotated[
        list[str],
        Argument(
            metavar="IMAGE...", help="Image files, or videos.", autocompletion=completion.paths
        ),
    ],
    question: Annotated[str, Argument(metavar="QUESTION", help="What to ask about each.")],
    flags: SpecFlags,
    output: Output,
    choices: Annotated[
        str | None,
        Option(metavar="A,B,C", help="Answers to choose from. [default: the model writes]"),
    ] = None,
    against: Annotated[
        str | None,
        Option(
            metavar="IMAGE",
            help="Compare to the same question about this picture, and trace the difference.",
            autocompletion=completion.paths,
        ),
    ] = None,
    against_question: Annotated[
        str | None,
        Option(metavar="TEXT", help="Compare to this question about the same picture."),
    ] = None,
    cover: Annotated[
        list[str] | None,
        Option(
            metavar="L,T,R,B",
            help="Hide a part of the picture: left, top, right, bottom, as fractions of its width "
            "and height; repeatable.",
        ),
    ] = None,
    live: Annotated[
        bool,
        Option(
            "--live",
            help="Open the picture and the question in the browser, to cover parts of it, edit the "
            "model and ask again.",
        ),
    ] = False,
    resume: Mode = None,
) -> None:
    """Ask about a picture: the answer, where it forms, what it rests on.

    Prints five lines, and writes one page: the answer and its alternatives, the layers in which it
    forms, the part of the picture on which it rests, the heads and MLPs that carry it, and whether
    it survives without the picture. Without a model: the demo model, which only knows drawn scenes.

    Examples:
        vlmlens look photo.jpg "What is it?" --adapter qwen2vl --model Qwen/Qwen2-VL-2B-Instruct
        vlmlens look a.png "Color of the main object:" --against b.png
        vlmlens look photo.jpg "What is it?" --live
    """
    options = () if choices is None else choices.split(",")
    if live:
        other = {"--against": against, "--against-question": against_question, "--cover": cover}
        _look_live(images, question, options, flags, other, output)
        return
    from vlmlens.compose.looking import questions
    from vlmlens.covers import Cover
    from vlmlens.runs.look import Look

    values = dict(flags.values)
    texts = [question, *values.pop("prompt", ())]
    samples = questions(
        images,
        texts,
        choices=options,
        against=against,
        against_question=against_question,
        covers=[Cover.parse(each) for each in cover or ()],
    )
    own = replace(flags, values=values)
    made = Look(_executed(own, samples, output, resume))
    print_look(made, output, {sample.id: sample.prompt for sample in samples})


def _look_live(
    images: list[str],
    question: str,
    choices: Sequence[str],
    flags: SpecFlags,
    other: Mapping[str, object],
    output: Output,
) -> None:
    from vlmlens.cli.view import leave
    from vlmlens.errors import SpecError
    from vlmlens.view import opening

    given = flags.given()
    not_there = [f"--{name}" for name in ("prompt", "out", "analysis") if name in given]
    not_there += ["--edit"] * ("edits" in given) + [name for name, value in other.items() if value]
    if not_there or len(images) > 1:
        raise SpecError(
            f"--live opens one picture and one question; {', '.join(not_there) or 'several'} is "
            "not for it.",
            subject="live",
            hint="Parts are covered, and edits added, on the page.",
        )
    said = output.data
    leave(opening.view_picture(images[0], question, choices, given, installed(), said))


def _executed(flags: SpecFlags, samples: list[Sample], output: Output, resume: bool | None) -> Any:
    from vlmlens.compose.looking import ANALYSIS, notes_on
    from vlmlens.compose.plan import compose
    from vlmlens.runner.execution import execute

    given = replace(
        flags,
        values={**flags.values, "analysis": [ANALYSIS]},
        assignments=(f"analysis.{ANALYSIS}.samples={len(samples)}", *flags.assignments),
    )
    spec = given.spec()
    mode: RunMode = "new" if resume is None else "resume" if resume else "fresh"
    with output.observer() as observer:
        plan = compose(spec, installed(), observer=observer, notes=notes_on(spec), data=samples)
        return execute(plan, mode=mode, observer=observer)


def print_look(look: Look, output: Output, prompts: dict[str, str]) -> None:
    """Print what was found, a line each, and where the page is.

    Args:
        look: The look.
        output: With `json` a document is printed, with `quiet` the run's folder only.
        prompts: The questions by the id of their sample.
    """
    if output.json:
        output.data({"answers": look.answers, **run_document(look.run, [look.result])})
        return
    if output.quiet:
        output.data(None, str(look.run.path))
        return
    lines: list[str] = []
    for subject in dict.fromkeys(finding.subject for finding in look.findings):
        own = [finding for finding in look.findings if finding.subject == subject]
        lines += [f"{subject}: {prompts.get(subject, '')}"]
        lines += [
            f"{number}  {finding.text.removeprefix(f'{subject}: ')}"
            for number, finding in enumerate(own, 1)
        ]
    warnings = [f"! {warning}" for warning in look.result.warnings]
    output.data(None, *lines, *warnings, *next_steps(look.run))
