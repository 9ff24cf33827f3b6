"""The commands as the command-line library shows and reads them: help, completion, mistakes, whatever is unusual."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from fitcheck.parameters import Parameter, call, parameters_of

Command = Callable[..., Any]
_GROUPS = {"catalog": "The models that fitcheck knows: list, show, verify; add and remove your own."}


def application(commands: Mapping[tuple[str, ...], Command]) -> typer.Typer:
    """All commands; what is called without one answers with the help text or the version."""
    app = typer.Typer(
        help="Which open-weight models will really run on this machine, and how fast?",
        epilog="Exit codes: 0 answered or yes, 1 no (check only), 2 could not answer, 130 interrupted.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        invoke_without_command=True,
    )
    app.callback()(_without_command)
    groups: dict[str, typer.Typer] = {}
    for (*above, name), command in commands.items():
        for group in above:
            if group not in groups:
                groups[group] = typer.Typer(help=_GROUPS[group])
                app.add_typer(groups[group], name=group)
        (groups[above[0]] if above else app).command(name)(_shown(command))
    return app


def _without_command(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> str | None:
    """Which open-weight models will really run on this machine, and how fast?"""
    if version:
        from fitcheck import __version__

        return f"fitcheck {__version__}\n"
    return context.get_help() + "\n" if context.invoked_subcommand is None else None


def _shown(command: Command) -> Command:
    """The command with its groups taken apart, annotated as the library wants it."""

    def shown(**values: Any) -> Any:
        return call(command, values)

    parameters = [_signed(parameter) for parameter in parameters_of(command)]
    shown.__doc__ = command.__doc__
    shown.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    shown.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return shown


def _signed(parameter: Parameter) -> inspect.Parameter:
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(parameter.name, keyword_only, default=_declared(parameter), annotation=parameter.hint)


def _declared(parameter: Parameter) -> Any:
    declared = parameter.declared
    default = ... if parameter.required else parameter.default
    common: dict[str, Any] = {
        "help": declared.help,
        "metavar": declared.metavar,
        "show_default": declared.show_default,
        "autocompletion": declared.complete,
    }
    if not declared.names:
        return typer.Argument(default, **common)
    more: dict[str, Any] = {"min": declared.least, "max": declared.most, "rich_help_panel": declared.panel}
    return typer.Option(default, *declared.names, **common, **more)
