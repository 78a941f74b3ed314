"""RunSpec: everything that determines a run, as data; read from YAML, flags and `--set`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vlmlens.errors import SpecError, did_you_mean

T = TypeVar("T", bound=BaseModel)

DEFAULT_ANALYSES = ("probe", "logit-lens", "blind-test")
"""The analyses of a run whose user names none."""

DEMO_DATA = "demo:scenes"
"""The data of a run of the demo model whose user names none."""


class PluginOptions(BaseModel):
    """Options of the chosen plugins, by kind; checked against each plugin's own model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: dict[str, Any] = Field(default_factory=dict)
    dataset: dict[str, Any] = Field(default_factory=dict)
    extractor: dict[str, Any] = Field(default_factory=dict)
    storage: dict[str, Any] = Field(default_factory=dict)


class RunSpec(BaseModel):
    """A run. Field names are those of the command line's flags."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: str = Field("demo", description="Model family, or FILE.py:Class.")
    model: str | None = Field(None, description="Checkpoint: hub id or folder.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub checkpoint.")
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps or auto.")
    device_map: str | None = Field(None, description="Spread the model, for example 'auto'.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Compute type; auto is the checkpoint's, float32 for float16 on CPU."
    )
    attention: str | None = Field(None, description="sdpa, eager, flash_attention_2, ...")
    trust_remote_code: bool = Field(False, description="Run code that comes with the checkpoint.")
    data: str | None = Field(None, description="Path, or DATASET:SOURCE.")
    prompt: list[str] = Field(default_factory=list, description="Prompts to ask of each image.")
    sites: list[str] = Field(
        default_factory=list, description="Sites or columns (SITE/SELECTOR); empty: the default."
    )
    extractor: str = Field("activations", description="How columns are made.")
    storage: str = Field("lmdb", description="Where columns live.")
    analysis: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Analyses by name, each with its options."
    )
    batch_size: int = Field(16, ge=1, description="Samples per forward pass.")
    limit: int | None = Field(None, ge=1, description="Use the first N samples only.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    out: str | None = Field(None, description="Run folder; default: runs/ADAPTER-NUMBER.")
    options: PluginOptions = Field(
        default_factory=PluginOptions, description="Options of the chosen plugins."
    )

    @field_validator("analysis", mode="before")
    @classmethod
    def _names_are_enough(cls, value: Any) -> Any:
        """Accept a list of names, and a null for no options."""
        if isinstance(value, Sequence) and not isinstance(value, str):
            return {name: {} for name in value}
        if isinstance(value, Mapping):
            return {name: options or {} for name, options in value.items()}
        return value

    @field_validator("prompt", "sites", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def to_yaml(self) -> str:
        """The spec as YAML that `read_spec` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def make_spec(values: Mapping[str, Any]) -> RunSpec:
    """A checked spec.

    Raises:
        SpecError: Unknown keys (with the nearest known ones) or values of the wrong kind.
    """
    return validated(RunSpec, values, where="the run spec")


def validated(model: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """`model` made from values, with pydantic's complaint turned into one sentence.

    Args:
        model: A pydantic model.
        values: What the user gave.
        where: What the values belong to, for the message.

    Raises:
        SpecError: They do not fit.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = list(model.model_fields)
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(key, known) or f"Known: {', '.join(known) or 'none'}."
            raise SpecError(f"{where} has no {key!r}.", subject=key, hint=hint) from error
        raise SpecError(
            f"{where}: {key} = {first['input']!r}: {first['msg'].lower()}.", subject=key
        ) from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The values of a run file.

    Raises:
        SpecError: It does not exist, is no YAML, or holds no mapping.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            f"The run file {path} cannot be read: {error.strerror}.", subject=str(path)
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"The run file {path} is no YAML: {error}", subject=str(path)) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SpecError(
            f"The run file {path} holds a {type(data).__name__}, not a mapping.", subject=str(path)
        )
    return data


def assign(values: dict[str, Any], assignment: str) -> None:
    """Apply one `--set a.b=c` in place; the value is read as YAML.

    Raises:
        SpecError: There is no `=`, or the path runs through something that is no mapping.

    >>> values = {"analysis": {"probe": None}}
    >>> assign(values, "analysis.probe.folds=10")
    >>> values
    {'analysis': {'probe': {'folds': 10}}}
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise SpecError(
            f"--set {assignment!r} is no assignment.",
            subject=assignment,
            hint="Write --set analysis.probe.folds=10.",
        )
    *parents, last = path.strip().split(".")
    target = values
    for parent in parents:
        child = target.get(parent)
        if isinstance(child, list) and all(isinstance(item, str) for item in child):
            child = {item: {} for item in child}
        if child is None:
            child = {}
        if not isinstance(child, dict):
            raise SpecError(f"--set {assignment!r}: {parent!r} holds {child!r}.", subject=path)
        target[parent] = child
        target = child
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"--set {assignment!r}: the value is no YAML.", subject=path) from error


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` on top, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result
