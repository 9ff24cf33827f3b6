"""Ask a program that listens on this machine: JSON in, JSON out, bounded in time and size.

No proxy is asked and no redirect followed: what is measured must be here. Whatever the other side does, the answer is a
value or one line that says what went wrong.
"""

from __future__ import annotations

from contextlib import suppress
from errno import ECONNREFUSED
from http.client import HTTPConnection, HTTPException
from socket import SHUT_RDWR, create_connection, socket
from threading import Thread
from typing import Any

import msgspec

from fitcheck.calibrate.trials import TrialError

LARGEST_BYTES = 1 << 20
LONGEST_TEXT = 120


class NotRunningError(TrialError):
    """Nobody listens."""


def ask(port: int, path: str, question: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
    """What the program on ``port`` of this machine answers to a POST of ``question`` (GET without one).

    Raises TrialError, of which NotRunningError where the connection is refused.
    """
    try:
        line = create_connection(("127.0.0.1", port), timeout=max(0.1, seconds))
    except OSError as error:
        raise NotRunningError("is not running" if error.errno == ECONNREFUSED else "does not answer") from None
    answers: list[dict[str, Any] | TrialError] = []

    def exchange() -> None:
        try:
            answers.append(_exchange(line, path, question))
        except TrialError as error:
            answers.append(error)

    # a thread, because the connection's timeout is of each read: an answer that drips in would never end
    worker = Thread(target=exchange, name=f"ask {path}", daemon=True)
    worker.start()
    try:
        worker.join(seconds)
        answer = answers[0] if answers else TrialError(f"no answer within {seconds:.0f} s")
    finally:
        with suppress(OSError):  # hang up, also under a reader that still waits: the other side stops working for us
            line.shutdown(SHUT_RDWR)
        worker.join(1.0)
        line.close()
    if isinstance(answer, TrialError):
        raise answer
    return answer


def _exchange(line: socket, path: str, question: dict[str, Any] | None) -> dict[str, Any]:
    body = None if question is None else msgspec.json.encode(question)
    connection = HTTPConnection("127.0.0.1")
    connection.sock = line
    try:
        connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
        with connection.getresponse() as reply:
            status, text = reply.status, reply.read(LARGEST_BYTES + 1)
    except TimeoutError:
        raise TrialError("no answer in time") from None
    except (OSError, HTTPException, ValueError) as error:
        raise TrialError(f"broke off: {type(error).__name__}") from None
    finally:
        connection.close()
    if len(text) > LARGEST_BYTES:
        raise TrialError(f"its answer to {path} is larger than {LARGEST_BYTES >> 20} MiB")
    answer = _decoded(text)
    if status != 200:
        said = answer.get("error") if answer else None
        raise TrialError(f"answers {status} to {path}" + (f": {_one_line(said)}" if said else ""))
    if answer is None:
        raise TrialError(f"its answer to {path} is not what it documents")
    return answer


def _decoded(text: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return None


def _one_line(said: object) -> str:
    printable = "".join(char if char.isprintable() else " " for char in str(said)[: 4 * LONGEST_TEXT])
    return " ".join(printable.split())[:LONGEST_TEXT]


def rows_of(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects of a list in an answer. Raises TrialError where there is no list."""
    rows = answer.get(name)
    if not isinstance(rows, list):
        raise TrialError(f"its answer has no list of {name}")
    return [row for row in rows if isinstance(row, dict)]


def number_in(answer: dict[str, Any], name: str) -> float:
    """A number of an answer, 0 where there is none."""
    value = answer.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
