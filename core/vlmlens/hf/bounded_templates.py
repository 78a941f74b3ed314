"""Chat templates with a limit on work: a template comes with a checkpoint, and may be hostile.

Jinja's sandbox keeps a template from reaching Python, but not from repeating a letter 10**10 times
or from looping for hours. Here every step costs units of a budget: a turn of a loop, a call, the
characters that an operation could produce. The costs are computed before the work is done.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

_BUDGET = 2 * 10**7
"""Units per rendering: about a second of work, whatever it is spent on."""
_STEP = 500
"""Units for a turn of a loop, or a call of a macro."""
_ITEM = 20
"""Units for looking at an item of a list."""
_FORMATS = frozenset({"format", "format_map", "%"})

_left: ContextVar[int] = ContextVar("_left", default=_BUDGET)


class TooMuchWork(SecurityError):
    """A template would do more than is allowed."""


def rendered(template: str, variables: Mapping[str, Any]) -> str:
    """The text that a chat template makes of some variables.

    Args:
        template: In Jinja, with what transformers adds: `raise_exception`, `strftime_now`,
            `tojson` that keeps characters, `{% generation %}`, `{% break %}`.
        variables: By name.

    Raises:
        TooMuchWork: It takes too many steps or makes too long a text.
        Exception: What the template or Jinja raises.

    >>> rendered("{% for m in messages %}{{ m }};{% endfor %}", {"messages": ["a", "b"]})
    'a;b;'
    """
    _left.set(_BUDGET)
    return str(_compiled(template).render(**variables))


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    environment = _Bounded(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
        finalize=_shown,
    )
    tree = _Charging().visit(environment.parse(template))
    return environment.from_string(tree)


class _Bounded(ImmutableSandboxedEnvironment):
    """A sandbox in which operators, filters, calls and loops are paid for."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.filters["tojson"] = _as_json
        self.filters = {name: _paid_filter(name, each) for name, each in self.filters.items()}
        self.globals |= {
            "raise_exception": _raise,
            "strftime_now": lambda form: datetime.now().strftime(form),
            "dict": _dict,
            "namespace": _Names,
        }

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """The parts as one text; called for what a template, a macro or a block gives."""
        found = []
        for part in parts:
            _pay(len(part))
            found.append(part)
        return "".join(found)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """See `SandboxedEnvironment.call_binop`."""
        _pay(_price_of_operation(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """See `SandboxedEnvironment.call`; what a template cannot name pays for itself."""
        if __obj is _Bounded.step or __obj is _Bounded.walked:
            return __obj(*args)
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        name = getattr(__obj, "__name__", "")
        own = (owner,) if isinstance(owner, str | bytes | list | tuple | dict) else ()
        _pay(_price_of_call(name, (*own, *args, *kwargs.values())))
        return super().call(__context, __obj, *args, **kwargs)

    @staticmethod
    def step() -> str:
        """Pay for a turn of a loop or a call of a macro."""
        _pay(_STEP)
        return ""

    @staticmethod
    def walked(items: Iterable[Any]) -> list[Any]:
        """What a loop goes through, paid for."""
        found = []
        for item in items:
            _pay(_ITEM)
            found.append(item)
        return found


class _Charging(NodeTransformer):
    """Puts payments where Jinja offers no hook: loops, macros, and the operator `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _own("walked", node.iter)
        node.body.insert(0, nodes.ExprStmt(_own("step")))
        return node

    def visit_Macro(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_own("step")))
        return node

    visit_CallBlock = visit_Macro  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        texts: list[nodes.Expr] = [
            nodes.Filter(part, "string", [], [], None, None) for part in node.nodes
        ]
        return functools.reduce(nodes.Add, texts)


class _Generation(Extension):
    """`{% generation %}`: marks what the assistant says; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return body


class _Names(Namespace):
    """Jinja's `namespace` without names that begin with an underscore, and without its text."""

    def __repr__(self) -> str:
        return "<namespace>"

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"A chat template cannot set {name!r}.")
        super().__setitem__(name, value)


def _own(name: str, *arguments: Any) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


def _pay(units: int) -> None:
    left = _left.get() - units
    if left < 0:
        raise TooMuchWork("it takes too many steps, or makes too long a text")
    _left.set(left)


def _price_of_operation(operator: str, left: Any, right: Any) -> int:
    """At least the characters, items or digits of the result."""
    if isinstance(left, int | float) and isinstance(right, int | float):
        digits = _digits(left) * max(1, _digits(right))
        return int(_digits(left) * max(1, min(abs(right), _BUDGET))) if operator == "**" else digits
    if operator == "*":
        return _size(left) * _size(right)
    if operator == "%":
        return _price_of_call(operator, (left, right))
    return _size(left) + _size(right)


def _price_of_call(name: str, operands: Iterable[Any]) -> int:
    """The product of the operands' sizes: what joining or replacing can give at most."""
    price = 1
    for operand in operands:
        price *= _size(operand)
        if name in _FORMATS and isinstance(operand, str):
            price *= max([1, *(int(n[:12]) for n in re.findall("[0-9]+", operand))])
        if price > _BUDGET:
            break
    return price


def _size(value: Any) -> int:
    """Characters of a text, magnitude of a number, items of a list with all that is in them."""
    if isinstance(value, str | bytes):
        return 1 + len(value)
    if isinstance(value, bool) or value is None:
        return 1
    if isinstance(value, int | float):
        return 1 + int(min(abs(value), _BUDGET)) if value == value else 1  # noqa: PLR0124  NaN
    if isinstance(value, dict):
        return _sum_of_sizes(part for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return _sum_of_sizes(value)
    return 1


def _sum_of_sizes(values: Iterable[Any]) -> int:
    total = 1
    for value in values:
        _pay(_ITEM)
        total += _size(value)
    return total


def _digits(number: float) -> int:
    return number.bit_length() if isinstance(number, int) else 64


def _shown(value: Any) -> Any:
    _pay(_size(value))
    return value


def _paid_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is paid for before it works."""

    @functools.wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        _pay(_price_of_call(name, (*args, *kwargs.values())))
        return function(*args, **kwargs)

    return paid


def _dict(*pairs: Any, **named: Any) -> dict[Any, Any]:
    """Python's `dict` without its class methods."""
    return dict(*pairs, **named)


def _as_json(value: Any, **settings: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **settings})


def _raise(message: str) -> None:
    raise TemplateError(message)
