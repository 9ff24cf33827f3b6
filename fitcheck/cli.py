"""The commands: what can be typed, and which part of the program answers. Nothing is computed or printed here.

Every command imports what it needs when it runs, so that ``fitcheck scan`` does not pay for the others.
"""

# Annotations are values here: the declarations of options are read from them.
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from msgspec import Struct

from fitcheck.errors import EXIT_INTERRUPTED, FitcheckError
from fitcheck.options import MODEL_HELP, MachineOptions, OutputOptions, RequestOptions, positive
from fitcheck.parameters import argument, call, option, parameters_of
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
    answered = _run_plainly(arguments)
    return _run_by_library(arguments) if answered is None else answered


def _run_plainly(arguments: list[str]) -> Outcome | None:
    """The answer to what is written as usual; None where the command-line library must look at it."""
    from fitcheck.arguments import read

    for words in (1, 2):
        command = COMMANDS.get(tuple(arguments[:words]))
        values = read(parameters_of(command), arguments[words:]) if command else None
        if command and values is not None:
            return call(command, values)  # type: ignore[no-any-return]
    return None


def _run_by_library(arguments: list[str]) -> Outcome:
    from fitcheck.parser import application

    result = application(COMMANDS)(arguments, prog_name="fitcheck", standalone_mode=False)
    if result == EXIT_INTERRUPTED:  # the library's word for Ctrl-C
        raise KeyboardInterrupt
    if isinstance(result, str):
        return Outcome(result.encode())
    return result if isinstance(result, Outcome) else Outcome(b"", int(result or 0))


def _complete(incomplete: str) -> list[str]:
    """Model ids for the shell's completion."""
    from fitcheck.catalog import load

    return sorted(model.id for model in load().models if model.id.startswith(incomplete.lower()))


Models = Annotated[list[str] | None, argument("MODEL...", help=MODEL_HELP, show_default=False, complete=_complete)]
OneModel = Annotated[str, argument("MODEL", help=MODEL_HELP, complete=_complete)]


def scan(
    request: RequestOptions,
    machine: MachineOptions,
    output: OutputOptions,
    limit: Annotated[int, option("-n", "--limit", least=1, help="How many to show.")] = 8,
    everything: Annotated[bool, option("--all", help="Show everything that runs.")] = False,
    installed: Annotated[
        bool, option("--installed", help="Only models that Ollama, LM Studio, llama.cpp or the Hub's cache hold.")
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
    first: Annotated[bool, option("--first", help="Yes when one of the models passes; name it.")] = False,
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


def _wishes_of_project(request: RequestOptions) -> "tuple[Wish, ...]":
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
    capture: Annotated[
        str | None, option("--capture", metavar="DIR", help="Record this machine for a bug report.")
    ] = None,
) -> Outcome:
    """What was detected, how, and what is missing."""
    output.check()
    from fitcheck.commands.machine import machine as answer

    return _print(answer(_session(machine), capture), output)


def calibrate(
    output: OutputOptions,
    seconds: Annotated[float, option("--seconds", least=1, most=3600, help="About how long it may take.")] = 60.0,
    forget: Annotated[bool, option("--forget", help="Remove what was measured.")] = False,
) -> Outcome:
    """Measure this machine, and use the measurements from then on."""
    output.check()
    from fitcheck.commands import calibrate as command

    seconds = positive("--seconds", seconds)  # nan is within all bounds for some versions of the library
    session = _session()
    return _print(command.forget(session) if forget else command.calibrate(session, seconds), output)


def catalog_list(
    output: OutputOptions,
    text: Annotated[str, argument(help="Part of a name, family or developer.", show_default=False)] = "",
    task: Annotated[Task | None, option("--for", help="Only models made for this.")] = None,
    licence: Annotated[Licences, option("--licence", help="Only such licences.")] = Licences.ANY,
    family: Annotated[str | None, option("--family", metavar="NAME", help="Only this family.")] = None,
    max_params: Annotated[
        str | None, option("--max-params", metavar="SIZE", help="Only up to this size: 8b, 270m.")
    ] = None,
    modality: Annotated[
        str | None, option("--modality", metavar="KIND", help="text, vision, audio or embedding")
    ] = None,
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
    reference: Annotated[str, argument(help="A .gguf file, a model folder, or hf:org/repo[:quant].")],
    output: OutputOptions,
) -> Outcome:
    """Keep a model of your own."""
    output.check()
    from fitcheck.commands.catalog import add

    return _print(add(_session(), reference), output)


def catalog_remove(
    name: Annotated[str, argument(help="Its id, or what was typed to add it.")], output: OutputOptions
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


#: What can be typed, and the function that answers it.
COMMANDS: dict[tuple[str, ...], Callable[..., Outcome]] = {
    ("scan",): scan,
    ("check",): check,
    ("explain",): explain,
    ("plan",): plan,
    ("machine",): machine,
    ("calibrate",): calibrate,
    ("schema",): schema,
    ("catalog", "list"): catalog_list,
    ("catalog", "show"): catalog_show,
    ("catalog", "verify"): catalog_verify,
    ("catalog", "add"): catalog_add,
    ("catalog", "remove"): catalog_remove,
    ("catalog", "refresh"): catalog_refresh,
}


def _session(options: MachineOptions | None = None) -> "Session":
    """The session of a command, which begins to look at the machine where the command has options about it."""
    from fitcheck.session import Session

    if options is None:
        return Session()
    session = Session(options.on, *options.corrections())
    session.look_ahead()
    return session


def _print(report: "Report", output: OutputOptions) -> Outcome:
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
