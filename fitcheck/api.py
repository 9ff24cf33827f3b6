"""The functions behind ``import fitcheck``: the same answers as the commands, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fitcheck.session import Session
from fitcheck.types import Check, Fit, Machine, Model, Request

if TYPE_CHECKING:
    from collections.abc import Sequence


def probe(deadline_s: float = 2.0) -> Machine:
    """Look at this machine: processor, memory, accelerators, limits. Never raises; what could not be read is in
    ``problems``. ``deadline_s``: seconds that a driver gets to answer."""
    from fitcheck.probe import probe as look

    return look(deadline_s=deadline_s)


def pretend(
    hardware: str,
    ram_bytes: int | None = None,
    vram_bytes: int | None = None,
    bandwidth_per_s: float | None = None,
) -> Machine:
    """The machine that ``hardware`` names: ``"RTX 4090"``, ``"2x RTX 3090"``, ``"M4 Max 64GB"``, ``"cpu"``, or a file
    or folder that ``--json`` or ``--capture`` wrote. Bandwidth in bytes/s. Raises FitcheckError."""
    return Session(hardware, ram_bytes, vram_bytes, bandwidth_per_s).machine


def find(name: str) -> Model:
    """What a person types -> Model: catalog id or alias, Ollama tag, Hub id, ``.gguf`` file, model folder, or
    ``hf:org/repo[:quant]`` (the only form that opens the network). Raises FitcheckError."""
    return Session().model(name)


def estimate(model: str | Model, machine: Machine | None = None, request: Request | None = None) -> Fit:
    """One model on one machine (None: this one): memory by part and device, speed, placement, verdict.

    Without ``request.quant`` the quantisation is the one that ``fitcheck scan`` would take. Raises FitcheckError.
    """
    found = check(model, machine, request).fit
    assert found is not None
    return found


def rank(
    machine: Machine | None = None,
    request: Request | None = None,
    limit: int | None = 10,
    models: Sequence[Model] | None = None,
) -> tuple[Fit, ...]:
    """The models (None: the catalog) that run on a machine (None: this one), best first. ``limit`` None: all."""
    from fitcheck.advise.rank import rank as ranking

    session = Session.of(machine)
    return ranking(session.ranker(request or Request(), models), limit).fits


def check(model: str | Model, machine: Machine | None = None, request: Request | None = None) -> Check:
    """Does a model meet a request on a machine (None: this one)? Every requirement with what is needed and found.
    Raises FitcheckError."""
    from fitcheck.commands.check import check_model

    session = Session.of(machine)
    request = request or Request()
    if isinstance(model, str):
        asked = session.asked(model, request)
        return check_model(session, asked.model, asked.request)
    return check_model(session, model, request)
