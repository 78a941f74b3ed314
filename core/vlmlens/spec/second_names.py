"""Second names of settings, which are accepted wherever the first ones are."""

from __future__ import annotations

from typing import Any

SECOND_NAMES = {"peft": "tuned"}
"""By second name, the field of the run spec."""


def with_first_names(values: Any) -> Any:
    """The values of a run spec, with second names replaced; what is no mapping stays as it is.

    Raises:
        ValueError: A setting is given under both of its names, with different values.

    >>> with_first_names({"peft": "a/b", "seed": 1})
    {'seed': 1, 'tuned': 'a/b'}
    """
    if not isinstance(values, dict) or not SECOND_NAMES.keys() & values.keys():
        return values
    found = {key: value for key, value in values.items() if key not in SECOND_NAMES}
    for second, first in SECOND_NAMES.items():
        given = values.get(second)
        if given is None:
            continue
        if found.get(first) not in (None, given):
            raise ValueError(
                f"{first} and {second} are two names of one setting, and both are given"
            )
        found[first] = given
    return found
