"""Flags that several commands share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial, wraps
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from vlmlens.cli import _completion as completion
from vlmlens.cli._installed import installed
from vlmlens.cli._output import Output, current
from vlmlens.errors import SpecError

if TYPE_CHECKING:
    from vlmlens.spec.model import RunSpec

__all__ = [
    "DryRun",
    "Mode",
    "Shard",
    "SpecFlags",
    "Verbose",
    "Workers",
    "analysis_flags",
    "installed",
    "model_flags",
    "output_flags",
    "shares",
    "spec_flags",
]


@dataclass(frozen=True)
class SpecFlags:
    """The settings that the user gave.

    Args:
        values: Those given by flags, by name.
        config: A YAML file of settings.
        assignments: `--set` values, in order.
    """

    values: Mapping[str, Any]
    config: str | None
    assignments: tuple[str, ...]

    def spec(self, base: Mapping[str, Any] | None = None) -> RunSpec:
        """The checked spec: `base`, overridden by the file, then by flags, then by `--set`.

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
        """How a file of VLM-Lens was understood."""
        return self._file[1]

    @cached_property
    def _file(self) -> tuple[dict[str, Any], list[str]]:
        from vlmlens.spec.vlm_lens import read_run_file

        return ({}, []) if self.config is None else read_run_file(self.config)

    def only(self, *keys: str, command: str) -> None:
        """Check that `--set` assigns only what the command uses.

        Raises:
            SpecError: It assigns another key.
        """
        for assignment in self.assignments:
            if re.split(r"[.=]", assignment.strip(), maxsplit=1)[0] not in keys:
                raise SpecError(
                    f"`vlmlens {command}` does not use --set {assignment!r}.",
                    subject=assignment,
                    hint=f"It uses {' and '.join(keys)}; all other settings are those of the run.",
                )

    def _given(self, below: Mapping[str, Any]) -> dict[str, Any]:
        """The flags' values; an analysis chosen by flag keeps the run file's options for it."""
        given = dict(self.values)
        if "analysis" in given:
            options = below.get("analysis")
            known = options if isinstance(options, Mapping) else {}
            given["analysis"] = {name: known.get(name) for name in given["analysis"]}
        return given


_model = partial(Option, rich_help_panel="Model")
_data = partial(Option, rich_help_panel="Data")
_record = partial(Option, rich_help_panel="What to record")
_analyses = partial(Option, rich_help_panel="Analyses")
_speed = partial(Option, rich_help_panel="Speed")
_output = partial(Option, rich_help_panel="Output")

