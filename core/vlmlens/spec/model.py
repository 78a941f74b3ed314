"""RunSpec: everything that determines a run, as data; read from YAML, flags and `--set`.

Over 400 lines: each field of a run with its meaning, and what must hold between fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vlmlens._files import expanded
from vlmlens.errors import SpecError, did_you_mean
from vlmlens.images import HIDDEN_COLORS, ImageRules
from vlmlens.spec.credentials import refuse_credentials
from vlmlens.spec.nesting import check_nesting, too_deep
from vlmlens.spec.paths import path_of
from vlmlens.spec.second_names import with_first_names
from vlmlens.spec.yaml_files import NO_YAML, parsed_file

T = TypeVar("T", bound=BaseModel)

DEFAULT_ANALYSES = ("probe", "logit-lens", "blind-test")
"""The analyses of a run whose user names none."""

SAMPLES_AT_ONCE = 16
"""Samples per pass of analyses that run the model, where `batch_size` is "auto"."""

MAX_PIXELS = 178_956_970
"""Where Pillow refuses an image as a decompression bomb: twice its `MAX_IMAGE_PIXELS`."""

AUTO_ADAPTER = "auto"
"""The adapter of a run whose user names none: chosen by the checkpoint, the demo without one."""

DEMO_DATA = "demo:scenes"
"""The data of a run of the demo model whose user names none."""


class PluginOptions(BaseModel):
    """Options of the chosen plugins, by kind; checked against each plugin's own model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: dict[str, Any] = Field(default_factory=dict)
    dataset: dict[str, Any] = Field(default_factory=dict)
    extractor: dict[str, Any] = Field(default_factory=dict)
    storage: dict[str, Any] = Field(default_factory=dict)
    engine: dict[str, Any] = Field(default_factory=dict)
    plugins: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Options of lifecycle plugins, by name."
    )


