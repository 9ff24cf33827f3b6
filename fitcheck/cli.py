"""The commands: what can be typed, and which part of the program answers. Nothing is computed or printed here.

Every command imports what it needs when it runs, so that ``fitcheck scan`` does not pay for the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from fitcheck.errors import EXIT_INTERRUPTED, FitcheckError
from fitcheck.options import MODEL_HELP, MachineOptions, OutputOptions, RequestOptions, expand
from fitcheck.types import Licences, Task

if TYPE_CHECKING:
    from fitcheck.commands.check import Wish
    from fitcheck.session import Session
    from fitcheck.types import Report


class Outcome(Struct, frozen=True):
    """What goes to stdout, and the exit code."""

    text: bytes
    exit_code: int = 0


def run(arguments: list[str]) -> Outcome:
    """Parse and answer. Raises FitcheckError, or the parser's own errors (they have ``format_message``)."""
    result = _app(arguments)(arguments, prog_name="fitcheck", standalone_mode=False)
    if result == EXIT_INTERRUPTED:  # the parser's word for Ctrl-C
        raise KeyboardInterrupt
    return result if isinstance(result, Outcome) else Outcome(b"", int(result or 0))


def _app(arguments: list[str]) -> typer.Typer:
    """The command that is asked for, or all of them: for help, for completion, for a word that is none of them.

    Building a command's options takes milliseconds, so that a script does not pay for those of the others.
    """
    app = typer.Typer(
        help="Which open-weight models will really run on this machine, and how fast?",
        epilog="Exit codes: 0 answered or yes, 1 no (check only), 2 could not answer, 130 interrupted.",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        invoke_without_command=True,
    )
    app.callback()(fitcheck)
    commands: dict[str, Callable[..., Outcome]] = {
        "scan": scan,
        "check": check,
        "explain": explain,
        "plan": plan,
        "machine": machine,
        "calibrate": calibrate,
        "schema": schema,
    }
    asked = arguments[0] if arguments else ""
    for name, command in commands.items():
        if asked == name or asked not in commands:
            app.command(name)(expand(command))
    if asked not in commands:
        app.add_typer(_catalog_app(), name="catalog")
    return app


def _catalog_app() -> typer.Typer:
    app = typer.Typer(help="The models that fitcheck knows: list, show, verify; add and remove your own.")
    for name, command in (
        ("list", catalog_list),
        ("show", catalog_show),
        ("verify", catalog_verify),
        ("add", catalog_add),
        ("remove", catalog_remove),
        ("refresh", catalog_refresh),
    ):
        app.command(name)(expand(command))
    return app


def fitcheck(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> Outcome | None:
    """Which open-weight models will really run on this machine, and how fast?"""
    if version:
        from fitcheck import __version__

        return Outcome(f"fitcheck {__version__}\n".encode())
    if context.invoked_subcommand is None:
        return Outcome(context.get_help().encode() + b"\n")
    return None


def _complete(incomplete: str) -> list[str]:
    """Model ids for the shell's completion."""
    from fitcheck.catalog import load

    return sorted(model.id for model in load().models if model.id.startswith(incomplete.lower()))


Models = Annotated[
    list[str] | None,
    typer.Argument(metavar="MODEL...", help=MODEL_HELP, show_default=False, autocompletion=_complete),
]
OneModel = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, autocompletion=_complete)]


def scan(
    request: RequestOptions,
    machine: MachineOptions,
    output: OutputOptions,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many to show.")] = 8,
    everything: Annotated[bool, typer.Option("--all", help="Show everything that runs.")] = False,
    installed: Annotated[
        bool, typer.Option("--installed", help="Only models that Ollama, LM Studio, llama.cpp or the Hub's cache hold.")
    ] = False,
) -> Outcome:
    """What runs on this machine, best first."""
    output.check()
    from fitcheck.commands.scan import scan

    return _print(scan(_session(machine), request.request(), None if everything else limit, installed), output)


def check(
    request: RequestOptions,
    machine: MachineOptions,
    output: OutputOptions,
    models: Models = None,
    first: Annotated[bool, typer.Option("--first", help="Yes when one of the models passes; name it.")] = False,
) -> Outcome:
    """Yes or no, for scripts: exit code 0 or 1. Without MODEL: what fitcheck.toml or pyproject.toml asks for."""
    output.check(("text", "markdown", "github", "junit"))
    from fitcheck.commands.check import Wish, check

    asked = request.request()
    if models:
        task_given = request.task is not None
        groups = [tuple(models)] if first else [(name,) for name in models]
        wishes = tuple(Wish(names, asked, task_given) for names in groups)
    else:
        wishes = _wishes_of_project(request)
    return _print(check(_session(machine), asked, wishes), output)


