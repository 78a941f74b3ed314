"""Where the run log goes, as the user chose it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from vlmlens.abc.options import Options
from vlmlens.errors import MissingDependency
from vlmlens.spec.model import validated

if TYPE_CHECKING:
    from vlmlens.spec.model import RunSpec

NAME = "run-log"
VARIABLE = "VLMLENS_LOG_TO"


class RunLogOptions(Options):
    """`--set options.plugins.run-log.to=trackio`, or `VLMLENS_LOG_TO=trackio` for every run."""

    to: Literal["trackio", "wandb"] | None = Field(None, description="Logger; null: none.")
    project: str = Field("vlmlens", min_length=1, description="The logger's project.")
    name: str | None = Field(None, description="Run name in the logger; null: the folder's.")
    online: bool = Field(
        False, description="wandb uploads during the run; otherwise run `wandb sync` later."
    )
    space: str | None = Field(
        None, description="Hugging Face Space for trackio; null: this machine."
    )

    @model_validator(mode="after")
    def _suits_the_logger(self) -> RunLogOptions:
        if self.online and self.to != "wandb":
            raise ValueError("online is an option of to: wandb")
        if self.space is not None and self.to != "trackio":
            raise ValueError("space is an option of to: trackio")
        return self


def chosen(spec: RunSpec) -> RunLogOptions | None:
    """The settings of a run's log; None where it has none.

    Raises:
        SpecError: The options or the environment variable are wrong.
    """
    given: dict[str, Any] = dict(spec.options.plugins.get(NAME, {}))
    where = f"The plugin {NAME}"
    if "to" not in given and (said := os.environ.get(VARIABLE)):
        given["to"] = said
        where = f"{VARIABLE}={said}"
    settings = validated(RunLogOptions, given, where=where)
    return None if settings.to is None else settings


def check(settings: RunLogOptions | None) -> None:
    """Raise where the logger is not installed.

    Raises:
        MissingDependency: It is not; says how to get it.
    """
    if settings is None or settings.to is None or _installed(settings.to):
        return
    raise MissingDependency(
        f"The run log needs {settings.to}, which is not installed in this environment.",
        subject=settings.to,
        hint=f"pip install 'vlmlens[{settings.to}]', or unset {VARIABLE} and "
        f"options.plugins.{NAME}.to.",
    )


def _installed(module: str) -> bool:
    """Whether it can be found; it is not imported to find out."""
    try:
        return find_spec(module) is not None
    except ValueError:  # something made it unimportable in this process
        return False
