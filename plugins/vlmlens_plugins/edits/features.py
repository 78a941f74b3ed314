"""SAEs as edits use them: opened once per process, checked before weights are loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlmlens._files import expanded
from vlmlens.abc import EditedRows, EditPlace
from vlmlens.errors import DataNotFound, EditError
from vlmlens.tokens import Selector
from vlmlens_plugins.sae import Gated, JumpRelu, Sae, TopK, check_belongs, open_kept
from vlmlens_plugins.sae.about import LARGEST

_SEVERAL = re.compile(r"\s*\[?\s*([0-9]+(?:\s*[+,]\s*[0-9]+)*)\s*\]?\s*")


def parsed_features(value: Any) -> Any:
    """Features as they are written: `12`, `12+40` or `[12, 40]`; each once.

    >>> parsed_features("12+40"), parsed_features(3), parsed_features([1, 2, 1])
    ((12, 40), (3,), (1, 2))
    """
    if isinstance(value, str):
        match = _SEVERAL.fullmatch(value)
        if match is None:
            raise ValueError("expected a number of 0 or more, or several: 12+40")
        value = [int(one) for one in re.split(r"[+,]", match[1])]
    several = [value] if isinstance(value, int) and not isinstance(value, bool) else value
    return tuple(dict.fromkeys(several)) if isinstance(several, list | tuple) else several


def given_sae(file: str | None, name: str) -> Sae:
    """The SAE that an edit names.

    Args:
        file: The option.
        name: The name of the intervention.

    Raises:
        EditError: None is named, or it writes to another place than it reads.
        DataNotFound: There is no such file or folder.
        DataError: It cannot be read as an SAE.
    """
    if not file:
        raise EditError(
            f"{name} was given no SAE.", subject=name, hint=f"Name a folder or file: {name}(FILE)."
        )
    if not _there(expanded(file)):
        raise DataNotFound(
            f"There is no SAE {file!r}.",
            subject=file,
            hint='A path with a comma or parentheses stands in double quotes: "a, b/sae".',
        )
    sae = open_kept(file)
    elsewhere = sae.about.target or ("+" in sae.about.column and sae.about.column)
    if elsewhere or sae.inputs != sae.outputs:
        raise EditError(
            f"{file!r} reads rows of {sae.inputs} numbers at {sae.about.column or 'one site'!r} "
            f"and writes {sae.outputs} numbers"
            + (f" at {sae.about.target!r}." if sae.about.target else "."),
            subject=file,
            hint=f"{name} needs an SAE of a single column: no transcoder and no crosscoder.",
        )
    return sae


def check_features(sae: Sae, features: Sequence[int], file: str, name: str) -> None:
    """Raise an `EditError` if no feature is named, or one that the SAE does not have."""
    if not features:
        raise EditError(
            f"{name} was given no feature.", subject=name, hint=f"Name one: {name}({file}, 12)."
        )
    if max(features) >= sae.features:
        raise EditError(
            f"{file!r} has no feature {max(features)}.",
            subject=file,
            hint=f"Its features are 0 to {sae.features - 1}.",
        )


def check_rows(sae: Sae, file: str, rows: torch.Tensor, about: EditedRows) -> None:
    """Raise an `EditError` if rows have another width than the SAE reads."""
    if rows.shape[1] != sae.inputs:
        raise EditError(
            f"The SAE in {file!r} reads rows of {sae.inputs} numbers, those at "
            f"{about.site.name!r} have {rows.shape[1]}.",
            subject=file,
            hint=f"It belongs to {sae.about.column or 'another site'}.",
        )


def refuse_elsewhere(sae: Sae, file: str, place: EditPlace, *, anyway: bool) -> None:
    """Raise an error if an SAE belongs to another model, site or rows than those of an edit."""
    check_belongs(
        sae,
        model={} if anyway else place.describe(),
        site=place.site.name,
        selector=None if _within(place.selector, sae.about.rows) else str(place.selector),
        width=None,
        anyway=anyway,
    )


def _within(rows: Selector, trained: str) -> bool:
    """Whether the rows are some of those that an SAE was trained on."""
    if not trained:
        return True
    whole = Selector.parse(trained)
    return whole == Selector() or (whole == Selector(whole.kind) and rows.kind == whole.kind)


def codes_of(sae: Sae, features: Sequence[int], rows: torch.Tensor) -> torch.Tensor:
    """float32 `[k, chosen]`: the codes of some features.

    Where features do not compete, the others are not computed.
    """
    if isinstance(sae.activation, TopK):
        return sae.encode(rows)[:, list(features)]
    return _narrowed(sae, tuple(features)).encode(rows)


@lru_cache(maxsize=64)
def _narrowed(sae: Sae, features: tuple[int, ...]) -> Sae:
    of, chosen = sae.activation, list(features)
    if isinstance(of, JumpRelu):
        of = JumpRelu(of.threshold[chosen])
    if isinstance(of, Gated):
        of = Gated(of.b_gate[chosen], of.b_mag[chosen], of.r_mag[chosen])
    return replace(
        sae, W_enc=sae.W_enc[:, chosen], b_enc=sae.b_enc[chosen], W_dec=sae.W_dec[chosen],
        activation=of,
    )  # fmt: skip


def directions(sae: Sae, features: Sequence[int], turned: int | None) -> torch.Tensor:
    """float32 `[chosen, width]`: what features write per unit of their codes.

    Args:
        sae: The SAE.
        features: Their numbers.
        turned: A seed: random directions as long as theirs; None: their own.
    """
    own = sae.W_dec[list(features)]
    if turned is None:
        return own
    drawn = [
        np.random.default_rng([turned, each]).standard_normal(sae.outputs) for each in features
    ]
    random = torch.from_numpy(np.stack(drawn)).to(own)
    made: torch.Tensor = random * (own.norm(dim=1, keepdim=True) / random.norm(dim=1, keepdim=True))
    return made


def largest(sae: Sae, file: str) -> torch.Tensor:
    """float32 `[features]`: the largest code of each feature in training.

    Raises:
        EditError: The file does not have them.
    """
    found = sae.about.trained.get(LARGEST)
    if not isinstance(found, Sequence) or len(found) != sae.features:
        raise EditError(
            f"{file!r} does not say how large the codes of its features were in training.",
            subject="unit",
            hint="Give the number as it is, with unit=code.",
        )
    return torch.tensor(found, dtype=torch.float32)


def in_float32(device: torch.device) -> AbstractContextManager[Any]:
    """Products are computed in float32 inside, also in a pass under autocast."""
    return torch.autocast(device.type, enabled=False)


@lru_cache(maxsize=8)
def on_device(sae: Sae, device: torch.device) -> Sae:
    """The SAE on another device; kept for the next pass."""
    return sae.to(device)


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return False
