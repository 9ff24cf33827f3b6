"""The process: every outcome ends in one of five exit codes, and nothing leaks.

Nothing but built-in modules is imported before ``main`` runs, so that a broken installation is an answer too (code 2).
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False  # typing takes longer to import than this file
if TYPE_CHECKING:
    from typing import NoReturn

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141


def process() -> NoReturn:
    """The command ``fitcheck``: run, and end at once. To take its objects apart one by one takes the interpreter longer
    than most answers take to print."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 answered or yes, 1 no, 2 could not answer, 130, 141."""
    arguments = sys.argv[1:] if arguments is None else arguments
    gc.disable()  # the catalog is many small objects and the process ends soon: a third of the time was spent on cycles
    try:
        return _answer(arguments)
    except KeyboardInterrupt:
        _say("interrupted")
        return EXIT_INTERRUPTED
    except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets a code and one line
        return _explain(error, arguments)


def _answer(arguments: list[str]) -> int:
    from fitcheck.cli import run

    outcome = run(arguments)
    return outcome.exit_code if _write(outcome.text) else EXIT_PIPE_CLOSED


def _write(text: bytes) -> bool:
    """Write to stdout and flush it; False when the reader closed the pipe."""
    if sys.stdout is None or not text:
        return True
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    except OSError as error:
        _discard_stdout()
        if isinstance(error, BrokenPipeError) or sys.platform == "win32":
            return False
        from fitcheck.errors import FitcheckError

        raise FitcheckError("unwritable_output", f"cannot write the answer: {error.strerror}") from error
    return True


def _discard_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not fail (the code would become 120)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: BaseException, arguments: list[str]) -> int:
    if isinstance(error, SystemExit):
        return _code_of_exit(error)
    if "--verbose" in arguments:
        import traceback

        _say("".join(traceback.format_exception(error)).rstrip())
    code, message, hint = _describe(error)
    if "--json" in arguments and not _write(_error_report(code, message, hint, arguments)):
        return EXIT_PIPE_CLOSED
    _say(f"error: {message}" + (f"\n\nhint: {hint}" if hint else ""))
    return EXIT_ERROR


def _code_of_exit(error: SystemExit) -> int:
    """The command-line library exits by itself after help and completion (0), and with 1 when the pipe is closed."""
    if error.code in (None, 0):
        return 0
    if error.code == 1:
        _discard_stdout()
        return EXIT_PIPE_CLOSED
    return EXIT_ERROR


def _path(error: BaseException) -> str:
    """The command that was being read: ``fitcheck catalog add``."""
    words = getattr(getattr(error, "ctx", None), "command_path", "").split()
    return " ".join(("fitcheck", *words[1:]))


def _describe(error: BaseException) -> tuple[str, str, str]:
    """Stable code, one line, and what to type next."""
    if type(error).__name__ == "FitcheckError":
        return tuple(_one_line(str(getattr(error, name))) for name in ("code", "message", "hint"))  # type: ignore[return-value]
    if hasattr(error, "format_message"):  # the command-line library: bad option, missing argument, unknown command
        message = _one_line(str(error.format_message())).rstrip(".")
        return "bad_option", message[:1].lower() + message[1:], f"{_path(error)} --help lists commands and options"
    hint = "run it again with --verbose and report what it prints"
    if isinstance(error, ImportError):
        return (
            "broken_installation",
            _one_line(f"a part cannot be loaded: {error}"),
            "install fitcheck again, or: " + hint,
        )
    return "bug", _one_line(f"unexpected {type(error).__name__}: {error}"), hint


def _one_line(text: str, limit: int = 400) -> str:
    """Outside text on one line: control characters, among them terminal escapes, become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())[:limit]


def _error_report(code: str, message: str, hint: str, arguments: list[str]) -> bytes:
    """The report of a failure as JSON. Written by the standard library: it must work when everything else does not."""
    import json

    command = next((word for word in arguments if not word.startswith("-")), "")
    report = {
        "$schema": "urn:fitcheck:report:1",
        "schema_version": 1,
        "command": _one_line(command, 40),
        "answer": None,
        "exit_code": EXIT_ERROR,
        "summary": message,
        "error": {"code": code, "message": message, "hint": hint},
    }
    return json.dumps(report, indent=2).encode() + b"\n"


def _say(text: str) -> None:
    """One message on stderr; a closed or missing stderr is no reason to fail."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        return


if __name__ == "__main__":
    process()
