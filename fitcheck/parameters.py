"""What can be typed after a command: how options and arguments are declared, once for everything that reads them.

A command is a function. A parameter of it is annotated with ``option`` or ``argument``, or is a group of options (a
subclass of ``Options``), so that every command has the same options with the same words. ``arguments`` reads what was
typed by these declarations, ``parser`` shows them to the command-line library.
"""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Any, get_args, get_origin

from msgspec import Struct


class Declared(Struct, frozen=True):
    """How a parameter is written and explained. ``names``: none for an argument, which has its place instead.
    ``panel``: the heading of the help that it stands under; ``least``, ``most``: bounds of a number; ``complete``:
    words that may follow what was typed so far."""

    help: str
    names: tuple[str, ...] = ()
    metavar: str | None = None
    panel: str | None = None
    least: float | None = None
    most: float | None = None
    show_default: bool = True
    complete: Callable[[str], list[str]] | None = None


def option(*names: str, help: str, **more: Any) -> Declared:
    """A parameter with a name: ``--context``, ``-c``."""
    return Declared(help, names, **more)


def argument(metavar: str | None = None, *, help: str, **more: Any) -> Declared:
    """A parameter without a name."""
    return Declared(help, metavar=metavar, **more)


class Options(Struct, frozen=True):
    """Base of the groups: their fields are parameters with defaults."""


class Parameter(Struct, frozen=True):
    """One thing that can be typed. ``kind``: str, int, float, bool (a flag, without a value) or an enumeration;
    ``many``: a list of them; ``hint``: the annotation without the declaration."""

    name: str
    hint: Any
    declared: Declared
    required: bool
    default: Any
    kind: type
    many: bool


def parameters_of(command: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Everything that can be typed after a command, groups taken apart."""
    found: list[Parameter] = []
    hints = {name: hint for name, hint in command.__annotations__.items() if name != "return"}
    for (name, hint), default in _with_defaults(hints, command.__defaults__ or ()):
        if not _is_group(hint):
            found.append(_parameter(name, hint, *default))
            continue
        fields = {field: hint.__annotations__[field] for field in hint.__struct_fields__}
        found += (
            _parameter(field, hint, *value) for (field, hint), value in _with_defaults(fields, hint.__struct_defaults__)
        )
    return tuple(found)


def call(command: Callable[..., Any], values: dict[str, Any]) -> Any:
    """The command's answer; ``values`` by name of parameter, groups taken apart."""
    values = dict(values)
    for name, hint in command.__annotations__.items():
        if _is_group(hint):
            values[name] = hint(**{field: values.pop(field) for field in hint.__struct_fields__})
    return command(**values)


def _is_group(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, Options)


def _with_defaults(hints: dict[str, Any], defaults: tuple[Any, ...]) -> list[tuple[tuple[str, Any], tuple[Any, ...]]]:
    """Each (name, annotation) with its default, or with none: defaults are those of the last ones."""
    without = len(hints) - len(defaults)
    return list(zip(hints.items(), [()] * without + [(default,) for default in defaults], strict=True))


def _parameter(name: str, hint: Any, *default: Any) -> Parameter:
    inner, declared = hint.__origin__, hint.__metadata__[0]
    kinds = get_args(inner) if isinstance(inner, UnionType) else (inner,)
    kind = next(kind for kind in kinds if kind is not type(None))
    many = get_origin(kind) is list
    return Parameter(
        name=name,
        hint=inner,
        declared=declared,
        required=not default,
        default=default[0] if default else None,
        kind=get_args(kind)[0] if many else kind,
        many=many,
    )
