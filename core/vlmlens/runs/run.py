"""Run: a folder that holds the composed spec, the samples, the columns and the results.

::

    run.json        state, model, versions, timings, and what vlmlens made in shared folders
    run.lock        held by the process that works on the run
    spec.yaml       the composed spec; `vlmlens run -c spec.yaml` repeats the run
    samples.jsonl   the samples in order
    skipped.jsonl   samples that were left out, each with the reason, if there are any
    images/         images that were given in memory, as PNG files named by their content
    columns/        the store; if --storage is a URI, only the key of the store at that place
    generated.jsonl the generated texts, with --generate
    units.sqlite    what analyses had the model do, so that it is not done again; may be removed
    leases/         what several processes wrote: plans, receipts and stores
    shards/         the same in runs of older versions, each a run
    results/        a JSON file per analysis, tables as Parquet, figures as SVG
    plugins/        files of lifecycle plugins: timing.json, ...
    report.html     the report
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._display import AsHtml
from vlmlens._files import expanded, write_bytes, write_json, write_text
from vlmlens.errors import RunNotFound, SpecError
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.results import OVERVIEW, Result
from vlmlens.runs.activations import Activations
from vlmlens.runs.generated_texts import GeneratedTexts
from vlmlens.runs.lock import FILE as LOCK
from vlmlens.runs.own_files import OWN, remove_own
from vlmlens.runs.records import damaged, each_record, read_records, read_run_record
from vlmlens.runs.result_files import read_results, read_whole
from vlmlens.runs.run_stores import RunStores
from vlmlens.runs.sample_file import FILE, read_table, write_table
from vlmlens.runs.signing import is_own, signature
from vlmlens.runs.trust import check_files, code_inside, reach_of, refuse, vetted_sample, withheld
from vlmlens.sample_table import SampleTable
from vlmlens.samples import BadSample, Sample
from vlmlens.spec.model import RunSpec, make_spec, read_yaml

if TYPE_CHECKING:
    from vlmlens.abc.storage import ColumnStore, Mode
    from vlmlens.registry import Registry

_log = logging.getLogger("vlmlens")

PIXELS = "sha256:"
"""How samples name an image in memory: this, and the digest of its pixels."""

NO_MODEL = Manifest(
    kind=PluginKind.ADAPTER, name="none", target="", help="No model: only what is stored."
)
"""The adapter of a store without a run."""


def is_run(path: str | PathLike[str]) -> bool:
    """Whether a folder holds a run."""
    return (expanded(path) / "run.json").is_file()


class Run(AsHtml):
    """A run on disk.

    Args:
        path: The run's folder.
        registry: Where to look for its storage backend; default: the installed plugins.
        trust: Whether it may run code, reach other places and show pictures elsewhere, although
            somebody else made it.

    Raises:
        RunNotFound: The folder holds no run.
        UntrustedRun: Somebody else made it, and parts of it are links to other places.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        registry: Registry | None = None,
        trust: bool = False,
    ) -> None:
        self.path = expanded(path)
        self.trust = trust
        self._registry = registry
        if not (self.path / "run.json").is_file():
            raise RunNotFound(
                f"{str(path)!r} holds no run.",
                subject=str(path),
                hint="Give the folder that `vlmlens run` or `vlmlens extract` wrote.",
            )
        links = check_files(self.path, OWN)
        if links and not self.trusted:
            refuse(self.path, {"links to other places": ", ".join(links)})

    @classmethod
    def create(
        cls, path: Path, spec: RunSpec, info: Mapping[str, Any], *, registry: Registry | None = None
    ) -> Run:
        """Make the folder, and write the spec and the state."""
        path.mkdir(parents=True, exist_ok=True)
        if "://" in spec.storage and {each.name for each in path.iterdir()} <= {LOCK}:
            path.chmod(0o700)  # what remote places say of themselves may be confidential
        text = spec.to_yaml()
        signed = {**info.get("signed", {}), "spec.yaml": signature("spec.yaml", text.encode())}
        write_json(path / "run.json", {**info, "made": info.get("made", []), "signed": signed})
        write_text(path / "spec.yaml", text)
        return cls(path, registry=registry, trust=True)

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            RunError: It is damaged.
        """
        return read_run_record(self.path / "run.json")

    def update(self, **values: Any) -> None:
        """Change entries of run.json."""
        write_json(self.path / "run.json", {**self.info, **values})

    @cached_property
    def spec(self) -> RunSpec:
        """The composed spec. A checkpoint's folder is found from any working folder.

        That of a checkpoint with remote code is stored whole: run.json could be edited.

        Raises:
            RunError: The file is damaged.
        """
        path = self.path / "spec.yaml"
        try:
            values = read_yaml(path)
        except SpecError as error:
            raise damaged(path, error.message) from error
        spec = make_spec(values)
        if spec.model is None or spec.trust_remote_code or Path(spec.model).exists():
            return spec
        there = Path(self.info.get("working_folder", "")) / spec.model
        if not there.is_dir():
            return spec
        return spec.model_copy(update={"model": str(there)})

    @cached_property
    def trusted(self) -> bool:
        """Whether the user trusts the run, or made it on this machine: see `vlmlens.runs.trust`."""
        return self.trust or is_own(self.path, "spec.yaml")

    def check_trust(self, *settings: str) -> None:
        """Check that what these settings of the spec name may be used.

        Args:
            settings: Names of settings, for example "storage"; "analysis" means all analyses.

        Raises:
            UntrustedRun: The run is not trusted, and they name code or other places.
        """
        if not self.trust:
            spec, signed = self.spec, self.trusted
            found = code_inside(spec, self.path) if signed else reach_of(spec)
            refuse(self.path, {k: v for k, v in found.items() if k.split(" ")[0] in settings})

    @property
    def has_model(self) -> bool:
        """Whether the run has a model. A folder made beside a plain store has none."""
        return self.spec.adapter != NO_MODEL.name

    @cached_property
    def samples(self) -> SampleTable:
        """The samples, in order; each is made when it is asked for.

        Pictures outside the folder cannot be opened if the run is not trusted.
        """
        found = self.recorded_samples
        if self.trust or is_own(self.path, FILE):
            return found
        vetted = SampleTable(vetted_sample(sample, self.path) for sample in found)
        pairs = zip(vetted, found, strict=True)
        if changed := sum(new != old for new, old in pairs):
            _log.warning("%s", withheld(changed, self.path))
        return vetted

    def own_samples(self) -> SampleTable | None:
        """The samples; None unless this user's vlmlens wrote them on this machine."""
        return self.recorded_samples if is_own(self.path, FILE) else None

    @property
    def sample_count(self) -> int:
        """The number of samples, which does not read them."""
        known = self.info.get("samples")
        return len(self.samples) if known is None else int(known)

    @property
    def recorded_samples(self) -> SampleTable:
        """The samples with the pictures' paths as they were recorded, also if not trusted."""
        return read_table(self.path / FILE, self.sample_of, self.info.get("samples"))

    def sample_of(self, record: Mapping[str, Any]) -> Sample:
        """A sample of a line of samples.jsonl, which names images that the run keeps by content."""
        images = (
            str(self._kept(name)) if name.startswith(PIXELS) else name for name in record["images"]
        )
        return Sample.from_dict({**record, "images": tuple(images)})

    def _kept(self, name: str) -> Path:
        return self.path / "images" / f"{name.removeprefix(PIXELS)}.png"

    def _name(self, image: str) -> str:
        kept = self._kept(Path(image).stem)
        return f"{PIXELS}{kept.stem}" if Path(image) == kept else image

    def sample_records(self) -> list[dict[str, Any]]:
        """The samples as data, each with a fingerprint of its prompt and images."""
        count = self.info.get("samples")
        return read_records(self.path / FILE, "id", "prompt", "images", count=count)

    def sample_prints(self) -> dict[str, str]:
        """By sample id, the fingerprint of its prompt and images; "" where there is none."""
        count = self.info.get("samples")
        records = each_record(self.path / FILE, "id", "prompt", "images", count=count)
        return {record["id"]: record.get("fingerprint") or "" for record in records}

    def write_samples(self, samples: Sequence[Sample]) -> None:
        """Write samples.jsonl, and images that are in memory to `images`."""
        made, images = write_table(self.path / FILE, samples, self.keep_images, self._name)
        self.update(signed={**self.info.get("signed", {}), FILE: made}, images=images)

    def keep_images(self, sample: Sample) -> Sample:
        """The sample with files in the run's folder where it has images in memory.

        They are PNG files of what the model sees (upright, 8-bit RGB), which lose nothing.
        """
        if all(isinstance(image, str) for image in sample.images):
            return sample
        files = []
        pixels = sample.open_images()
        for image, name, shown in zip(
            sample.images, sample.to_dict()["images"], pixels, strict=True
        ):
            path = self._kept(name)
            if not isinstance(image, str) and not path.exists():
                sink = BytesIO()
                shown.save(sink, "PNG")
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, sink.getvalue())
            files.append(image if isinstance(image, str) else str(path))
        return replace(sample, images=tuple(files))

    @property
    def skipped(self) -> list[BadSample]:
        """The samples that were left out because their images cannot be used."""
        records = read_records(self.path / "skipped.jsonl", "id", "image", "reason")
        return [BadSample(each["id"], each["image"], each["reason"]) for each in records]

    def write_skipped(self, skipped: Sequence[BadSample]) -> None:
        """Write skipped.jsonl, or remove it if nothing was left out."""
        path = self.path / "skipped.jsonl"
        if not skipped:
            path.unlink(missing_ok=True)
            return
        lines = [json.dumps(bad.to_dict(), ensure_ascii=False) + "\n" for bad in skipped]
        write_text(path, "".join(lines))

    def store(self, *, mode: Mode = "r") -> ColumnStore:
        """The run's store; use it as a context manager.

        What several processes wrote is read as one store. Mode "a" opens the run's own store alone.

        Raises:
            StoreError: It cannot be opened, or (mode "a") holds the columns of another run.
        """
        from vlmlens.stores.sharded import ShardedStore

        columns = self.stores
        if mode == "r" and (parts := columns.parts()):
            own = [columns.own()] if columns.has_own else []
            return ShardedStore([*own, *parts], overlapping=bool(own))
        return columns.own(mode)

    @property
    def stores(self) -> RunStores:
        """The stores of the run's columns, one by one."""
        return RunStores(self, self._shards)

    def _shards(self) -> list[ColumnStore]:
        """The shards of a run of an older version, open for reading."""
        from vlmlens.runs.shards import shard_folders

        if self.merged:
            return []
        folders = shard_folders(self.path)
        return [Run(each, registry=self.registry, trust=self.trust).store() for each in folders]

    @property
    def registry(self) -> Registry:
        """The plugins that the run uses."""
        if self._registry is None:
            from vlmlens.registry import Registry

            self._registry = Registry.default()
        return self._registry

    @property
    def activations(self) -> Activations:
        """The columns by name, as arrays in sample order."""
        return Activations(self)

    @property
    def generated(self) -> dict[str, str]:
        """The text that the model generated for each sample, by sample id (`--generate`)."""
        return {name: record["text"] for name, record in GeneratedTexts(self.path).read().items()}

    @property
    def results(self) -> dict[str, Result]:
        """The results by analysis, in the order of the spec; those added later follow."""
        return self.read_results()

    def read_results(self, read: Callable[[Path], Result] = read_whole) -> dict[str, Result]:
        """Like `results`; `vlmlens.runs.stored_tables.read_in_place` leaves tables in files."""
        found = self._stored_results(read)
        found.pop(OVERVIEW, None)
        first = [name for name in self.spec.analysis if name in found]
        return {name: found[name] for name in dict.fromkeys([*first, *found])}

    @property
    def overview(self) -> Result:
        """The answers of all analyses, one row per task; empty if no analysis has run."""
        return self._stored_results().get(OVERVIEW) or Result(OVERVIEW, "Overview")

    def _stored_results(self, read: Callable[[Path], Result] = read_whole) -> dict[str, Result]:
        folder = self.path / "results"
        if not folder.is_dir():
            return {}
        made = self.info.get("made")
        ours = None if made is None else {Path(name).name for name in made}
        return {result.analysis: result for result in read_results(folder, ours, read)}

    @property
    def report_path(self) -> Path:
        """The path of the HTML report, which exists once it is written."""
        return self.path / "report.html"

    @property
    def plugins_path(self) -> Path:
        """The folder for files of lifecycle plugins. A plugin creates it when it needs it."""
        return self.path / "plugins"

    @property
    def facts(self) -> dict[str, dict[str, str]]:
        """What lifecycle plugins report about the run: lines under headings."""
        from vlmlens.registry import call_hook

        found: dict[str, dict[str, str]] = {}
        for said in call_hook(self.registry.hooks(), "vlmlens_facts", run=self):
            for heading, lines in _mapping(said).items():
                named = {str(name): str(value) for name, value in _mapping(lines).items()}
                found.setdefault(str(heading), {}).update(named)
        return found

    def clear(self, *, but: Sequence[str] = ()) -> None:
        """Remove everything that vlmlens made, except `but`. Other files in the folder stay."""
        remove_own(self.path, self.info, but)
        if "run.json" not in but:
            (self.path / "run.json").unlink()

    @property
    def merged(self) -> bool:
        """Whether the parts that several processes wrote are one store now.

        It is said in run.json, so that the merged store takes the place of the parts in one step.
        """
        return "shards" in self.info

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), trust=self.trust), (self.path,)


def _mapping(said: Any) -> Mapping[Any, Any]:
    return said if isinstance(said, Mapping) else {}
