"""A copy of a run that holds what may be sent, and nothing else.

Every file of it is made here from data that was read and screened. No file of the run's folder is
copied as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vlmlens._clean import redacted
from vlmlens._files import write_json, write_text
from vlmlens._locks import LOCK_FILE
from vlmlens.abc.observer import Observer
from vlmlens.errors import HubError
from vlmlens.report.files import plain, write_result
from vlmlens.results import OVERVIEW, Result
from vlmlens.runner.run_report import write_run_report
from vlmlens.runs.own_files import contents
from vlmlens.runs.run import Run
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample
from vlmlens.sharing._names import is_ours
from vlmlens.sharing._samples import SentSamples
from vlmlens.sharing._screen import Screen
from vlmlens.sharing._spec import SENT_COLUMNS, sent_spec
from vlmlens.stores.opening import is_uri, open_named
from vlmlens.transfer import Origin, carry

FACTS = (
    "state", "vlmlens", "python", "started", "finished", "columns", "samples", "images", "model",
    "seeds", "drawn", "edited", "summary", "warnings", "notes", "observed_dtypes", "without_rows",
    "suggested",
)  # fmt: skip
"""The entries of run.json that are sent, and that are kept of what was pulled."""

_DONE = ("finished", "stored")
_DESCRIBED = ("samples", "model", "adapter")
"""Entries of a store's record that say again what the copy says."""
_DRAWN = (".svg", ".png")
"""Files that hold pictures by their nature: figures, whose grids are drawn, and sent pictures."""
_MARKS = (b"data:image/png;base64,", b"data:image/jpeg;base64,")


@dataclass(frozen=True)
class Choice:
    """What is sent beside settings and results.

    Args:
        images: The pictures of the samples, in `images/` and in the report.
        activations: The columns.
    """

    images: bool = False
    activations: bool = False


class SentRun(Run):
    """The copy of a run: its report asks no plugin, and shows no picture that is not sent."""

    shows = False
    """Whether pictures are shown."""

    @property
    def facts(self) -> dict[str, dict[str, str]]:
        """None: what lifecycle plugins say may be about this machine."""
        return {}

    @cached_property
    def samples(self) -> SampleTable:
        """The samples; without images where these are not sent."""
        found = self.recorded_samples
        return found if self.shows else SampleTable(map(_without_images, found))


def check_sendable(run: Run, choice: Choice) -> None:
    """Refuse what cannot be sent, before anything is written.

    Raises:
        HubError: The run is not finished, has nothing to send, or its columns lie elsewhere.
        SpecError: Its spec is damaged or holds a credential.
    """
    name, state = str(run.path), run.info.get("state")
    if state not in _DONE:
        raise HubError(
            f"The run {name!r} is not finished (its state is {state!r}), and a card would say what "
            "half a run found.",
            subject=name,
            hint="Finish it first: run the command that made it again with --resume.",
        )
    storage = run.spec.storage
    if choice.activations and (is_uri(storage) or not run.has_model):
        raise HubError(
            f"The activations of {name!r} are not in its folder, but at {redacted(storage)}.",
            subject=name,
            hint="Leave --activations out; or copy them to a file (vlmlens export RUN "
            "columns.safetensors) and upload that yourself (hf upload).",
        )
    if choice.activations and not (run.stores.has_own or run.stores.parts()):
        raise HubError(
            f"The run {name!r} has no activations.",
            subject=name,
            hint="Leave --activations out.",
        )
    if not choice.activations and not run.results:
        raise HubError(
            f"The run {name!r} has no results, so only its settings could be sent.",
            subject=name,
            hint="Analyse it first (vlmlens analyze RUN), or add --activations.",
        )


