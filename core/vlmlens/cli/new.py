"""`vlmlens new`: a distribution for a plugin of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vlmlens.cli._options import output_flags, shares
from vlmlens.cli._output import Output
from vlmlens.manifest import PluginKind


@shares(output=output_flags)
def new(
    kind: Annotated[PluginKind, Argument(metavar="KIND", help="What the plugin adds.")],
    name: Annotated[str, Argument(metavar="NAME", help="The name that users will give.")],
    output: Output,
    folder: Annotated[
        Path | None,
        Argument(metavar="FOLDER", help="Folder to write. [default: vlmlens-KIND-NAME]"),
    ] = None,
    defaults: Annotated[
        bool, Option("--defaults", help="Ask nothing and use the defaults.")
    ] = False,
    answer: Annotated[
        list[str] | None,
        Option(
            metavar="KEY=VALUE",
            help="An answer: distribution, summary, author or licence; repeatable.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        Option(metavar="SOURCE", help="Git URL or folder. [default: the installed templates]"),
    ] = None,
    ref: Annotated[
        str | None, Option(metavar="TAG", help="Tag, branch or commit of a git URL.")
    ] = None,
) -> None:
    """Write a new plugin as a package, with tests.

    The tests pass from the start. After `pip install -e FOLDER` the plugin is found by its name,
    like every other. Needs the extra `vlmlens[new]`.

    Examples:
        vlmlens new adapter mymodel
        vlmlens new analysis myanalysis --defaults
    """
    from vlmlens.registry.scaffold import NewPlugin, default_folder, parsed_answers, write_plugin

    place = folder or default_folder(kind, name)
    answers = parsed_answers(answer or ())
    files = write_plugin(
        NewPlugin(kind, name, place, answers, ask=not defaults, template=template, ref=ref)
    )
    document = {
        "kind": kind.value,
        "name": name,
        "folder": str(place),
        "files": [str(path.relative_to(place)) for path in files],
    }
    output.data(
        document,
        f"{place}: {len(files)} files.\n"
        f"  cd {place} && pip install -e '.[test]' && pytest\n"
        f"  vlmlens plugins check {place if place.is_absolute() else f'./{place}'}",
    )
