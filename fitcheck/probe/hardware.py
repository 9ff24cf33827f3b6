"""What is known about GPUs and processors by name: the tables in fitcheck/data and the ways to find a row.

A probed card is found by its PCI id first, then by the exact name that the driver prints, and rows that share both (an
RTX 3080 with 10 or 12 GB) are told apart by memory, cores and bandwidth. Never by a part of a name: an RTX A1000 is not
an A100. A card without a row is no error: everything that the driver says about it still holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from fitcheck.types import Backend, Link, Vendor

GIB = 1024**3
MIB = 1024**2

_DATA = Path(__file__).parent.parent / "data"


class GpuRow(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of gpus.json; the file says what each field means. ``tflops``: dense peak by dtype, in 10^12 (FL)OP/s."""

    name: str
    vendor: Vendor
    architecture: str
    form: str
    memory_type: str
    bandwidth_gbs: float
    source: str
    memory_gib: float | None = None
    memory_options_gib: tuple[float, ...] = ()
    reported_mib: int | None = None
    unified: bool = False
    bus_bits: int | None = None
    rate_gbps: float | None = None
    cores: int | None = None
    tflops: dict[str, float] = {}
    compute_capability: str | None = None
    gfx_target: str | None = None
    pcie: str | None = None
    tdp_w: int | None = None
    launch: str | None = None
    pci_ids: tuple[str, ...] = ()
    driver_names: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    rare: bool = False
    note: str = ""
    unverified: str = ""

    @property
    def compute(self) -> dict[str, float]:
        """Dense peaks in FLOP/s (OP/s) by dtype, as ``Accelerator.compute`` holds them."""
        return {dtype: round(tera * 1e12) * 1.0 for dtype, tera in self.tflops.items()}

    @property
    def bandwidth_per_s(self) -> float:
        """Peak memory bandwidth in bytes/s."""
        return self.bandwidth_gbs * 1e9

    @property
    def memory_bytes(self) -> int | None:
        """What the driver reports where that is known, else the nominal size; None where system memory is used."""
        if self.reported_mib is not None:
            return self.reported_mib * MIB
        return None if self.memory_gib is None else int(self.memory_gib * GIB)

    @property
    def link(self) -> Link | None:
        """The widest link that the card is made for."""
        if self.unified:
            return Link("on-chip")
        if self.pcie is None:
            return None
        generation, _, width = self.pcie.partition(".0 x")
        return pcie_link(int(generation), int(width))

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The engines' backends that this card can serve, best first."""
        return backends_of(self.vendor, self.gfx_target, self.compute_capability)


class GpuTable(Struct, frozen=True, forbid_unknown_fields=True):
    """fitcheck/data/gpus.json."""

    date: str
    about: str
    sources: dict[str, str]
    gpus: tuple[GpuRow, ...]


def load_gpus() -> tuple[GpuRow, ...]:
    """Read gpus.json, about 4 ms: only where there is a GPU to name."""
    return msgspec.json.decode((_DATA / "gpus.json").read_bytes(), type=GpuTable).gpus


def find_gpu(
    rows: Iterable[GpuRow] | None = None,
    *,
    pci_id: str | None = None,
    revision: str | None = None,
    name: str | None = None,
    memory_bytes: int | None = None,
    cores: int | None = None,
    bandwidth_per_s: float | None = None,
) -> GpuRow | None:
    """The row of a probed card, None if unknown.

    ``pci_id`` is "10de:2684", ``revision`` "c8"; ``name`` what the driver prints. ``rows`` is ``load_gpus()``, for who
    looks up more than one card.
    """
    known = load_gpus() if rows is None else rows
    by_id, by_name = _with_pci_id(known, pci_id, revision), _with_driver_name(known, name)
    both = [row for row in by_id if row in by_name]
    candidates = both or by_id or by_name
    if not candidates:
        return None

    def mismatch(row: GpuRow) -> tuple[bool, bool, bool, bool]:
        return (
            not _memory_agrees(row, memory_bytes),
            cores is not None and row.cores is not None and row.cores != cores,
            bandwidth_per_s is not None and abs(row.bandwidth_per_s / bandwidth_per_s - 1) > 0.05,
            row.rare or (row.form == "laptop" and not by_id),
        )

    return min(candidates, key=mismatch)