class RunSpec(BaseModel):
    """A run. Field names are those of the command line's flags."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: str = Field(
        AUTO_ADAPTER,
        description="Model family: the name of an adapter, FILE.py:Class, or auto: by the "
        "checkpoint's config.json; the demo model without a checkpoint.",
    )
    model: str | None = Field(
        None, description="Checkpoint: id on the Hugging Face hub, or folder."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub checkpoint.")
    device: str = Field(
        "auto", description="cpu, cuda, cuda:1, mps, or auto: a GPU where there is one."
    )
    device_map: str | None = Field(
        None, description="Spread one model over several GPUs, for example auto."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Type of the weights; auto: as stored, but float32 for float16 on a CPU.",
    )
    attention: str | None = Field(
        None, description="Attention code: sdpa, eager, flash_attention_2, ..."
    )
    autocast: Literal["bfloat16", "float16"] | None = Field(
        None, description="Run under torch.autocast in this type; weights keep dtype."
    )
    quantization: Literal["4bit", "8bit"] | None = Field(
        None, description="Load the weights quantized by bitsandbytes: 4bit or 8bit."
    )
    compile: bool = Field(
        False, description="Compile the model's blocks: slow start, fast batches."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the checkpoint."
    )
    tuned: str | None = Field(
        None,
        description="What was tuned of the model: a folder or run of vlmlens tune, or a LoRA of "
        "peft (folder or hub id). Second name: peft.",
    )
    merge_tuned: bool = Field(
        True, description="Add LoRA to the weights; if not, its layers stay beside them."
    )
    data: str | None = Field(None, description="Folder, file, or DATASET:SOURCE.")
    prompt: list[str] = Field(
        default_factory=list, description="Questions to ask about each image."
    )
    sites: list[str] = Field(
        default_factory=list,
        description="Sites or columns (SITE/SELECTOR); empty: every block and the projector.",
    )
    edits: list[str] = Field(
        default_factory=list,
        description="What to change in the model while it runs: SITE/SELECTOR = INTERVENTION, for "
        "example llm.block.3/image = zero.",
    )
    extractor: str = Field(
        "activations", description="What to record per layer: activations or attention."
    )
    engine: str | None = Field(
        None,
        description="What spreads the work over processes: processes, environment (srun, torchrun) "
        "or ray; none: this process does it.",
    )
    storage: str = Field("lmdb", description="Store for activations: lmdb, sqlite, zarr, or a URI.")
    analysis: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Analyses by name, each with its options."
    )
    samples: int | None = Field(
        None,
        ge=1,
        description="Analyses read only N of the samples, drawn by task and label, whole groups "
        "together.",
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Samples per forward pass; auto: as many as fit a token budget, and half as "
        "many after running out of memory.",
    )
    share_prefix: bool = Field(
        True,
        description="Compute the system prompt and the image once per image and reuse the KV "
        "cache, where that is exact.",
    )
    generate: int | None = Field(
        None, ge=1, description="Let the model write up to N tokens, and keep the text."
    )
    limit: int | None = Field(None, ge=1, description="Use the first N samples only.")
    on_bad_sample: Literal["stop", "skip"] = Field(
        "stop", description="Unreadable images: stop (and list them), or skip."
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        description="An image with more pixels is refused; the default is Pillow's limit.",
    )
    background: str = Field(
        "white",
        description="Color behind transparent parts of images: a name, #rrggbb, or none (ignore "
        "transparency).",
    )
    image_bits: int | None = Field(
        None,
        ge=9,
        le=16,
        description="Used bits of 16-bit images; default: 16, and dark images are an error.",
    )
    frames: int | None = Field(
        None, ge=1, description="Frames to take of each video; default: the family's, mostly 8."
    )
    fps: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Frames to take per second of video, instead of a number of frames.",
    )
    text_only: bool = Field(
        False, description="Accept samples without an image among samples with one."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of everything random.")
    out: str | None = Field(None, description="Run folder; default: runs/ADAPTER-NUMBER.")
    options: PluginOptions = Field(
        default_factory=PluginOptions, description="Options of the chosen plugins."
    )

    @field_validator(
        "batch_size",
        "generate",
        "limit",
        "max_pixels",
        "frames",
        "fps",
        "seed",
        "samples",
        mode="before",
    )
    @classmethod
    def _numbers_are_no_switches(cls, value: Any) -> Any:
        return refuse_switch(value)

    @field_validator("analysis", mode="before")
    @classmethod
    def _names_are_enough(cls, value: Any) -> Any:
        """Accept a name, a list of names (each with options or not), and null for no options."""
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, list | tuple):
            return dict(pair for item in value for pair in _named_options(item))
        if isinstance(value, Mapping):
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @field_validator("prompt", "sites", "edits", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _second_names(cls, values: Any) -> Any:
        return with_first_names(values)

    @model_validator(mode="after")
    def _merges_something(self) -> Self:
        if not self.merge_tuned and self.tuned is None:
            raise ValueError("merge_tuned is about what tuned names, which is not given")
        return self

    @field_validator("model", "tuned", "data", "out", mode="after")
    @classmethod
    def _path(cls, value: str | None) -> str | None:
        """Expand `~`, which a shell leaves as it is in a file, in quotes and after `=`."""
        return value if value is None else path_of(value)

    @field_validator("background")
    @classmethod
    def _is_a_color(cls, value: str) -> str:
        from PIL import ImageColor

        if value != HIDDEN_COLORS:
            ImageColor.getrgb(value)
        return value

    @property
    def image_rules(self) -> ImageRules:
        """How images become 8-bit RGB where their files leave that open."""
        return ImageRules(self.background, self.image_bits)

    @property
    def samples_at_once(self) -> int:
        """Samples per pass for what runs the model beside extraction."""
        return SAMPLES_AT_ONCE if self.batch_size == "auto" else self.batch_size

    def to_yaml(self, *, changed: bool = False) -> str:
        """The spec as YAML that `read_yaml` reads back.

        Args:
            changed: Only what differs from the defaults.
        """
        values = self.model_dump(mode="json", exclude_defaults=changed)
        return yaml.safe_dump(values, sort_keys=False)


def refuse_switch(value: Any) -> Any:
    """The value of a number. True and false are none, although Python takes them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