def copied(run: Run, folder: Path, screen: Screen, choice: Choice, observer: Observer) -> SentRun:
    """Write the copy.

    Args:
        run: The run; `check_sendable` has accepted it.
        folder: A new folder for it.
        screen: Screens texts.
        choice: What is sent.
        observer: Told how it goes.

    Raises:
        VlmlensError: Something in the run is damaged, or a text that must not be sent is left.
    """
    folder.mkdir(parents=True)
    spec = sent_spec(run.spec, screen)
    write_text(folder / "spec.yaml", spec.to_yaml())
    observer.stage("samples", None)
    samples = SentSamples(run, folder, screen, images=choice.images)
    samples.write()
    results = [*run.results.values(), run.overview]
    observer.stage("results", len(results))
    for number, result in enumerate(results):
        if result.analysis != OVERVIEW or result.overview or result.findings:
            write_result(_screened(result, screen), folder / "results")
        observer.advance(number + 1)
    info = {name: value for name, value in run.info.items() if name in FACTS}
    if not choice.activations:
        info["columns"] = []
    write_json(folder / "run.json", {**screen.every(info, words=True), "made": []})
    copy = SentRun(folder, registry=run.registry, trust=True)
    copy.shows = choice.images
    if choice.activations:
        _copy_columns(run, copy, samples.ids, screen, observer)
    else:
        open_named(run.registry, SENT_COLUMNS, _place_of(copy), mode="a").close()
        (copy.path / "columns" / LOCK_FILE).unlink(missing_ok=True)
    if run.results:
        write_run_report(copy)
    copy.update(made=sorted(contents(folder)))
    _check(folder, screen, choice)
    return copy


def files_of(folder: Path) -> dict[str, Path]:
    """The files of a copy by their names on the hub, in order.

    Raises:
        HubError: There is one of another name.
    """
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    found = {name: path for name, path in found.items() if not name.endswith(".lock")}
    if strange := [name for name in found if not is_ours(name)]:
        raise HubError(f"{strange[0]!r} is no name of a file that may be sent.", subject=strange[0])
    return found


def _screened(result: Result, screen: Screen) -> Result:
    """A result with screened texts: those of the data in tables and figures, and the others."""
    data: dict[str, Any] = plain(result)
    about = ("title", "options", "notes", "warnings")
    made = {name: screen.every(item, words=name in about) for name, item in data.items()}
    return Result.from_dict({**made, "analysis": screen.place(result.analysis)})


def _copy_columns(
    run: Run, copy: SentRun, ids: Mapping[str, str], screen: Screen, observer: Observer
) -> None:
    """Write the columns as safetensors files, whose numbers are those of the run bit for bit."""
    if changed := [name for name, sent in ids.items() if name != sent]:
        raise HubError(
            f"The sample {changed[0]!r} is named by a path of this machine or a credential, and "
            "so are the rows of activations.",
            subject=changed[0],
            hint="Leave --activations out, or give the samples other ids and run again.",
        )
    place = _place_of(copy)
    with run.store() as store:
        observer.stage("activations", sum(info.samples for info in store.columns()))
        origin = Origin(store, copy)
        carry(run.registry, origin, place, None, lambda done, total: observer.advance(done))
    with open_named(run.registry, SENT_COLUMNS, place, mode="a") as written:
        kept = {name: each for name, each in written.get_meta().items() if name not in _DESCRIBED}
        written.set_meta(screen.every(kept, words=True))
    (copy.path / "columns" / LOCK_FILE).unlink(missing_ok=True)


def _place_of(copy: SentRun) -> str:
    return f"{SENT_COLUMNS}://{(copy.path / 'columns').absolute()}"


def _without_images(sample: Sample) -> Sample:
    return replace(sample, images=(), video=None)


def _check(folder: Path, screen: Screen, choice: Choice) -> None:
    """Read everything that was written once more: whatever way a text came there, it is seen.

    Raises:
        HubError: A file holds a secret, or a picture that is not to be sent.
    """
    for name, path in files_of(folder).items():
        if path.suffix == ".safetensors":
            continue
        content = path.read_bytes()
        looked_at = not choice.images and path.suffix not in _DRAWN
        pictured = looked_at and any(mark in content for mark in _MARKS)
        if pictured or screen.holds(content):
            what = "a picture" if pictured else "a credential of yours"
            raise HubError(
                f"{name} would hold {what}, so nothing was sent.",
                subject=name,
                hint="This is a bug in vlmlens: please report it.",
            )
