"""What `adapter_config.json` of peft says of a LoRA; nothing that it names is imported or opened.

The meaning of each key is that of peft: which modules are matched, and which rank and alpha each
has. What changes a pass in another way than LoRA does is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from vlmlens.errors import CheckpointError

_SECONDS = 0.25
_LONGEST = 200_000
_INITIAL = (True, False, "gaussian", "orthogonal", "eva")
"""First values of A and B that leave the model's own weights as they are."""
_READ = frozenset({
    "peft_type", "r", "lora_alpha", "target_modules", "exclude_modules", "rank_pattern",
    "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "bias", "fan_in_fan_out",
    "modules_to_save", "layers_to_transform", "layers_pattern", "init_lora_weights",
})  # fmt: skip
_OF_NO_MEANING = frozenset({
    "auto_mapping", "base_model_name_or_path", "eva_config", "inference_mode", "lora_dropout",
    "megatron_core", "peft_version", "qalora_group_size", "revision",
    "runtime_config", "task_type",
})  # fmt: skip
"""Keys that say how LoRA was trained or saved, or that belong to others that are refused."""
_PLAIN = regex.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """The settings of a LoRA.

    Args:
        rank: Rows of A, where no pattern says otherwise.
        alpha: The product `B A` is scaled by alpha / rank.
        targets: The modules that have it: an expression over whole paths, or ends of paths.
        excluded: Modules that have none, likewise.
        rank_pattern: Ranks by expressions over ends of paths.
        alpha_pattern: Alphas likewise.
        rslora: Whether the scale is alpha / sqrt(rank) (https://arxiv.org/abs/2312.03732).
        dora: Whether it is DoRA (https://arxiv.org/abs/2402.09353).
        bias: "none", "all" or "lora_only": which biases were trained.
        lora_bias: Whether B has a bias.
        fan_in_fan_out: Whether weights are stored `[in, out]`.
        saved: Ends of paths of modules that were trained as a whole.
        layers: The numbers of layers that have LoRA; None: all.
        layers_pattern: The names after which the number of a layer stands.
        base: The model that was tuned, as peft recorded it.
    """

    rank: int
    alpha: float
    targets: str | tuple[str, ...]
    excluded: str | tuple[str, ...]
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    dora: bool
    bias: str
    lora_bias: bool
    fan_in_fan_out: bool
    saved: tuple[str, ...]
    layers: tuple[int, ...] | None
    layers_pattern: tuple[str, ...]
    base: str

    @classmethod
    def of(cls, said: Mapping[str, Any], folder: str) -> LoraSettings:
        """The settings in the content of `adapter_config.json`.

        Args:
            said: The content.
            folder: Named in errors.

        Raises:
            CheckpointError: It is no LoRA, or one of a kind that is not applied here.
        """
        _check_kind(said, folder)
        try:
            return cls(
                rank=_rank(said["r"]),
                alpha=float(said["lora_alpha"]),
                targets=_names(said.get("target_modules")),
                excluded=_names(said.get("exclude_modules")),
                rank_pattern={k: _rank(v) for k, v in (said.get("rank_pattern") or {}).items()},
                alpha_pattern={k: float(v) for k, v in (said.get("alpha_pattern") or {}).items()},
                rslora=bool(said.get("use_rslora")),
                dora=bool(said.get("use_dora")),
                bias=str(said.get("bias") or "none"),
                lora_bias=bool(said.get("lora_bias")),
                fan_in_fan_out=bool(said.get("fan_in_fan_out")),
                saved=_plain(said.get("modules_to_save")),
                layers=_numbers(said.get("layers_to_transform")),
                layers_pattern=_listed(said.get("layers_pattern")),
                base=str(said.get("base_model_name_or_path") or ""),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"The adapter_config.json in {folder!r} is not one of LoRA: "
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}.",
                subject=folder,
                hint="peft writes it with `save_pretrained`; save the LoRA again.",
            ) from error

    def targeted(self, path: str) -> bool:
        """Whether a module of that path has LoRA, as peft matches it."""
        if _matches(self.excluded, path) or any(_within(path, each) for each in self.saved):
            return False
        if not _matches(self.targets, path):
            return False
        whole = isinstance(self.targets, str) or path in self.targets
        return whole or self.layers is None or self._layer_of(path) in self.layers

    def rank_of(self, path: str) -> int:
        """The rank at a module."""
        return self.rank_pattern.get(_pattern_for(self.rank_pattern, path), self.rank)

    def alpha_of(self, path: str) -> float:
        """The alpha at a module."""
        return self.alpha_pattern.get(_pattern_for(self.alpha_pattern, path), self.alpha)

    def _layer_of(self, path: str) -> int | None:
        """The first number in a path, or the one after a name of `layers_pattern`."""
        heads = [rf"(?:^|.*?\.){each}" for each in self.layers_pattern] or [r".*?\.[^.]*"]
        found = (_match(rf"{head}\.(?P<number>\d+)\.", path) for head in heads)
        return next((int(match["number"]) for match in found if match), None)

    def unused_patterns(self, paths: Sequence[str]) -> list[str]:
        """Patterns of ranks and alphas that match none of the modules."""
        used = {
            _pattern_for(known, path)
            for known in (self.rank_pattern, self.alpha_pattern)
            for path in paths
        }
        return sorted({*self.rank_pattern, *self.alpha_pattern} - used)


