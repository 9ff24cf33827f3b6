"""NVIDIA's cards as accelerators: memory, bandwidth and link as the driver tells them, the rest by the table.

Peak bandwidth needs no table where the driver is new enough: twice the highest memory clock times the width of the bus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec.structs import replace

from fitcheck.probe.hardware import GpuRow, backends_of, find_gpu, pcie_link
from fitcheck.probe.host import Found, Host
from fitcheck.probe.nvidia.driver import Answer
from fitcheck.probe.nvidia.mig import instances_of
from fitcheck.probe.nvidia.smi import Card
from fitcheck.probe.nvidia.visible import visible
from fitcheck.types import Accelerator, Evidence, Link, Origin, Pool, Problem, Rate, Vendor
from fitcheck.units import format_bytes, format_rate

_PLAUSIBLE_FACTOR = 2.0  # between the bandwidth by clock and the one in the table

_VGPU_NAME = re.compile(r"^(?:NVIDIA |GRID )*(?P<card>[A-Z0-9][\w ]*?)-(?P<profile>\d{1,3}(?:-\d+)?[ABCQ](?:ME)?)$")


def cards_with_driver(host: Host, rows: tuple[GpuRow, ...], answer: Answer) -> Found:
    """The cards that the driver named, as a program started here sees them, and what is unknown about them."""
    accelerators: list[Accelerator] = []
    problems = list(answer.problems)
    for card in answer.cards:
        row = _row_of(rows, card)
        whole = accelerator_of(host, card, row)
        if card.mig:
            accelerators += [replace(whole, usable=False), *instances_of(card, row, whole)]
        else:
            accelerators.append(whole)
        problems += _problems_of(card, row, whole)
    kept, hidden = visible(host, accelerators)
    evidence = tuple(card_evidence(card, answer.source) for card in kept)
    return Found(accelerators=tuple(kept), problems=(*problems, *hidden), evidence=evidence)


def card_evidence(card: Accelerator, source: str) -> Evidence:
    """Name, memory and bandwidth of a card, and who told."""
    rate = f", {format_rate(card.pool.bandwidth.per_s)}" if card.pool.bandwidth else ""
    driver = f" (driver {card.driver})" if card.driver else ""
    return Evidence("gpu.nvidia", f"{card.name}, {format_bytes(card.pool.total_bytes)}{rate}", f"{source}{driver}")


def _row_of(rows: tuple[GpuRow, ...], card: Card) -> GpuRow | None:
    virtual = _VGPU_NAME.match(card.name)
    return find_gpu(
        rows,
        pci_id=card.pci_id,
        name=f"NVIDIA {virtual['card']}" if virtual else card.name,
        memory_bytes=None if virtual or card.vgpu else card.total_bytes,
        bandwidth_per_s=_rate_by_clock(card.memory_mhz, card.bus_bits),
    )


def accelerator_of(host: Host, card: Card, row: GpuRow | None) -> Accelerator:
    """A whole card, or a chip whose GPU uses the system's memory."""
    virtual = _VGPU_NAME.match(card.name)
    unified = row is not None and row.unified
    pool = _unified_pool(host, row) if row and unified else own_pool(card, row)
    capability = card.compute_capability or (row.compute_capability if row else None)
    return Accelerator(
        index=0,
        name=card.name or (row.name if row else "NVIDIA GPU"),
        vendor=Vendor.NVIDIA,
        pool=pool,
        unified=unified,
        backends=backends_of(Vendor.NVIDIA, None, capability),
        architecture=row.architecture if row else None,
        form=row.form if row else None,
        compute=row.compute if row else {},
        compute_capability=capability,
        cores=row.cores if row else None,
        link=_link(card, row),
        partition=virtual["profile"] if virtual else None,
        driver=card.driver,
        pci_id=card.pci_id,
        uuid=card.uuid,
        catalog_name=row.name if row else None,
        usable=pool.total_bytes > 0,
    )


def own_pool(card: Card, row: GpuRow | None) -> Pool:
    """Memory of the card's own; what the table says where the driver does not."""
    total = card.total_bytes or (row.memory_bytes if row else None) or 0
    free = None if card.free_bytes is None else min(card.free_bytes, total)
    usable = max(0, total - (card.reserved_bytes or 0)) if free is None else free
    return Pool(total, free, usable, _bandwidth(card, row))


def _unified_pool(host: Host, row: GpuRow) -> Pool:
    """The system's memory, at the speed at which the GPU reads it."""
    from fitcheck.probe.limits import read_confinement
    from fitcheck.probe.ram import read_ram

    memory = read_ram(host, read_confinement(host)).ram
    rate = _tabled(row)
    if memory is None:
        return Pool(0, None, 0, rate)
    return Pool(memory.total_bytes, memory.free_bytes, memory.usable_bytes, rate)


def _rate_by_clock(memory_mhz: int | None, bus_bits: int | None) -> float | None:
    """Bytes/s: every wire carries two bits per cycle of the clock that the driver reports, whatever the memory."""
    return memory_mhz * 1e6 * 2 * bus_bits / 8 if memory_mhz and bus_bits else None


def _bandwidth(card: Card, row: GpuRow | None) -> Rate | None:
    width = card.bus_bits or (row.bus_bits if row else None)
    by_clock = _rate_by_clock(card.memory_mhz, width)
    in_table = row.bandwidth_per_s if row else None
    if by_clock and (not in_table or 1 / _PLAUSIBLE_FACTOR < by_clock / in_table < _PLAUSIBLE_FACTOR):
        return Rate(by_clock, Origin.REPORTED, f"{card.memory_mhz} MHz x 2 x {width} bit")
    return _tabled(row) if row else None


def _tabled(row: GpuRow) -> Rate:
    return Rate(row.bandwidth_per_s, Origin.CATALOG, f"table of GPUs: {row.name}")


def _link(card: Card, row: GpuRow | None) -> Link | None:
    if row is not None and row.unified:
        return Link("on-chip")
    if card.pcie_generation and card.pcie_width:
        return pcie_link(card.pcie_generation, card.pcie_width)
    return row.link if row else None


def _problems_of(card: Card, row: GpuRow | None, whole: Accelerator) -> Iterator[Problem]:
    if not card.name and not card.total_bytes:
        yield Problem("nvidia", "a GPU does not answer", "restart the machine; look into dmesg for Xid errors")
        return
    if row is None:
        yield Problem(
            "nvidia",
            f"{whole.name} is not in the table of GPUs: its computing speed is not known",
            "memory and bandwidth come from the driver; give --bandwidth if it is missing",
        )
    if card.total_bytes is None and not whole.unified:
        known = "the table's size is used" if whole.pool.total_bytes else "give --vram, such as --vram 24GiB"
        yield Problem("nvidia", f"the driver does not tell the memory of {whole.name}", known)
