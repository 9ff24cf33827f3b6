"""What was detected, where it was read, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator

from fitcheck.output.document import BLANK, DIM, WARN, Block, Column, Document, Span, Table, line
from fitcheck.output.words import machine_line, next_steps
from fitcheck.types import Accelerator, Machine, Pool, Report
from fitcheck.units import format_bytes, format_rate

_COLUMNS = (
    Column("PART", keep=99),
    Column("FOUND", keep=98, shorten=True, least=64),
    Column("FROM", keep=1, shorten=True),
)


def document(report: Report, verbose: bool = False) -> Document:
    """The parts of the machine and what is missing."""
    machine = report.machine
    return Document(tuple(_blocks(machine, report, verbose)) if machine else (), table_only=True)


def quiet(report: Report) -> str:
    """The machine in one line."""
    return machine_line(report.machine) if report.machine else ""


def _blocks(machine: Machine, report: Report, verbose: bool) -> Iterator[Block]:
    yield Table(_COLUMNS, tuple(_rows(machine)))
    if verbose and machine.evidence:
        yield BLANK
        rows = tuple((Span(e.what), Span(e.value), Span(e.source, DIM)) for e in machine.evidence)
        yield Table((Column("EVIDENCE", keep=99), *_COLUMNS[1:]), rows)
    if machine.problems:
        yield BLANK
        for problem in machine.problems:
            yield line(Span("missing: ", WARN), f"{problem.part}: {problem.message}", indent=9)
    yield BLANK
    yield from next_steps(report)


def _rows(machine: Machine) -> Iterator[tuple[Span, ...]]:
    cpu = machine.cpu
    yield _row("system", " ".join(filter(None, (machine.os_version or machine.os, machine.arch, machine.environment))))
    cores = f"{cpu.physical_cores} cores, {cpu.logical_cpus} threads, {cpu.threads} for inference"
    yield _row("cpu", f"{cpu.name}: {cores}")
    yield _row("ram", _pool(machine.ram), _bandwidth_source(machine.ram))
    limits = machine.limits
    if limits.memory_bytes is not None or limits.cpus is not None:
        memory = [f"{format_bytes(limits.memory_bytes)} memory"] if limits.memory_bytes is not None else []
        cpus = [f"{limits.cpus:g} CPUs"] if limits.cpus is not None else []
        yield _row("limits", ", ".join(memory + cpus), limits.source)
    for card in machine.accelerators:
        yield _row(f"gpu{card.index}", _card(card), _bandwidth_source(card.pool))
    if not machine.accelerators:
        yield _row("gpu", "none found")
    if machine.disk_free_bytes is not None:
        yield _row("disk", f"{format_bytes(machine.disk_free_bytes)} free")


def _row(part: str, found: str, source: str = "") -> tuple[Span, ...]:
    return Span(part), Span(found), Span(source, DIM)


def _card(card: Accelerator) -> str:
    backends = "/".join(backend.value for backend in card.backends)
    unusable = "" if card.usable else "not usable; "
    return f"{card.name}: {unusable}{_pool(card.pool)}{', ' + backends if backends else ''}"


def _pool(pool: Pool) -> str:
    rate = pool.bandwidth
    bandwidth = f", {format_rate(rate.per_s)} ({rate.origin.value})" if rate else ""
    if not pool.total_bytes:
        return f"size unknown{bandwidth}"
    return f"{format_bytes(pool.total_bytes)}, {format_bytes(pool.usable_bytes)} usable{bandwidth}"


def _bandwidth_source(pool: Pool) -> str:
    return pool.bandwidth.source if pool.bandwidth else ""
