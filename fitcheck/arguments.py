"""What was typed after a command, read without the command-line library, which takes longer to load than most answers.

Only what is written as usual is read here: options by their full names, each with a value that cannot be mistaken for
an option, and words. All else (help, completion, mistakes, ``-n5``, ``--``) is the library's to read, by the same
declarations; where both read something they read the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fitcheck.parameters import Parameter


def read(parameters: Sequence[Parameter], words: Sequence[str]) -> dict[str, Any] | None:
    """The value of every parameter by its name; None where ``words`` are not written as usual."""
    typed = _typed(parameters, words)
    if typed is None or any(parameter.required and parameter.name not in typed for parameter in parameters):
        return None
    try:
        return {
            parameter.name: _value(parameter, typed[parameter.name]) if parameter.name in typed else parameter.default
            for parameter in parameters
        }
    except ValueError:
        return None


def _typed(parameters: Sequence[Parameter], words: Sequence[str]) -> dict[str, list[str]] | None:
    """The texts that belong to each parameter that was typed."""
    options = {name: parameter for parameter in parameters for name in parameter.declared.names}
    argument = next((parameter for parameter in parameters if not parameter.declared.names), None)
    typed: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        name, equals, text = word.partition("=") if word.startswith("--") else (word, "", "")
        parameter = options.get(name) if word.startswith("-") else argument
        if parameter is None:
            return None
        if parameter is argument:
            text = word
        elif parameter.kind is bool:
            text = "" if equals else "yes"
        elif not equals:
            text = next(rest, "")
        texts = typed.setdefault(parameter.name, [])
        if not text or text.startswith("-") or (texts and not parameter.many):
            return None
        texts.append(text)
    return typed


def _value(parameter: Parameter, texts: list[str]) -> Any:
    """The texts as what the parameter takes. Raises ValueError."""
    values = [parameter.kind(text) for text in texts]
    least, most = parameter.declared.least, parameter.declared.most
    for value in values:
        if not ((least is None or value >= least) and (most is None or value <= most)):  # nan is neither
            raise ValueError
    return values if parameter.many else values[0]
