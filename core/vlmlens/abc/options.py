"""Options: the settings of a plugin."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from vlmlens.spec.model import refuse_switch


class Options(BaseModel):
    """Base class of every plugin's options. Unknown names are refused.

    Give each field a type, a default and a `description`. `--set` on the command line, the run
    file's schema and `vlmlens plugins show` are made from them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_switches(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        kinds = get_args(kind) or (kind,)
        numbers = bool({int, float} & set(kinds)) and bool not in kinds
        return refuse_switch(value) if numbers else value

    @field_validator("*", mode="before")
    @classmethod
    def _on_and_off_are_words(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads `on` and `off` as truth values; where these are words, they are meant."""
        words = get_args(cls.model_fields[info.field_name or ""].annotation)
        word = "on" if value else "off"
        return word if isinstance(value, bool) and word in words and bool not in words else value
