"""What is used of peft, imported where it is needed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from vlmlens.errors import MissingDependency

_NEEDED = ("peft", "accelerate")


def load_peft() -> Any:
    """The functions and classes of peft for LoRA, under their own names.

    Raises:
        MissingDependency: peft, or accelerate, which it needs, is not installed.
    """
    for package in _NEEDED:
        if find_spec(package) is None:
            raise MissingDependency(
                f"LoRA needs {package}, which is not installed.",
                subject=package,
                hint="pip install 'vlmlens[tune]'",
            )
    peft, layers = import_module("peft"), import_module("peft.tuners.tuners_utils")
    return SimpleNamespace(
        LoraConfig=peft.LoraConfig,
        LoraModel=peft.LoraModel,
        inject_adapter_in_model=peft.inject_adapter_in_model,
        set_peft_model_state_dict=peft.set_peft_model_state_dict,
        get_peft_model_state_dict=peft.get_peft_model_state_dict,
        BaseTunerLayer=layers.BaseTunerLayer,
        cast_adapter_dtype=layers.cast_adapter_dtype,
    )


@contextmanager
def without_old_names() -> Iterator[None]:
    """Keep from the user that peft reads names which transformers will remove."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
