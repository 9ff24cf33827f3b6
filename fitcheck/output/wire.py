"""Reports as JSON, back again, and the schema of that JSON."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from fitcheck.errors import FitcheckError
from fitcheck.types import Machine, Report

SCHEMA_VERSION = 1
LIMIT_BYTES = 64 * 1024 * 1024
# What JSON may hold raw and a terminal would obey: DEL, C1 controls, writing-direction overrides. In UTF-8.
_UNSAFE = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


def encode(report: Report) -> bytes:
    """The report as one JSON object, indented, in UTF-8, without a character that a terminal would obey."""
    text = msgspec.json.format(msgspec.json.encode(report), indent=1)
    return _UNSAFE.sub(_escape, text) + b"\n"


def _escape(match: re.Match[bytes]) -> bytes:
    return f"\\u{ord(match[0].decode()):04x}".encode()


def decode_machine(text: bytes, name: str) -> Machine:
    """The machine of a file that an earlier ``--json`` wrote. Raises FitcheckError with the path of a bad field."""
    if len(text) > LIMIT_BYTES:
        raise FitcheckError("unreadable_file", f"{name} is larger than a report can be")
    try:
        report = msgspec.json.decode(text, type=_MachineReport)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FitcheckError("unreadable_file", f"{name} is not a report that --json wrote: {error}") from None
    if report.schema_version > SCHEMA_VERSION:
        raise FitcheckError("unreadable_file", f"{name} was written by a newer fitcheck", "update fitcheck")
    if report.machine is None:
        raise FitcheckError("unreadable_file", f"{name} holds no machine", "write it with fitcheck machine --json")
    return report.machine


class _MachineReport(msgspec.Struct):
    """The part of a report that describes the machine; other fields may come and go."""

    schema_version: int
    machine: Machine | None = None


def schema() -> dict[str, Any]:
    """The JSON Schema of every ``--json`` output (2020-12), generated from the types."""
    body = msgspec.json.schema(Report)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:fitcheck:report:{SCHEMA_VERSION}",
        "title": "fitcheck report",
        **body,
    }


def schema_text() -> bytes:
    """The schema as it is committed in ``fitcheck/data/report.schema.json``."""
    return msgspec.json.format(msgspec.json.encode(schema(), order="deterministic"), indent=1) + b"\n"
