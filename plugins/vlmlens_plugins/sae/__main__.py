"""SAEs on the command line: ``python -m vlmlens_plugins.sae show IN``, and ``convert IN OUT``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from vlmlens._clean import fit_to_say
from vlmlens._display import count
from vlmlens.errors import VlmlensError

_FORMATS = ("sae-lens", "sparsify", "dictionary-learning", "saev", "prisma", "openai")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 2 if the user can repair what went wrong.
    """
    chosen = _parser().parse_args(arguments)
    try:
        lines = _show(chosen) if chosen.command == "show" else _convert(chosen)
    except VlmlensError as error:
        _say("error", error.message)
        if error.hint:
            _say("hint", error.hint)
        return error.exit_code
    except OSError as error:
        _say("error", str(error))
        return 2
    sys.stdout.write(fit_to_say("\n".join(lines)) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vlmlens_plugins.sae", description="Look at files of sparse autoencoders."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="Say what a file or folder holds.")
    convert = commands.add_parser("convert", help="Write it as a folder that SAELens loads.")
    for each in (show, convert):
        each.add_argument("source", metavar="IN", help="A folder, or a file of weights.")
        each.add_argument("--format", choices=_FORMATS, help="Default: what the files look like.")
    convert.add_argument("target", metavar="OUT", help="The folder to write.")
    return parser


def _show(chosen: argparse.Namespace) -> list[str]:
    from vlmlens_plugins.sae.files import open_sae, sparsity_of

    sae = open_sae(chosen.source, format=chosen.format)
    about = sae.about
    found = [
        f"{sae.architecture}, {count(sae.features, 'feature')} of rows of {sae.inputs} numbers",
        f"Column: {about.column or 'not known'}",
        f"Model: {about.model.get('checkpoint') or 'not known'}",
        f"From: {about.source or 'vlmlens'}",
        f"Digest: {sae.digest}",
    ]
    if sae.outputs != sae.inputs or about.target:
        found.insert(1, f"Writes rows of {sae.outputs} numbers: {about.target or 'not known'}")
    rates = sparsity_of(chosen.source)
    if rates is not None:
        found.append(f"Features per row: {float(rates.sum()):.3g}")
    return [*found, *about.notes]


def _convert(chosen: argparse.Namespace) -> list[str]:
    from vlmlens_plugins.sae.files import not_in_sae_lens, open_sae, save_sae, sparsity_of

    sae = open_sae(chosen.source, format=chosen.format)
    folder = save_sae(chosen.target, sae, sparsity=sparsity_of(chosen.source))
    return [*filter(None, [*sae.about.notes, not_in_sae_lens(sae)]), f"Wrote {folder}"]


def _say(word: str, message: str) -> None:
    sys.stderr.write(f"{word}: {fit_to_say(message)}\n")


if __name__ == "__main__":
    sys.exit(main())
