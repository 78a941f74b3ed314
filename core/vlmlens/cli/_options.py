"""Options that several commands share, declared once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vlmlens.cli import _completion as completion
from vlmlens.cli._installed import installed
from vlmlens.cli._output import Output, current
from vlmlens.errors import SpecError

if TYPE_CHECKING:
    from vlmlens.spec.model import RunSpec

__all__ = [
    "SpecFlags",
    "analysis_flags",
    "installed",
    "model_flags",
    "output_flags",
    "shares",
    "spec_flags",
]


@dataclass(frozen=True)
class SpecFlags:
    """What the user gave of a run spec.

    Args:
        values: Spec values by name, only those given.
        config: A run file.
        assignments: `--set` values, in order.
    """

    values: Mapping[str, Any]
    config: str | None
    assignments: tuple[str, ...]

    def spec(self, base: Mapping[str, Any] | None = None) -> RunSpec:
        """The checked spec: flags over run file over `base`, `--set` over all.

        Raises:
            SpecError: The file, a key or a value is wrong.
        """
        from vlmlens.spec.model import assign, make_spec, merged

        below = merged(dict(base or {}), self._file[0])
        values = merged(below, self._given(below))
        if "analysis" in self.values:
            values["analysis"] = self._given(below)["analysis"]
        for assignment in self.assignments:
            assign(values, assignment)
        return make_spec(values)

    @property
    def notes(self) -> list[str]:
        """What the run file was taken to mean, where it is one of VLM-Lens."""
        return self._file[1]

    @cached_property
    def _file(self) -> tuple[dict[str, Any], list[str]]:
        from vlmlens.spec.vlm_lens import read_run_file

        return ({}, []) if self.config is None else read_run_file(self.config)

    def only(self, *keys: str, command: str) -> None:
        """Raise where `--set` assigns something that the command does not use.

        Raises:
            SpecError: Another key.
        """
        for assignment in self.assignments:
            if re.split(r"[.=]", assignment.strip(), maxsplit=1)[0] not in keys:
                raise SpecError(
                    f"`vlmlens {command}` does not use --set {assignment!r}.",
                    subject=assignment,
                    hint=f"It takes {' and '.join(keys)}; the rest is as the run was made.",
                )

    def _given(self, below: Mapping[str, Any]) -> dict[str, Any]:
        """The flags' values; an analysis chosen by flag keeps the run file's options for it."""
        given = dict(self.values)
        if "analysis" in given:
            options = below.get("analysis")
            known = options if isinstance(options, Mapping) else {}
            given["analysis"] = {name: known.get(name) for name in given["analysis"]}
        return given


def _plugin(flag: str, kind: str, text: str) -> Any:
    return Option(flag, metavar="NAME", help=text, autocompletion=completion.names_of(kind))


_Adapter = Annotated[str | None, _plugin("--adapter", "adapter", "Model family, or FILE.py:Class.")]
_Model = Annotated[
    str | None,
    Option(
        metavar="ID",
        help="Checkpoint: hub id or folder.",
        autocompletion=completion.checkpoints,
    ),
]
_Revision = Annotated[
    str | None, Option(metavar="NAME", help="Branch, tag or commit of a hub checkpoint.")
]
_Device = Annotated[str | None, Option(metavar="DEVICE", help="cpu, cuda, cuda:1, mps or auto.")]
_DeviceMap = Annotated[
    str | None, Option(metavar="MAP", help="Spread the model, for example 'auto'.")
]
_Dtype = Annotated[
    str | None,
    Option(
        metavar="TYPE",
        help="auto, float32, bfloat16 or float16.",
        autocompletion=completion.one_of("auto", "float32", "bfloat16", "float16"),
    ),
]
_Attention = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="sdpa, eager, flash_attention_2, ...",
        autocompletion=completion.one_of("sdpa", "eager", "flash_attention_2"),
    ),
]
_Autocast = Annotated[
    str | None,
    Option(
        metavar="TYPE",
        help="Matrix products in bfloat16 or float16.",
        autocompletion=completion.one_of("bfloat16", "float16"),
    ),
]
_Quantization = Annotated[
    str | None,
    Option(
        metavar="BITS",
        help="Load quantized by bitsandbytes: 4bit or 8bit.",
        autocompletion=completion.one_of("4bit", "8bit"),
    ),
]
_Compile = Annotated[
    bool | None,
    Option("--compile/--no-compile", help="Compile the model's blocks: slow start, fast batches."),
]
_Trust = Annotated[
    bool | None,
    Option("--trust-remote-code", help="Run code that comes with the checkpoint."),
]
_Data = Annotated[
    str | None,
    Option(metavar="DATA", help="Path, or DATASET:SOURCE.", autocompletion=completion.data),
]
_Prompt = Annotated[
    list[str] | None, Option(metavar="TEXT", help="Prompt to ask of each image; repeatable.")
]
_Sites = Annotated[
    list[str] | None,
    Option(
        metavar="SITE",
        help="Site or column (SITE/SELECTOR) to keep; repeatable.",
        autocompletion=completion.sites,
    ),
]
_Analysis = Annotated[list[str] | None, _plugin("--analysis", "analysis", "Analysis; repeatable.")]
_Storage = Annotated[str | None, _plugin("--storage", "storage", "Where columns live.")]
_Extractor = Annotated[str | None, _plugin("--extractor", "extractor", "How columns are made.")]
_BatchSize = Annotated[
    str | None, Option(metavar="N", help="Samples per forward pass, or auto (by tokens).")
]
_SharePrefix = Annotated[
    bool | None,
    Option(
        "--share-prefix/--no-share-prefix",
        help="Run what questions on the same image have in common once, where that is exact.",
    ),
]
_Generate = Annotated[
    int | None,
    Option(metavar="N", help="Let the model write up to N tokens (selectors: steps, answer)."),
]
_Limit = Annotated[int | None, Option(metavar="N", help="Use the first N samples only.")]
_OnBadSample = Annotated[
    str | None,
    Option(
        metavar="DO",
        help="Where images cannot be used: stop with their list, or skip them.",
        autocompletion=completion.one_of("stop", "skip"),
    ),
]
_Seed = Annotated[int | None, Option(metavar="N", help="Seed of everything random.")]
_Out = Annotated[str | None, Option(metavar="FOLDER", help="Run folder.")]
_Config = Annotated[
    str | None, Option("--config", "-c", metavar="FILE", help="Run file (YAML); flags go over it.")
]
_Set = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Any value, as analysis.probe.folds=10; repeatable."),
]


def model_flags(
    adapter: _Adapter = None,
    model: _Model = None,
    revision: _Revision = None,
    trust_remote_code: _Trust = None,
    config: _Config = None,
    set_: _Set = None,
) -> SpecFlags:
    """Options of a command that needs a model's structure only."""
    return _flags(locals())


