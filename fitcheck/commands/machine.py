"""``fitcheck machine``: what was detected, how, and what is missing."""

from __future__ import annotations

from pathlib import Path

from fitcheck.errors import FitcheckError
from fitcheck.session import Session
from fitcheck.types import Machine, Report
from fitcheck.units import format_bytes


def machine(session: Session, capture: str | None = None) -> Report:
    """Describe the session's machine. With ``capture`` record this machine's evidence in that folder first."""
    found = session.machine
    next_steps = ["fitcheck scan"]
    if capture is not None:
        if found.pretended:
            raise FitcheckError("bad_option", "--capture records this machine; it cannot be used with --on")
        from fitcheck.probe.capture import record

        record(Path(capture))
        next_steps = [f"fitcheck machine --on {capture}"]
    hints = [problem.hint for problem in found.problems if problem.hint]
    return session.report("machine", _summary(found), next_steps=tuple(dict.fromkeys([*hints[:3], *next_steps])))


def _summary(machine: Machine) -> str:
    cards = ", ".join(f"{card.name} {format_bytes(card.pool.total_bytes)}" for card in machine.accelerators)
    return f"{machine.cpu.name}, {format_bytes(machine.ram.total_bytes)} RAM, {cards or 'no GPU'}"
