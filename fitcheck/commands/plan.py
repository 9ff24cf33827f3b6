"""``fitcheck plan``: the smallest hardware of each kind that runs a model, and what this machine lacks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from msgspec.structs import replace

from fitcheck.advise.check import requirements
from fitcheck.advise.plan import Candidate, lacking, planned, smallest
from fitcheck.advise.suit import for_model
from fitcheck.errors import FitcheckError
from fitcheck.probe.hardware import GpuRow
from fitcheck.probe.pretend import Tables, pretend
from fitcheck.session import Session
from fitcheck.types import Answer, Check, Fit, Hardware, Machine, Model, PlacementKind, Report, Request, Vendor
from fitcheck.units import GIB

#: Cards from here on are still to be had; older ones no engine supports for long.
OLDEST = "2018-09"
_MINI_PC_GIB = (32, 64, 96, 128)


def plan(session: Session, request: Request, name: str) -> Report:
    """Ask for each kind of hardware what the smallest is that meets the request."""
    asked = session.asked(name, request)
    model, request = asked.model, for_model(asked.model, asked.request)
    estimator = session.estimator
    wanted = planned(model, request, estimator)
    own = own_fit(session, model, request)
    found = requirements(model, own, request)
    on_gpu = replace(wanted, allow=(PlacementKind.GPU,))
    tables = Tables()
    pretended = partial(_pretended, tables)
    bought = (smallest(model, candidates, on_gpu, estimator, pretended) for candidates in _kinds(tables))
    runs_here = all(requirement.met for requirement in found)
    added = () if runs_here else tuple(lacking(model, session.machine, wanted, estimator))
    hardware = (*added, *(option for option in bought if option))
    instead = session.ranker(request).answer(request.task)
    return session.report(
        "plan",
        _summary(model, hardware),
        wanted,
        fits=(own,),
        checks=(Check(model.id, runs_here, found, own),),
        hardware=hardware,
        best=(instead,) if instead else (),
        notes=asked.notes,
        next_steps=tuple(_next_steps(model, runs_here, hardware, instead)),
    )


def own_fit(session: Session, model: Model, request: Request) -> Fit:
    """The model on the session's machine as it is."""
    here = session.chooser(for_model(model, request))
    return here.estimate(here.choose(model))


def _kinds(tables: Tables) -> Iterator[list[Candidate]]:
    rows = [row for row in tables.gpus.rows if not row.rare and (row.launch or OLDEST) >= OLDEST]
    cards = [row for row in rows if row.form == "desktop" and row.memory_bytes]
    yield [_cards("one_card", row, 1) for row in cards]
    yield [_cards("two_cards", row, 2) for row in cards]
    yield [_unified("mac", row, size) for row in rows if row.vendor is Vendor.APPLE for size in row.memory_options_gib]
    yield [
        _unified("mini_pc", row, size)
        for row in rows
        if row.unified and row.form == "soc" and row.vendor is not Vendor.APPLE and row.bandwidth_per_s > 200e9
        for size in row.memory_options_gib or _MINI_PC_GIB
    ]
    yield [_cards("workstation", row, 1) for row in rows if row.form == "workstation" and row.memory_bytes]
    centre = [row for row in rows if row.form == "datacenter" and row.memory_bytes]
    yield [_cards("datacentre", row, count) for row in centre for count in (1, 2, 4, 8)]


def _cards(kind: str, row: GpuRow, count: int) -> Candidate:
    what = row.name if count == 1 else f"{count}x {row.name}"
    return Candidate(kind, what, count * (row.memory_bytes or 0), row.bandwidth_per_s)


def _unified(kind: str, row: GpuRow, size_gib: float) -> Candidate:
    what = f"{row.name} {size_gib:g}GB"
    return Candidate(kind, what, int(size_gib * GIB), row.bandwidth_per_s)


def _pretended(tables: Tables, what: str) -> Machine | None:
    try:
        return pretend(what, tables=tables)
    except FitcheckError:
        return None


def _summary(model: Model, hardware: tuple[Hardware, ...]) -> str:
    if not hardware:
        return f"nothing in the table of hardware runs {model.id} as asked"
    least = min(hardware, key=lambda option: option.fit.need_bytes)
    return f"{model.id} would run on {least.what}"


def _next_steps(model: Model, runs_here: bool, hardware: tuple[Hardware, ...], instead: Answer | None) -> list[str]:
    if runs_here:
        return [f"fitcheck explain {model.id}"]
    if instead:
        return [f"fitcheck explain {instead.model}"]
    return [f'fitcheck scan --on "{hardware[-1].what}"'] if hardware else ["fitcheck scan"]