def analysis_flags(
    analysis: _Analysis = None,
    seed: _Seed = None,
    config: _Config = None,
    set_: _Set = None,
) -> SpecFlags:
    """Options of a command that analyses what is stored."""
    return _flags(locals())


def spec_flags(
    adapter: _Adapter = None,
    model: _Model = None,
    data: _Data = None,
    prompt: _Prompt = None,
    sites: _Sites = None,
    analysis: _Analysis = None,
    storage: _Storage = None,
    extractor: _Extractor = None,
    device: _Device = None,
    dtype: _Dtype = None,
    device_map: _DeviceMap = None,
    attention: _Attention = None,
    autocast: _Autocast = None,
    quantization: _Quantization = None,
    compile: _Compile = None,  # noqa: A002  the flag's name
    batch_size: _BatchSize = None,
    share_prefix: _SharePrefix = None,
    generate: _Generate = None,
    limit: _Limit = None,
    on_bad_sample: _OnBadSample = None,
    seed: _Seed = None,
    revision: _Revision = None,
    trust_remote_code: _Trust = None,
    out: _Out = None,
    config: _Config = None,
    set_: _Set = None,
) -> SpecFlags:
    """Options of a command that composes a whole run."""
    return _flags(locals())


def output_flags(
    json: Annotated[bool, Option("--json", help="Print data as one JSON document.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress, no notes.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show tracebacks of errors.")] = False,
) -> Output:
    """Options of every command."""
    output = Output(json=json, quiet=quiet, debug=debug)
    current.set(output)
    return output


def shares(**makers: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of other functions.

    Args:
        makers: By parameter name of the command: the function whose parameters become options,
            and whose result the command is given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        shared = {
            name: inspect.signature(maker, eval_str=True).parameters
            for name, maker in makers.items()
        }

        own_only = {name: parameter for name, parameter in own.items() if name not in makers}

        @wraps(command)
        def wrapper(**given: Any) -> None:
            for name, maker in makers.items():
                given[name] = maker(**{key: given.pop(key) for key in shared[name]})
            command(**given)

        groups = {**{name: shared[name] for name in makers}, "": own_only}
        order = sorted(groups, key=lambda name: (name == "output", name == ""))
        parameters = [
            parameter.replace(kind=parameter.KEYWORD_ONLY)
            for name in order
            for parameter in groups[name].values()
        ]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapper

    return decorate


def _flags(given: Mapping[str, Any]) -> SpecFlags:
    values = {key: value for key, value in given.items() if value not in (None, [])}
    size = str(values.get("batch_size", ""))
    if size.lstrip("-").isdecimal():
        values["batch_size"] = int(size)
    assignments = tuple(values.pop("set_", ()))
    return SpecFlags(values, values.pop("config", None), assignments)
