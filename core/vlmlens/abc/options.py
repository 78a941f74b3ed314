"""Options: the settings of a plugin."""

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Base class of every plugin's options. Unknown names are refused.

    Give each field a type, a default and a `description`. `--set` on the command line, the run
    file's schema and `vlmlens plugins show` are made from them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
