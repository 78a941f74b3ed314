"""Hand-made files of every tool, with the codes that the tool's own formulas give, in numpy."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file

Floats = npt.NDArray[np.float64]
WIDTH, FEATURES, K = 12, 36, 4
_rng = np.random.default_rng(5)


def _numbers(*shape: int, scale: float = 1.0) -> Floats:
    return (_rng.standard_normal(shape) * scale).astype(np.float32).astype(np.float64)


E, D = _numbers(WIDTH, FEATURES, scale=0.4), _numbers(FEATURES, WIDTH)
B, C, SKIP = _numbers(FEATURES, scale=0.3), _numbers(WIDTH), _numbers(WIDTH, WIDTH, scale=0.3)
GATE, MAG, R = _numbers(FEATURES, scale=0.3), _numbers(FEATURES), _numbers(FEATURES, scale=0.3)
THETA = np.abs(_numbers(FEATURES))
NORMS = np.linalg.norm(D, axis=1)
ROWS = _numbers(40, WIDTH) * 2 + 1


def relu(h: Floats) -> Floats:
    return np.maximum(h, 0)


def h(x: Floats, subtract: bool = True) -> Floats:
    return (x - C if subtract else x) @ E + B


def largest(h: Floats, k: int = K, by: Floats | None = None) -> Floats:
    places = np.argsort(-(h if by is None else by), axis=1)[:, :k]
    kept = np.zeros_like(h)
    np.put_along_axis(kept, places, np.take_along_axis(h, places, 1), 1)
    return kept


def above(h: Floats, threshold: Floats | float) -> Floats:
    return relu(h) * (h > threshold)


def gated(x: Floats) -> Floats:
    g = (x - C) @ E
    return relu(g * np.exp(R) + MAG) * (g + GATE > 0)


def layer_norm(x: Floats) -> tuple[Floats, Floats, Floats]:
    mean = x.mean(1, keepdims=True)
    deviation = x.std(1, keepdims=True, ddof=1)
    return (x - mean) / (deviation + 1e-5), mean, deviation


def decoded(z: Floats) -> Floats:
    return z @ D + C


@dataclass(frozen=True)
class Case:
    """A file: how it is written, what its codes and rows are, and what a mistake would give."""

    name: str
    write: Callable[[Path], Path]
    codes: Callable[[Floats], Floats]
    mistake: Callable[[Floats], Floats]
    rows: Callable[[Floats], Floats] | None = None


def array(values: Floats | float, dtype: Any = np.float32) -> npt.NDArray[Any]:
    return np.ascontiguousarray(np.asarray(values, dtype))


def tensors(values: dict[str, Any]) -> dict[str, Any]:
    """A state dict: arrays of floats become float32 tensors, the rest stays."""
    return {
        name: torch.from_numpy(array(each).copy()) if isinstance(each, np.ndarray) else each
        for name, each in values.items()
    }


def as_safetensors(name: str, config: dict[str, Any], values: dict[str, Any], **more: Any) -> Any:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: array(each) for key, each in values.items()}, folder / name)
        (folder / "cfg.json").write_text(json.dumps(config))
        for other, text in more.items():
            (folder / f"{other}.json").write_text(json.dumps(text))
        return folder

    return write


def as_torch(name: str, config: dict[str, Any] | None, values: dict[str, Any]) -> Any:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(tensors(values), folder / name)
        if config is None:
            return folder / name
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


def as_saev(header: dict[str, Any], values: dict[str, Any]) -> Any:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        torch.save(tensors(values), file)
        (folder / "sae.pt").write_bytes(json.dumps(header).encode() + b"\n" + file.getvalue())
        return folder / "sae.pt"

    return write


PLAIN: dict[str, Any] = {"W_enc": E, "b_enc": B, "W_dec": D, "b_dec": C}
INNER: dict[str, Any] = {"b_gate": GATE, "b_mag": MAG, "r_mag": R}
LINEAR: dict[str, Any] = {"encoder.weight": E.T, "encoder.bias": B, "decoder.weight": D.T}


def lens_config(architecture: str, **more: Any) -> dict[str, Any]:
    found = {
        "architecture": architecture,
        "d_in": WIDTH,
        "d_sae": FEATURES,
        "dtype": "float32",
        "metadata": {"sae_lens_version": "6.1.0", "model_name": "m", "hook_name": "blocks.3"},
    }
    return found | more


def lens(architecture: str, values: dict[str, Any], scaler: Any = None, **more: Any) -> Any:
    extra = {} if scaler is None else {"activation_scaler": {"scaling_factor": scaler}}
    config = lens_config(architecture, **more)
    return as_safetensors("sae_weights.safetensors", config, values, **extra)


def sparsify(values: dict[str, Any] | None = None, **more: Any) -> Any:
    own: dict[str, Any] = {"encoder.weight": E.T, "encoder.bias": B, "W_dec": D, "b_dec": C}
    config = {"d_in": WIDTH, "k": K, "num_latents": FEATURES, "normalize_decoder": True, **more}
    return as_safetensors("sae.safetensors", config, own | (values or {}))


def dictionary(kind: str, values: dict[str, Any], **more: Any) -> Any:
    trainer = {"dict_class": kind, "activation_dim": WIDTH, "dict_size": FEATURES, **more}
    trainer |= {"lm_name": "m", "layer": 3, "submodule_name": "resid_post"}
    return as_torch("ae.pt", {"trainer": trainer, "buffer": None}, values)


def k_and(threshold: float) -> dict[str, Any]:
    return {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(threshold)}


def prisma(values: dict[str, Any], **more: Any) -> Any:
    config = {"d_in": WIDTH, "hook_point_layer": 3, "layer_subtype": "hook_resid_post"}
    config |= {"model_name": "vit", "architecture": "standard", "activation_fn_kwargs": {}}
    config |= {"device": {"__type__": "torch.device", "value": "cuda"}, **more}
    return as_torch("weights.pt", config, values)


def saev(schema: int, kind: str, values: dict[str, Any] | None = None, **params: Any) -> Any:
    config = {"d_model": WIDTH, "d_sae": FEATURES, "activation": {"cls": kind, "params": params}}
    header = {"schema": schema, "cfg": config, "commit": "c", "lib": "1"}
    return as_saev(header, PLAIN | (values or {}))


def openai(kind: str, values: dict[str, Any] | None = None) -> Any:
    own: dict[str, Any] = {"pre_bias": C, "latent_bias": B, "encoder.weight": E.T}
    state = {"k": K, "postact_fn": "ReLU"} if kind == "TopK" else {}
    own |= {"activation": kind, "activation_state_dict": state}
    statistics = {"stats_last_nonzero": torch.zeros(FEATURES, dtype=torch.long)}
    return as_torch("8.pt", None, own | statistics | (values or {"decoder.weight": D.T}))


def on_normal(code: Callable[[Floats], Floats]) -> tuple[Any, Any]:
    """Codes and rows of an SAE whose rows are layer-normalised."""

    def rows(x: Floats) -> Floats:
        normal, mean, deviation = layer_norm(x)
        return decoded(code(normal)) * deviation + mean

    return (lambda x: code(layer_norm(x)[0])), rows