def make_spec(values: Mapping[str, Any]) -> RunSpec:
    """A checked spec.

    Raises:
        SpecError: Unknown keys (with the nearest known ones) or values of the wrong kind, or a
            credential, which a run would store.
    """
    check_nesting(values, "The run spec")
    refuse_credentials(values)
    return validated(RunSpec, values, where="The run spec")


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
        raise _spec_error(model, values, error.errors(include_url=False)[0], where) from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The values of a run file.

    Raises:
        SpecError: It does not exist, is no YAML, or holds no mapping.
    """
    try:
        data = parsed_file(expanded(path))
    except OSError as error:
        raise SpecError(
            f"The run file {path} cannot be read: {error.strerror}.", subject=str(path)
        ) from error
    except RecursionError as error:
        raise too_deep(f"The run file {path}") from error
    except NO_YAML as error:
        complaint = " ".join(str(error).split())
        raise SpecError(
            f"The run file {path} is no YAML: {complaint}.", subject=str(path)
        ) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SpecError(
            f"The run file {path} holds a {type(data).__name__}, not a mapping.", subject=str(path)
        )
    check_nesting(data, f"The run file {path}")
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
    parts = [part.strip() for part in path.split(".")]
    if not equals or not all(parts):
        raise SpecError(
            f"--set {assignment!r} is no assignment.",
            subject=assignment,
            hint="Write --set analysis.probe.folds=10.",
        )
    target = values
    for parent in parts[:-1]:
        child = target.get(parent)
        if target is values and parent == "analysis" and isinstance(child, list | str):
            child = RunSpec._names_are_enough(child)
        if child is None:
            child = {}
        if not isinstance(child, dict):
            raise SpecError(
                f"--set {assignment!r}: {parent!r} holds {child!r}, which has no parts.",
                subject=path,
            )
        target[parent] = child
        target = child
    target[parts[-1]] = _value(_shown(path, assignment), text)


def _shown(path: str, assignment: str) -> str:
    """An assignment for messages: what is given to a storage may be a credential."""
    return f"{path}=..." if path.strip().startswith("options.storage") else assignment


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` on top, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def _value(assignment: str, text: str) -> Any:
    """The YAML value of an assignment; a prompt that ends in a colon stays text."""
    try:
        value = yaml.safe_load(text)
    except RecursionError as error:
        raise too_deep(f"--set {assignment[:40]!r}...") from error
    except NO_YAML as error:
        raise SpecError(
            f"--set {assignment!r}: the value is no YAML.",
            subject=assignment,
            hint="Put text with special characters in quotes inside the quotes of the shell.",
        ) from (None if assignment.endswith("=...") else error)
    check_nesting(value, f"--set {assignment[:40]!r}...")
    if isinstance(value, dict) and not text.lstrip().startswith("{"):
        return text.strip()
    return value


def _named_options(item: Any) -> list[tuple[str, Any]]:
    if isinstance(item, str):
        return [(item, {})]
    if isinstance(item, Mapping):
        return [(name, {} if options is None else options) for name, options in item.items()]
    raise ValueError(f"{item!r} is no name of an analysis")


def _spec_error(
    model: type[BaseModel], values: Mapping[str, Any], problem: Any, where: str
) -> SpecError:
    """The sentence for one complaint of pydantic."""
    place = _place(values, problem)
    key = ".".join(str(part) for part in place)
    known = _fields_at(model, place[:-1])
    if problem["type"] == "extra_forbidden":
        near = did_you_mean(str(place[-1]), known)
        hint = near or f"Known: {', '.join(known) or 'none'}."
        return SpecError(f"{where} has no {key!r}.", subject=key, hint=hint)
    if problem["type"] == "missing":
        return SpecError(f"{where} lacks {key!r}, which has no default.", subject=key)
    complaint = problem["msg"].removeprefix("Value error, ")
    complaint = complaint[:1].lower() + complaint[1:]
    given = f"{key} = {problem['input']!r}: " if key else ""
    return SpecError(f"{where}: {given}{complaint}.", subject=key)


def _place(values: Any, problem: Any) -> list[str | int]:
    """Where the mistake is, without the names of union members that pydantic appends."""
    place: list[str | int] = []
    for part in problem["loc"]:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return [*place, part] if problem["type"] == "missing" else place
        place.append(part)
    return place


def _fields_at(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Names of the fields of the model at a place inside `model`."""
    for part in place:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
