"""Types of options in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from pydantic import BaseModel

_BOUNDS = (
    ("ge", ">="),
    ("gt", ">"),
    ("le", "<="),
    ("lt", "<"),
    ("multiple_of", "a multiple of"),
    ("min_length", "at least"),
    ("max_length", "at most"),
    ("pattern", "like"),
)
_COUNTS = ("min_length", "max_length")


def option_rows(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The options of a plugin as JSON-ready data."""
    return [
        {
            "name": name,
            "type": readable_type(field.annotation, field.metadata),
            "required": field.is_required(),
            "default": None
            if field.is_required()
            else field.get_default(call_default_factory=True),
            "help": field.description or "",
        }
        for name, field in model.model_fields.items()
    ]


def readable_type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type and its bounds.

    >>> from annotated_types import Ge, Lt, MinLen
    >>> readable_type(int, [Ge(1)])
    'int >= 1'
    >>> readable_type(Literal["lmdb", "sqlite"] | None)
    '"lmdb" | "sqlite" | none'
    >>> readable_type(tuple[Literal["a", "b"], ...], [MinLen(1)])
    'list of ("a" | "b"), at least 1'
    >>> readable_type(dict[str, float | None])
    'mapping of str to (float | none)'
    """
    items = list(metadata)
    bounds = [
        f"{word} {bound}"
        for item in items
        for name, word in _BOUNDS
        if (bound := getattr(item, name, None)) is not None
    ]
    counted = any(getattr(item, name, None) is not None for item in items for name in _COUNTS)
    shown = _shown(annotation)
    if counted:
        return ", ".join([shown, *bounds])
    if bounds and " | " in shown:
        first, *rest = shown.split(" | ")
        return " | ".join([" ".join([first, " and ".join(bounds)]), *rest])
    return " ".join([shown, " and ".join(bounds)]).strip()


def _shown(annotation: Any) -> str:  # noqa: PLR0911 - a case each
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return "anything"
    if annotation in (None, NoneType):
        return "none"
    if origin is Literal:
        return " | ".join(f'"{each}"' if isinstance(each, str) else str(each) for each in inner)
    if origin in (Union, UnionType):
        return " | ".join(map(_shown, inner))
    if hasattr(annotation, "__metadata__"):
        return readable_type(inner[0], annotation.__metadata__)
    if origin is tuple and not (len(inner) == 2 and inner[1] is Ellipsis):
        return f"({', '.join(map(_shown, inner))})"
    if origin in (list, tuple, set, frozenset):
        return f"list of {_grouped(inner[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {_grouped(inner[0])} to {_grouped(inner[1])}"
    return str(getattr(annotation, "__name__", annotation))


def _grouped(annotation: Any) -> str:
    shown = _shown(annotation)
    return f"({shown})" if " | " in shown else shown