def _with_pci_id(rows: Iterable[GpuRow], pci_id: str | None, revision: str | None) -> list[GpuRow]:
    if not pci_id:
        return []
    wanted = pci_id.lower()
    if revision:
        exact = [row for row in rows if f"{wanted}:{revision.lower()}" in row.pci_ids]
        if exact:
            return exact
    return [row for row in rows if wanted in row.pci_ids]


def _with_driver_name(rows: Iterable[GpuRow], name: str | None) -> list[GpuRow]:
    """Rows whose driver prints this name; the folded comparison only where no name is literally the same."""
    if not name:
        return []
    literal = [row for row in rows if name in (row.driver_names or (row.name,))]
    if literal:
        return literal
    wanted = fold_name(name)
    if not wanted:
        return []
    return [row for row in rows if any(fold_name(known) == wanted for known in row.driver_names or (row.name,))] or [
        row for row in rows if fold_name(row.name) == wanted
    ]


def _memory_agrees(row: GpuRow, memory_bytes: int | None) -> bool:
    """Drivers report up to 10 % less than the data sheet (ECC, reserved by firmware), never more than 1 % more."""
    if memory_bytes is None:
        return True
    if row.memory_gib is None:
        return not row.memory_options_gib or any(
            0.85 * size <= memory_bytes / GIB <= 1.01 * size for size in row.memory_options_gib
        )
    return 0.88 * row.memory_gib <= memory_bytes / GIB <= 1.01 * row.memory_gib


_MARKS = re.compile(r"\((?:r|tm|c)\)|[®™©]|^(?:nvidia|amd|ati|intel|qualcomm)\b|\b(?:corporation|gpu|graphics)\b")
_BLANKS = re.compile(r"[^a-z0-9+]+")


def fold_name(name: str) -> str:
    """A driver's name without case, trademark signs, maker and blanks: ``NVIDIA GeForce RTX 4090`` and ``GeForce RTX
    4090`` are the same name."""
    lower = _MARKS.sub(" ", name.lower().strip()[:200]).strip()
    return _BLANKS.sub("", _MARKS.sub(" ", lower))


_PCIE_LANE_BYTES_PER_S = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}


def pcie_link(generation: int | None, width: int | None) -> Link:
    """A PCIe link: bytes/s in one direction after line coding."""
    lane = _PCIE_LANE_BYTES_PER_S.get(generation or 0)
    return Link("pcie", generation, width, lane * width if lane and width else None)


_ROCM_TARGETS = ("gfx900", "gfx906", "gfx908", "gfx90a", "gfx94", "gfx95", "gfx103", "gfx110", "gfx115", "gfx120")


def backends_of(vendor: Vendor, gfx_target: str | None, compute_capability: str | None) -> tuple[Backend, ...]:
    """Which backends of llama.cpp and its kin serve a card, best first (CUDA 12 needs 5.0, ROCm 6 the gfx targets)."""
    if vendor is Vendor.NVIDIA:
        old = compute_capability is not None and float(compute_capability) < 5.0
        return (Backend.VULKAN,) if old else (Backend.CUDA, Backend.VULKAN)
    if vendor is Vendor.AMD:
        on_rocm = gfx_target is not None and gfx_target.startswith(_ROCM_TARGETS)
        return (Backend.ROCM, Backend.VULKAN) if on_rocm else (Backend.VULKAN,)
    if vendor is Vendor.INTEL:
        return (Backend.VULKAN, Backend.SYCL)
    return (Backend.METAL,) if vendor is Vendor.APPLE else (Backend.VULKAN,)
