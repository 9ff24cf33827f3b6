"""The functions behind ``import fitcheck``: the same answers as the commands, as values."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from fitcheck.session import Session, user_folder
from fitcheck.types import Check, Fit, Machine, Model, Request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


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
    return _known().base.model(name)


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

    session = _known().session(machine)
    return ranking(session.ranker(request or Request(), models), limit).fits


def check(model: str | Model, machine: Machine | None = None, request: Request | None = None) -> Check:
    """Does a model meet a request on a machine (None: this one)? Every requirement with what is needed and found.
    Raises FitcheckError."""
    return _known().check(model, machine, request or Request())


# --------------------------------------------------------------------------------------------------------------------
# What calls have in common

MOST_MACHINES, MOST_ANSWERS = 64, 4096  # that are kept; then all is begun anew


class _Known:
    """The catalog, tables, estimator and answers that calls share for as long as the user's own models stay the same.
    Machines and models are known by their numbers, and kept, so that no other gets the number of one.
    """

    def __init__(self) -> None:
        self.base = Session()
        self._sessions: dict[int, Session] = {}
        self._answers: dict[tuple[int, int | str, Request], tuple[Check, Model | str]] = {}

    @property
    def is_full(self) -> bool:
        """Whether enough is kept."""
        return len(self._sessions) >= MOST_MACHINES or len(self._answers) >= MOST_ANSWERS

    def session(self, machine: Machine | None) -> Session:
        """A session on a machine; None is this one, looked at now."""
        if machine is None:
            return Session.of(None, self.base)
        found = self._sessions.get(id(machine))
        if found is None:
            found = self._sessions[id(machine)] = Session.of(machine, self.base)
        return found

    def check(self, model: str | Model, machine: Machine | None, request: Request) -> Check:
        """The answer, or that to the same question before."""
        key = (id(machine), model if isinstance(model, str) else id(model), request)
        known = self._answers.get(key)
        if known is not None:
            return known[0]
        from fitcheck.commands.check import check_model

        session, lasting = self.session(machine), machine is not None
        if isinstance(model, str):
            asked = session.asked(model, request)
            found = check_model(session, asked.model, asked.request)
            lasting = lasting and asked.model.path is None and not model.startswith(_ELSEWHERE)
        else:
            found = check_model(session, model, request)
        if lasting:
            self._answers[key] = found, model
        return found


_ELSEWHERE = ("hf:", "ollama:")  # what such a name stands for can change
_now: dict[tuple[Path | None, int], _Known] = {}  # of the user's models as they are, one at most


def _known() -> _Known:
    from fitcheck.catalog.user import FILE

    folder, changed = user_folder(), 0
    if folder is not None:
        with suppress(OSError):
            changed = (folder / FILE).stat().st_mtime_ns
    found = _now.get((folder, changed))
    if found is None or found.is_full:
        _now.clear()
        found = _now[folder, changed] = _Known()
    return found
