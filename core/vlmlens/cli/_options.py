"""Flags that several commands share.

Over 400 lines: the one list of shared flags, each with its help.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
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
    "SpecFlags",
    "Trust",
    "Verbose",
    "analysis_flags",
    "extract_flags",
    "installed",
    "look_flags",
    "model_flags",
    "output_flags",
    "run_flags",
    "shares",
    "spec_flags",
    "tune_flags",
    "view_flags",
]


@dataclass(frozen=True)
class SpecFlags:
    """The settings that the user gave.

    Args:
        values: Those given by flags, by name.
        config: A YAML file of settings.
        assignments: `--set` values, in order.
        trust: Whether the file may name code.
    """

    values: Mapping[str, Any]
    config: str | None
    assignments: tuple[str, ...]
    trust: bool = False

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
        spec = make_spec(values)
        self._check_trust(spec)
        return spec

    def given(self) -> dict[str, Any]:
        """What flags and `--set` say, as nested values; without a file and without defaults.

        Raises:
            SpecError: An assignment has another form.
        """
        from vlmlens.spec.model import assign

        values = self._given({})
        for assignment in self.assignments:
            assign(values, assignment)
        return values

    def _check_trust(self, spec: RunSpec) -> None:
        """Raise an error if the file, and not the user, names code that the spec would run."""
        from vlmlens.runs.trust import code_of, is_own_file, refuse
        from vlmlens.spec.model import make_spec

        if self.config is None or self.trust or is_own_file(self.config):
            return
        said = code_of(make_spec(self.given()))
        in_file = code_of(make_spec(self._file[0])).items()
        found = {k: v for k, v in in_file if code_of(spec).get(k) == v and said.get(k) != v}
        refuse(self.config, found)

    @property
    def notes(self) -> list[str]:
        """How a file of VLM-Lens was understood."""
        return self._file[1]

    @cached_property
    def _file(self) -> tuple[dict[str, Any], list[str]]:
        from vlmlens.spec.paths import check_beside
        from vlmlens.spec.vlm_lens import read_run_file

        if self.config is None:
            return {}, []
        values, notes = read_run_file(self.config)
        check_beside(self.config, {**values, **self.values})
        return values, notes

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


_output = partial(Option, rich_help_panel="Output")
_speed = partial(Option, rich_help_panel="Speed")


@dataclass(frozen=True)
class _Flag:
    """A flag for a setting of the run; it is None where it is not given.

    Args:
        name: Of the setting.
        group: The heading in `--help`.
        metavar: Its value in `--help`; "" for a switch.
        text: Its help.
        complete: Gives what can be typed.
        kind: The type of its value.
        flags: Its spellings, where they are not the name's.
    """

    name: str
    group: str
    metavar: str
    text: str
    complete: Callable[..., list[str]] | None = None
    kind: Any = str
    flags: tuple[str, ...] = ()

    def parameter(self) -> inspect.Parameter:
        """As a parameter of a command."""
        option = Option(
            *(self.flags or [f"--{self.name.replace('_', '-')}"]),
            metavar=self.metavar or None,
            help=self.text,
            autocompletion=self.complete,
            rich_help_panel=self.group,
        )
        annotation = Annotated[self.kind | None, option]  # type: ignore[name-defined]
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(self.name, kind, default=None, annotation=annotation)


TRUST = (
    "Allow what a run or run file from elsewhere names: Python files, remote code, URIs, pictures "
    "outside its folder. [default: only if you made it on this machine]"
)

_FLAGS = (
    _Flag("adapter", "Model", "NAME",
          "Model family: the name of an adapter, FILE.py:Class, or auto: as the checkpoint "
          "says; demo without one. [default: auto]",
          completion.names_of("adapter")),
    _Flag("model", "Model", "ID", "Checkpoint: id on the Hugging Face hub, or folder.",
          completion.checkpoints),
    _Flag("revision", "Model", "NAME", "Branch, tag or commit of a hub checkpoint."),
    _Flag("device", "Model", "DEVICE",
          "cpu, cuda, cuda:1, mps, or auto: a GPU where there is one. [default: auto]"),
    _Flag("device_map", "Model", "MAP",
          "Spread one model over several GPUs, for example auto."),
    _Flag("dtype", "Model", "TYPE",
          "Weights in float32, bfloat16, float16, or auto: as stored, but float32 for float16 on a "
          "CPU. [default: auto]",
          completion.one_of("auto", "float32", "bfloat16", "float16")),
    _Flag("attention", "Model", "NAME",
          "Attention code: sdpa, eager, flash_attention_2, ... [default: the model's own]",
          completion.one_of("sdpa", "eager", "flash_attention_2")),
    _Flag("quantization", "Model", "BITS",
          "Load the weights quantized by bitsandbytes: 4bit or 8bit.",
          completion.one_of("4bit", "8bit")),
    _Flag("trust_remote_code", "Model", "", "Run Python code that comes with the checkpoint.",
          kind=bool),
    _Flag("tuned", "Model", "TUNED",
          "What was tuned of the model: a folder or run of `vlmlens tune`, or a LoRA of peft "
          "(folder or hub id).",
          completion.paths, flags=("--tuned", "--peft")),
    _Flag("merge_tuned", "Model", "",
          "Add LoRA to the weights; if not, its layers stay beside them. [default: merge-tuned]",
          kind=bool, flags=("--merge-tuned/--no-merge-tuned",)),
    _Flag("data", "Data", "DATA",
          "Folder, file, or DATASET:SOURCE. [default for the adapter demo: demo:scenes]",
          completion.data),
    _Flag("prompt", "Data", "TEXT", "Question to ask about each image; repeatable.",
          kind=list[str]),
    _Flag("limit", "Data", "N", "Use the first N samples only.", kind=int),
    _Flag("on_bad_sample", "Data", "DO",
          "Unreadable images: stop (and list them), or skip. [default: stop]",
          completion.one_of("stop", "skip")),
    _Flag("sites", "What to record", "SITE",
          "Site, or column (SITE/SELECTOR), to keep; repeatable. [default: every block and the "
          "projector]",
          completion.sites, list[str]),
    _Flag("edits", "What to record", "EDIT",
          "Change the model while it runs, for example 'llm.block.3/image = zero'; repeatable.",
          None, list[str], ("--edit",)),
    _Flag("extractor", "What to record", "NAME",
          "What to record per layer: activations or attention. [default: activations]",
          completion.names_of("extractor")),
    _Flag("generate", "What to record", "N",
          "Let the model write up to N tokens, and keep the text. Adds the selectors steps and "
          "answer.", kind=int),
    _Flag("storage", "What to record", "NAME",
          "Store for activations: lmdb, sqlite, zarr, or a URI. [default: lmdb]",
          completion.names_of("storage")),
    _Flag("analysis", "Analyses", "NAME",
          "Analysis to run; repeatable. [default: probe, logit-lens, blind-test]",
          completion.names_of("analysis"), list[str]),
    _Flag("samples", "Analyses", "N",
          "Let analyses read only N of the samples, drawn by task and label, groups whole. "
          "[default: all]", kind=int),
    _Flag("seed", "Analyses", "N", "Seed of everything random. [default: 0]", kind=int),
    _Flag("batch_size", "Speed", "N",
          "Samples per forward pass, or auto: as many as fit a token budget, and half as many "
          "after running out of memory. [default: auto]"),
    _Flag("share_prefix", "Speed", "",
          "Compute the system prompt and the image once per image and reuse the KV cache, where "
          "that is exact. [default: share-prefix]",
          kind=bool, flags=("--share-prefix/--no-share-prefix",)),
    _Flag("autocast", "Speed", "TYPE",
          "Run under torch.autocast in bfloat16 or float16; weights keep --dtype.",
          completion.one_of("bfloat16", "float16")),
    _Flag("compile", "Speed", "",
          "Compile the model's blocks: slow start, fast batches. [default: no-compile]",
          kind=bool, flags=("--compile/--no-compile",)),
    _Flag("engine", "Processes and machines", "NAME",
          "What spreads the work: processes (on this machine), environment (srun, torchrun) or "
          "ray. [default: this process]",
          completion.names_of("engine")),
    _Flag("workers", "Processes and machines", "N",
          "Workers of the engine, each on its own GPU if possible; ray: also MIN:MAX. "
          "[default engine: processes]"),
    _Flag("address", "Processes and machines", "ADDRESS",
          "Ray cluster: auto, HOST:PORT, or none: start Ray here. [default: none]"),
    _Flag("gpus_per_worker", "Processes and machines", "K",
          "GPUs of each worker; 0.5: two workers share one. [default: 1 if there are GPUs]",
          kind=float),
    _Flag("shard", "Processes and machines", "K/N",
          "Part K of N, counted from 0, of processes that you start one by one on a shared disk; "
          "env: as srun or torchrun says. [engine: environment]"),
    _Flag("out", "Output", "FOLDER", "Run folder. [default: runs/ADAPTER-NUMBER]"),
    _Flag("config", "Output", "FILE", "YAML file of settings; flags override it.",
          flags=("--config", "-c")),
    _Flag("trust", "Output", "", TRUST, kind=bool, flags=("--trust",)),
    _Flag("set_", "Output", "KEY=VALUE",
          "Any setting, for example analysis.probe.folds=10; repeatable.",
          completion.settings, list[str], ("--set",)),
)  # fmt: skip

Mode = Annotated[
    bool | None,
    _output(
        "--resume/--fresh",
        help="Continue the run in --out, or start it over. [default: refuse a folder with a run]",
    ),
]
DryRun = Annotated[
    bool, _output("--dry-run", help="Check the run and estimate its size; write nothing.")
]
Trust = Annotated[bool, _output("--trust", help=TRUST)]
Verbose = Annotated[
    bool, _output("--verbose", "-v", help="Print all findings and tables before the summary.")
]


def _taking(names: Collection[str]) -> Callable[..., SpecFlags]:
    """A function for `shares` whose parameters are the flags of those names."""

    def make(**given: Any) -> SpecFlags:
        return _flags(given)

    parameters = [flag.parameter() for flag in _FLAGS if flag.name in names]
    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return make


_ENGINE = ("engine", "workers", "address", "gpus_per_worker")
_EVERY = [flag.name for flag in _FLAGS]

spec_flags = _taking([name for name in _EVERY if name not in (*_ENGINE, "shard")])
"""Flags of a command that composes a whole run."""

run_flags = _taking([name for name in _EVERY if name != "shard"])
"""Flags of a command that composes a whole run and executes it."""

extract_flags = _taking(_EVERY)
"""Flags of a command that several processes can execute together."""

model_flags = _taking(
    ("adapter", "model", "revision", "trust_remote_code", "config", "trust", "set_")
)
"""Flags of a command that needs only the structure of a model."""

look_flags = _taking(
    (
        "adapter", "model", "revision", "device", "device_map", "dtype", "attention",
        "quantization", "trust_remote_code", "tuned", "merge_tuned", "prompt", "edits", "seed",
        "batch_size", "out", "set_",
    )
)  # fmt: skip
"""Flags of a command that asks a model about pictures."""

view_flags = _taking(
    (
        "adapter", "model", "revision", "device", "device_map", "dtype", "attention",
        "quantization", "trust_remote_code", "tuned", "merge_tuned", "trust", "set_",
    )
)  # fmt: skip
"""Flags of a command that shows runs and lets a model be asked."""

_NOT_OF_TUNING = (
    "sites",
    "edits",
    "extractor",
    "generate",
    "storage",
    "analysis",
    "samples",
    "compile",
)

tune_flags = _taking([n for n in _EVERY if n not in (*_NOT_OF_TUNING, *_ENGINE, "shard")])
"""Flags of a command that trains a model on labelled samples."""

analysis_flags = _taking(
    (
        "tuned",
        "merge_tuned",
        "edits",
        "analysis",
        "samples",
        "seed",
        *_ENGINE,
        "config",
        "trust",
        "set_",
    )
)
"""Flags of a command that analyses what is stored."""


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
    _name_engine(values)
    size = str(values.get("batch_size", ""))
    if size.lstrip("-").isdecimal():
        values["batch_size"] = int(size)
    assignments = tuple(values.pop("set_", ()))
    trust = bool(values.pop("trust", False))
    return SpecFlags(values, values.pop("config", None), assignments, trust)


def _name_engine(values: dict[str, Any]) -> None:
    """Turn the flags of engines into its options; some of them name the engine, too."""
    options = {key: values.pop(key) for key in (*_ENGINE[1:], "shard") if key in values}
    if "shard" in options:
        values.setdefault("engine", "environment")
    elif options and not (set(options) == {"workers"} and options["workers"] == "1"):
        values.setdefault("engine", "ray" if "address" in options else "processes")
    elif "engine" not in values:
        return
    values["options"] = {"engine": options}
