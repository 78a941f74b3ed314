"""Options: what users may set on a plugin."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Base of every plugin's options; unknown names are refused.

    Give each field a type, a default and a `description`: the command line's `--set`, the run
    file's schema and `vlmlens plugins show` are made from them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