def _wishes_of_project(request: RequestOptions) -> tuple[Wish, ...]:
    from pathlib import Path

    from fitcheck.commands.check import wishes_of_file
    from fitcheck.configuration import FILE, find

    path = find(Path.cwd())
    if path is None:
        raise FitcheckError("no_model", f"no model named, and no {FILE} here or above", "fitcheck check llama3.1:8b")
    return wishes_of_file(path, request)


def explain(model: OneModel, request: RequestOptions, machine: MachineOptions, output: OutputOptions) -> Outcome:
    """The arithmetic: memory by part and device, speed, context, sources."""
    output.check()
    from fitcheck.commands.explain import explain

    return _print(explain(_session(machine), request.request(), model), output)


def plan(model: OneModel, request: RequestOptions, machine: MachineOptions, output: OutputOptions) -> Outcome:
    """The hardware that would run a model, and what this machine lacks."""
    output.check()
    from fitcheck.commands.plan import plan

    return _print(plan(_session(machine), request.request(), model), output)


def machine(
    machine: MachineOptions,
    output: OutputOptions,
    capture: Annotated[str | None, typer.Option(metavar="DIR", help="Record this machine for a bug report.")] = None,
) -> Outcome:
    """What was detected, how, and what is missing."""
    output.check()
    from fitcheck.commands.machine import machine as answer

    return _print(answer(_session(machine), capture), output)


def calibrate(
    output: OutputOptions,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="About how long it may take.")] = 60.0,
    forget: Annotated[bool, typer.Option("--forget", help="Remove what was measured.")] = False,
) -> Outcome:
    """Measure this machine, and use the measurements from then on."""
    output.check()
    from fitcheck.commands import calibrate as command

    session = _session()
    return _print(command.forget(session) if forget else command.calibrate(session, seconds), output)


def catalog_list(
    output: OutputOptions,
    text: Annotated[str, typer.Argument(help="Part of a name, family or developer.", show_default=False)] = "",
    task: Annotated[Task | None, typer.Option("--for", help="Only models made for this.")] = None,
    licence: Annotated[Licences, typer.Option(help="Only such licences.")] = Licences.ANY,
    family: Annotated[str | None, typer.Option(metavar="NAME", help="Only this family.")] = None,
    max_params: Annotated[str | None, typer.Option(metavar="SIZE", help="Only up to this size: 8b, 270m.")] = None,
    modality: Annotated[str | None, typer.Option(metavar="KIND", help="text, vision, audio or embedding")] = None,
) -> Outcome:
    """List models."""
    output.check()
    from fitcheck.catalog.browse import Filters, modality_named, parse_params
    from fitcheck.commands.catalog import list_models

    filters = Filters(
        text=text,
        licences=licence,
        family=family,
        modality=modality_named(modality) if modality is not None else None,
        max_params=parse_params(max_params) if max_params is not None else None,
    )
    return _print(list_models(_session(), filters, task), output)


def catalog_show(model: OneModel, output: OutputOptions) -> Outcome:
    """Everything that is known about a model, with sources."""
    output.check()
    from fitcheck.commands.catalog import show

    return _print(show(_session(), model), output)


def catalog_verify(output: OutputOptions) -> Outcome:
    """Check every fact that can be computed."""
    output.check()
    from fitcheck.commands.catalog import verify

    return _print(verify(_session()), output)


def catalog_add(
    reference: Annotated[str, typer.Argument(help="A .gguf file, a model folder, or hf:org/repo[:quant].")],
    output: OutputOptions,
) -> Outcome:
    """Keep a model of your own."""
    output.check()
    from fitcheck.commands.catalog import add

    return _print(add(_session(), reference), output)


def catalog_remove(
    name: Annotated[str, typer.Argument(help="Its id, or what was typed to add it.")], output: OutputOptions
) -> Outcome:
    """Forget a model of your own."""
    output.check()
    from fitcheck.commands.catalog import remove

    return _print(remove(_session(), name), output)


def catalog_refresh(output: OutputOptions) -> Outcome:
    """Read your own models again from where they came."""
    output.check()
    from fitcheck.commands.catalog import refresh

    return _print(refresh(_session()), output)


def schema() -> Outcome:
    """The JSON Schema of every --json output."""
    from fitcheck.output.wire import schema_text

    return Outcome(schema_text())


def _session(options: MachineOptions | None = None) -> Session:
    from fitcheck.session import Session

    return Session() if options is None else Session(options.on, *options.corrections())


def _print(report: Report, output: OutputOptions) -> Outcome:
    """The report in the form that was asked for."""
    if output.json:
        from fitcheck.output.wire import encode

        return Outcome(encode(report), report.exit_code)
    from fitcheck.output.terminal import Terminal
    from fitcheck.output.text import render

    terminal = Terminal.of(sys.stdout, os.environ, output.color)
    text = render(report, terminal, output.format, quiet=output.quiet, verbose=output.verbose)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return Outcome(text.encode(encoding, "backslashreplace"), report.exit_code)