def _check_kind(said: Mapping[str, Any], folder: str) -> None:
    kind = str(said.get("peft_type") or "nothing")
    if kind.rpartition(".")[2].upper() != "LORA":
        raise CheckpointError(
            f"The adapter in {folder!r} is of the kind {kind}; only LoRA is applied here.",
            subject=folder,
            hint="If peft can merge it, merge it there, and name the merged model with --model.",
        )
    other = sorted(k for k in said.keys() - _READ - _OF_NO_MEANING if _set(said[k]))
    if said.get("init_lora_weights", True) not in _INITIAL:
        other.append(f"init_lora_weights: {said['init_lora_weights']}")
    if said.get("bias", "none") not in ("none", "all", "lora_only"):
        other.append(f"bias: {said['bias']}")
    if other:
        raise CheckpointError(
            f"The LoRA in {folder!r} uses {', '.join(map(str, other))}, which is not applied here.",
            subject=folder,
            hint="Merge it with peft, and name the merged model with --model. A LoRA that began "
            "from changed weights (PiSSA, OLoRA, CorDA, LoftQ) can be saved as a plain one: see "
            "path_initial_model_for_weight_conversion of peft's save_pretrained.",
        )


def _set(value: Any) -> bool:
    """Whether a key is set to something: an empty table of settings is not."""
    if isinstance(value, Mapping):
        return any(map(_set, value.values()))
    return bool(value)


def _rank(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"the rank {value!r} is no number above 0")
    return value


def _names(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise ValueError("an expression of modules is too long")
        return value
    return _listed(value)


def _listed(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    found = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(each, str) for each in found):
        raise ValueError(f"{value!r} is no list of names")
    return found


def _plain(value: Any) -> tuple[str, ...]:
    found = _listed(value)
    odd = next((each for each in found if not _PLAIN.fullmatch(each)), None)
    if odd is not None:
        raise ValueError(f"{odd!r} is no name of a module")
    return found


def _numbers(value: Any) -> tuple[int, ...] | None:
    if value is None or value == []:
        return None
    return tuple(int(each) for each in (value if isinstance(value, list) else [value]))


def _within(path: str, name: str) -> bool:
    """Whether a path is, or lies in, a module of that name."""
    return f".{name}." in f".{path}."


def _matches(names: str | tuple[str, ...], path: str) -> bool:
    if isinstance(names, str):
        return bool(names) and _match(f"(?:{names})$", path) is not None
    return any(path == name or path.endswith(f".{name}") for name in names)


def _pattern_for(patterns: Mapping[str, Any], path: str) -> str:
    return next((each for each in patterns if _match(rf"(.*\.)?({each})$", path)), "")


def _match(pattern: str, path: str) -> regex.Match[str] | None:
    """A match at the beginning of a path; an expression of others may not take forever."""
    try:
        return regex.match(pattern, path, timeout=_SECONDS)
    except TimeoutError as error:
        raise CheckpointError(
            f"The expression {pattern[:80]!r} of an adapter takes too long to match {path!r}.",
            subject=pattern[:80],
            hint="Write target_modules in its adapter_config.json as a list of names.",
        ) from error
    except regex.error as error:
        raise CheckpointError(
            f"The adapter's expression {pattern[:80]!r} is malformed: {error}.",
            subject=pattern[:80],
            hint="Write target_modules in its adapter_config.json as a list of names.",
        ) from error
