"""Model work: what an analysis wants the model to do, in units that can be stored and sent away."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from vlmlens._display import brief
from vlmlens._files import FILE_MODULE
from vlmlens.abc import options as base
from vlmlens.errors import DataError
from vlmlens.samples import Sample

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter

JSON: TypeAlias = Any
"""Numbers, text, true, false, null, lists and objects, as Python's `json` reads and writes them.

NaN and infinities are kept.
"""

_FORMAT = 1
_PROCESS = secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """One unit of model work: a sample, and what to do with it.

    Args:
        sample: The sample. `ModelWork.run` gets only its id and what the model sees: the prompt,
            the images with their rules, and the attributes `boxes` and `regions` (and the choices
            where the prompt names them all and does not mark them). Anything else that `run` needs,
            such as choices, belongs in the arguments.
        arguments: What to do, as JSON.
        batch: Only units with the same text here are run in one batch. It is no part of what a
            result is stored by.
    """

    sample: Sample
    arguments: Mapping[str, JSON] = field(default_factory=dict)
    batch: str = ""

    def __repr__(self) -> str:
        return brief(self, self.sample.id, str(dict(self.arguments)), self.batch or "any batch")

    def as_run(self) -> WorkUnit:
        """The unit as `ModelWork.run` gets it, here and in any other process."""
        return WorkUnit(self.sample.as_seen(), json.loads(self.text()))

    def text(self) -> str:
        """The arguments as JSON text.

        Raises:
            DataError: They are no JSON.
        """
        try:
            return json.dumps(dict(self.arguments), sort_keys=True, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"The arguments of a unit of sample {self.sample.id!r} are no JSON: {error}.",
                subject=self.sample.id,
                hint="Use numbers, text, lists and mappings with text as keys.",
            ) from error


class ModelWork(ABC):
    """Base class of what an analysis has the model do. `AnalysisContext.run_units` runs it.

    Results are kept in the run. They are used again for units with the same model, class, version,
    options, prompt, images and arguments. So `run` must depend on nothing else: not on the id of a
    sample, not on the other units of a batch (except by rounding), not on the time.

    Another process makes the same object by importing its class and giving it its options.

    Args:
        options: The options of this work; None: the defaults.
    """

    Options: ClassVar[type[base.Options]] = base.Options

    version: ClassVar[int | None] = None
    """Increase it whenever `run` gives other results.

    None: the source of the class's module takes its place, so every change of that file counts as
    another version. It always does for classes in plain files.
    """

    def __init__(self, options: base.Options | None = None) -> None:
        self.options = self.Options() if options is None else options

    @abstractmethod
    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> Sequence[JSON]:
        """The results of one batch: one for each unit, in order, small, and JSON.

        Args:
            vlm: The loaded model.
            units: At least one, see `WorkUnit`. If they do not fit in memory together, `run` is
                called again with fewer.
        """

    @property
    def target(self) -> str:
        """Where the class is: "package.module:Class", or "FILE.py:Class"."""
        module = type(self).__module__
        place = _source(module) if module.startswith(FILE_MODULE) else module
        return f"{place}:{type(self).__qualname__}"

    def to_dict(self) -> dict[str, JSON]:
        """What another process needs to make the same object."""
        return {"target": self.target, "options": self.options.model_dump(mode="json")}

    def identity(self) -> dict[str, JSON]:
        """What results depend on, beside the model and the unit."""
        options = self.options.model_dump(mode="json")
        return {**code_of(type(self), self.version), "options": options}


def code_of(cls: type, version: int | None = None) -> dict[str, JSON]:
    """What tells the code of a class from that of others, and from what it was before.

    Args:
        cls: The class.
        version: What it says its version is. None: the source of its module is its version, as it
            always is for a class in a plain file.
    """
    module = cls.__module__
    in_file = module.startswith(FILE_MODULE) or module == "__main__"
    return {
        "class": cls.__qualname__ if in_file else f"{module}:{cls.__qualname__}",
        "version": _digest(module) if in_file or version is None else version,
    }


def keys_of(work: ModelWork, units: Sequence[WorkUnit], model: Mapping[str, Any]) -> list[bytes]:
    """What the result of each unit is stored by: 16 bytes per unit, equal for equal work.

    Args:
        work: The work.
        units: Its units.
        model: Everything that determines the model's numbers (`ModelAdapter.describe`, edits).

    Raises:
        DataError: The arguments of a unit are no JSON.
        ImageError: An image file is missing.
    """
    said = {"format": _FORMAT, "model": dict(model), "work": work.identity()}
    common = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16)
    seen: dict[int, bytes] = {}
    found = []
    for unit in units:
        sample = seen.get(id(unit.sample))
        if sample is None:
            sample = seen[id(unit.sample)] = unit.sample.fingerprint().encode()
        key = common.copy()
        key.update(sample + unit.text().encode())
        found.append(key.digest())
    return found


def _source(module: str) -> str:
    """The file of a module, if it has one."""
    return getattr(sys.modules.get(module), "__file__", None) or ""


def _digest(module: str) -> str:
    """The digest of a module's source. Code without a file, as in a notebook, differs each time."""
    path = Path(_source(module))
    if not path.is_file():
        return f"process {_PROCESS}"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]
