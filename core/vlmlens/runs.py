"""Run: a folder that holds the composed spec, the samples, the columns and the results.

::

    run.json        state, model, versions, timings
    spec.yaml       the composed spec; `vlmlens run -c spec.yaml` repeats the run
    samples.jsonl   the samples in order
    columns/        the store
    results/        a JSON file per analysis, tables as Parquet, figures as SVG
    report.html     the report
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._files import write_json, write_text
from vlmlens.errors import RunNotFound
from vlmlens.samples import Sample
from vlmlens.spec import RunSpec, make_spec, read_yaml

if TYPE_CHECKING:
    from vlmlens.abc.storage import Array, ColumnStore, Mode
    from vlmlens.registry import Registry
    from vlmlens.results import Result

_OWN = ("run.json", "spec.yaml", "samples.jsonl", "report.html", "columns", "results")


class Run:
    """A run on disk.

    Args:
        path: Its folder.
        registry: Where to look for its storage backend; default: what is installed.

    Raises:
        RunNotFound: The folder holds no run.
    """

    def __init__(self, path: str | Path, *, registry: Registry | None = None) -> None:
        self.path = Path(path)
        self._registry = registry
        if not (self.path / "run.json").is_file():
            raise RunNotFound(
                f"{str(path)!r} holds no run.",
                subject=str(path),
                hint="Give the folder that `vlmlens run` or `vlmlens extract` wrote.",
            )

    @classmethod
    def create(
        cls, path: Path, spec: RunSpec, info: Mapping[str, Any], *, registry: Registry | None = None
    ) -> Run:
        """Make the folder, write spec and state."""
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "spec.yaml", spec.to_yaml())
        write_json(path / "run.json", info)
        return cls(path, registry=registry)

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json."""
        info: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return info

    def update(self, **values: Any) -> None:
        """Change entries of run.json."""
        write_json(self.path / "run.json", {**self.info, **values})

    @cached_property
    def spec(self) -> RunSpec:
        """The composed spec."""
        return make_spec(read_yaml(self.path / "spec.yaml"))

    @cached_property
    def samples(self) -> list[Sample]:
        """The samples, in order."""
        return [Sample.from_dict(record) for record in self.sample_records()]

    def sample_records(self) -> list[dict[str, Any]]:
        """The samples as data, each with the fingerprint of what the model saw."""
        path = self.path / "samples.jsonl"
        if not path.exists():
            return []
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def write_samples(self, samples: Sequence[Sample]) -> None:
        """Write samples.jsonl."""
        records = ({**sample.to_dict(), "fingerprint": sample.fingerprint()} for sample in samples)
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        write_text(self.path / "samples.jsonl", "".join(lines))

    def store(self, *, mode: Mode = "r") -> ColumnStore:
        """The run's columns; use as a context manager."""
        from vlmlens.manifest import PluginKind

        registry = self.registry
        manifest = registry.find(PluginKind.STORAGE, self.spec.storage)
        backend: type[ColumnStore] = registry.load(manifest)
        options = registry.options(manifest, self.spec.options.storage)
        return backend.open(str(self.path / "columns"), mode=mode, options=options)

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
    def results(self) -> dict[str, Result]:
        """The results by analysis."""
        from vlmlens.report.files import read_results

        folder = self.path / "results"
        return {r.analysis: r for r in read_results(folder)} if folder.is_dir() else {}

    @property
    def report_path(self) -> Path:
        """Where the HTML report lies, once it is written."""
        return self.path / "report.html"

    def clear(self) -> None:
        """Remove what vlmlens wrote; other files in the folder stay."""
        for name in _OWN:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


class Activations(Mapping[str, "Array | list[Array]"]):
    """A run's columns: `run.activations["llm.block.14/last"]`.

    A column reads as one array `[samples, width]` in sample order, a ragged one as a list of
    `[k_i, width]`.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getitem__(self, column: str) -> Array | list[Array]:
        from vlmlens.tokens import Column

        name = str(Column.parse(column))
        with self._run.store() as store:
            present = set(store.ids(name))
            ids = [sample.id for sample in self._run.samples if sample.id in present]
            values = store.read(name, ids)
            return values.per_sample() if values.ragged else values.numpy().copy()

    def __contains__(self, column: object) -> bool:
        return column in list(self)

    def __iter__(self) -> Iterator[str]:
        with self._run.store() as store:
            return iter([column.name for column in store.columns()])

    def __len__(self) -> int:
        return len(list(iter(self)))