_Adapter = Annotated[
    str | None,
    _model(
        metavar="NAME",
        help="Model family: the name of an adapter, or FILE.py:Class. [default: demo]",
        autocompletion=completion.names_of("adapter"),
    ),
]
_Model = Annotated[
    str | None,
    _model(
        metavar="ID",
        help="Checkpoint: id on the Hugging Face hub, or folder.",
        autocompletion=completion.checkpoints,
    ),
]
_Revision = Annotated[
    str | None,
    _model(metavar="NAME", help="Branch, tag or commit of a hub checkpoint. [default: main]"),
]
_Device = Annotated[
    str | None,
    _model(
        metavar="DEVICE",
        help="cpu, cuda, cuda:1, mps, or auto: a GPU where there is one. [default: auto]",
    ),
]
_DeviceMap = Annotated[
    str | None,
    _model(metavar="MAP", help="Spread one model over several GPUs, for example auto."),
]
_Dtype = Annotated[
    str | None,
    _model(
        metavar="TYPE",
        help="Weights in float32, bfloat16, float16, or auto: as stored, but float32 instead of "
        "float16 on a CPU. [default: auto]",
        autocompletion=completion.one_of("auto", "float32", "bfloat16", "float16"),
    ),
]
_Attention = Annotated[
    str | None,
    _model(
        metavar="NAME",
        help="Attention code: sdpa, eager, flash_attention_2, ... [default: the model's own]",
        autocompletion=completion.one_of("sdpa", "eager", "flash_attention_2"),
    ),
]
_Quantization = Annotated[
    str | None,
    _model(
        metavar="BITS",
        help="Load the weights quantized by bitsandbytes: 4bit or 8bit.",
        autocompletion=completion.one_of("4bit", "8bit"),
    ),
]
_Trust = Annotated[
    bool | None,
    _model("--trust-remote-code", help="Run Python code that comes with the checkpoint."),
]
_Data = Annotated[
    str | None,
    _data(
        metavar="DATA",
        help="Folder, file, or DATASET:SOURCE. [default for the adapter demo: demo:scenes]",
        autocompletion=completion.data,
    ),
]
_Prompt = Annotated[
    list[str] | None,
    _data(metavar="TEXT", help="Question to ask about each image; repeatable."),
]
_Limit = Annotated[int | None, _data(metavar="N", help="Use the first N samples only.")]
_OnBadSample = Annotated[
    str | None,
    _data(
        metavar="DO",
        help="Unreadable images: stop (and list them), or skip. [default: stop]",
        autocompletion=completion.one_of("stop", "skip"),
    ),
]
_Sites = Annotated[
    list[str] | None,
    _record(
        metavar="SITE",
        help="Site, or column (SITE/SELECTOR), to keep; repeatable. [default: every block and "
        "the projector]",
        autocompletion=completion.sites,
    ),
]
_Extractor = Annotated[
    str | None,
    _record(
        metavar="NAME",
        help="What to record per layer: activations or attention. [default: activations]",
        autocompletion=completion.names_of("extractor"),
    ),
]
_Generate = Annotated[
    int | None,
    _record(
        metavar="N",
        help="Let the model write up to N tokens, and keep the text. Adds the selectors steps and "
        "answer.",
    ),
]
_Storage = Annotated[
    str | None,
    _record(
        metavar="NAME",
        help="Store for activations: lmdb, sqlite, zarr, or a URI. [default: lmdb]",
        autocompletion=completion.names_of("storage"),
    ),
]
_Analysis = Annotated[
    list[str] | None,
    _analyses(
        metavar="NAME",
        help="Analysis to run; repeatable. [default: probe, logit-lens, blind-test]",
        autocompletion=completion.names_of("analysis"),
    ),
]
_Seed = Annotated[
    int | None, _analyses(metavar="N", help="Seed of everything random. [default: 0]")
]
_BatchSize = Annotated[
    str | None,
    _speed(
        metavar="N",
        help="Samples per forward pass, or auto: as many as fit a token budget, and half as many "
        "after running out of memory. [default: auto]",
    ),
]
_SharePrefix = Annotated[
    bool | None,
    _speed(
        "--share-prefix/--no-share-prefix",
        help="Compute the system prompt and the image once per image and reuse the KV cache, where "
        "that is exact. [default: share-prefix]",
    ),
]
_Autocast = Annotated[
    str | None,
    _speed(
        metavar="TYPE",
        help="Run under torch.autocast in bfloat16 or float16; weights keep --dtype.",
        autocompletion=completion.one_of("bfloat16", "float16"),
    ),
]
_Compile = Annotated[
    bool | None,
    _speed(
        "--compile/--no-compile",
        help="Compile the model's blocks: slow start, fast batches. [default: no-compile]",
    ),
]
_Out = Annotated[
    str | None, _output(metavar="FOLDER", help="Run folder. [default: runs/ADAPTER-NUMBER]")
]
_Config = Annotated[
    str | None,
    _output("--config", "-c", metavar="FILE", help="YAML file of settings; flags override it."),
]
_Set = Annotated[
    list[str] | None,
    _output(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting, for example analysis.probe.folds=10; repeatable.",
        autocompletion=completion.settings,
    ),
]
Mode = Annotated[
    bool | None,
    _output(
        "--resume/--fresh",
        help="Continue the run in --out, or start it over. [default: refuse a folder with a run]",
    ),
]
Workers = Annotated[
    int,
    _speed(min=1, metavar="N", help="Processes that extract, each on its own GPU if possible."),
]
DryRun = Annotated[
    bool, _output("--dry-run", help="Check the run and estimate its size; write nothing.")
]
Shard = Annotated[
    str | None,
    _speed(
        metavar="K/N",
        help="Part K of N, counted from 0, for several processes or machines; env reads the "
        "variables of torchrun or Slurm.",
    ),
]
Verbose = Annotated[
    bool, _output("--verbose", "-v", help="Print all findings and tables before the summary.")
]


def model_flags(
    adapter: _Adapter = None,
    model: _Model = None,
    revision: _Revision = None,
    trust_remote_code: _Trust = None,
    config: _Config = None,
    set_: _Set = None,
) -> SpecFlags:
    """Flags of a command that needs only the structure of a model."""
    return _flags(locals())


def analysis_flags(
    analysis: _Analysis = None,
    seed: _Seed = None,
    config: _Config = None,
    set_: _Set = None,
) -> SpecFlags:
    """Flags of a command that analyses what is stored."""
    return _flags(locals())


def spec_flags(
    adapter: _Adapter = None,
    model: _Model = None,
    data: _Data = None,
    prompt: _Prompt = None,
    limit: _Limit = None,
    on_bad_sample: _OnBadSample = None,
    sites: _Sites = None,
    extractor: _Extractor = None,
    generate: _Generate = None,
    storage: _Storage = None,
    analysis: _Analysis = None,
    seed: _Seed = None,
    revision: _Revision = None,
    device: _Device = None,
    device_map: _DeviceMap = None,
    dtype: _Dtype = None,
    attention: _Attention = None,
    quantization: _Quantization = None,
    trust_remote_code: _Trust = None,
    batch_size: _BatchSize = None,
    share_prefix: _SharePrefix = None,
    autocast: _Autocast = None,
    compile: _Compile = None,  # noqa: A002  the flag's name
    out: _Out = None,
    config: _Config = None,
    set_: _Set = None,
) -> SpecFlags:
    """Flags of a command that composes a whole run."""
    return _flags(locals())


def output_flags(
    json: Annotated[bool, _output("--json", help="Print data as one JSON document.")] = False,
    quiet: Annotated[
        bool, _output("--quiet", "-q", help="Print no progress and no notes.")
    ] = False,
    debug: Annotated[bool, _output("--debug", help="Print tracebacks of all errors.")] = False,
) -> Output:
    """Flags of every command."""
    output = Output(json=json, quiet=quiet, debug=debug)
    current.set(output)
    return output


def shares(**makers: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of other functions.

    Args:
        makers: For a parameter of the command, the function that makes its value. The function's
            own parameters become flags of the command.
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
