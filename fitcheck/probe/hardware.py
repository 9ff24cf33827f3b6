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
_LEAST_CHIP_TFLOPS = 2.0  # fp16; 8 cores with AVX2 reach about 1
TOO_SLOW = "is slower than the processor beside it"


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
    def helps(self) -> bool:
        """Whether engines gain by it: a small GPU on a chip computes less than the cores beside it, and reads the same
        memory."""
        return not self.unified or self.tflops.get("fp16", 0.0) >= _LEAST_CHIP_TFLOPS or self.vendor is Vendor.NVIDIA

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


#: Transfers per wire and memory clock cycle, as AMD's kernel driver counts the clock, by type of memory.
TRANSFERS_PER_CLOCK = {
    "GDDR5": 4, "GDDR6": 16, "HBM": 2, "HBM2": 2, "HBM2e": 2, "HBM3": 4, "HBM3e": 4,
    "DDR4": 2, "DDR5": 2, "LPDDR4": 2, "LPDDR4X": 2, "LPDDR5": 8, "LPDDR5X": 8,
}  # fmt: skip


def find_gpu(
    rows: Iterable[GpuRow] | None = None,
    *,
    pci_id: str | None = None,
    revision: str | None = None,
    name: str | None = None,
    memory_bytes: int | None = None,
    cores: int | None = None,
    bandwidth_per_s: float | None = None,
    memory_mhz: int | None = None,
) -> GpuRow | None:
    """The row of a probed card, None if unknown.

    ``pci_id`` is "10de:2684", ``revision`` "c8"; ``name`` what the driver prints; ``memory_mhz`` the clock that AMD's
    driver reports. Of rows that agree equally well the fastest. ``rows`` is ``load_gpus()``, for who looks up more
    than one card.
    """
    known = tuple(load_gpus() if rows is None else rows)
    by_id, by_name = _with_pci_id(known, pci_id, revision), _with_driver_name(known, name)
    candidates = [row for row in by_id if row in by_name] or by_id or by_name
    if not candidates:
        return None

    def mismatch(row: GpuRow) -> tuple[bool | float, ...]:
        return (
            not _memory_agrees(row, memory_bytes),
            cores is not None and row.cores is not None and row.cores != cores,
            bandwidth_per_s is not None and abs(row.bandwidth_per_s / bandwidth_per_s - 1) > 0.05,
            not _clock_agrees(row, memory_mhz),
            row.rare or (row.form == "laptop" and not by_id),
            -row.tflops.get("fp16", 0.0),
        )

    return min(candidates, key=mismatch)


def _with_pci_id(rows: tuple[GpuRow, ...], pci_id: str | None, revision: str | None) -> list[GpuRow]:
    """Rows of a PCI id, with those of the same driver name whose own ids nobody wrote down."""
    if not pci_id:
        return []
    wanted = pci_id.lower()
    found = [row for row in rows if f"{wanted}:{(revision or 'none').lower()}" in row.pci_ids]
    found = found or [row for row in rows if wanted in row.pci_ids]
    names = {name for row in found for name in row.driver_names or (row.name,)}
    return found + [row for row in rows if not row.pci_ids and names.intersection(row.driver_names)]


def _with_driver_name(rows: tuple[GpuRow, ...], name: str | None) -> list[GpuRow]:
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


def _clock_agrees(row: GpuRow, memory_mhz: int | None) -> bool:
    transfers = TRANSFERS_PER_CLOCK.get(row.memory_type)
    if memory_mhz is None or row.rate_gbps is None or transfers is None or row.unified:
        return True
    return abs(memory_mhz * transfers / 1000 / row.rate_gbps - 1) <= 0.03


_MARKS = r"\((?:r|tm|c)\)|[®™©]|^(?:nvidia|amd|ati|intel|qualcomm)\b|\b(?:corporation|gpu|graphics)\b"
_BLANKS = r"[^a-z0-9+]+"


def fold_name(name: str) -> str:
    """A driver's name without case, trademark signs, maker and blanks: ``NVIDIA GeForce RTX 4090`` and ``GeForce RTX
    4090`` are the same name."""
    lower = re.sub(_MARKS, " ", name.lower().strip()[:200]).strip()
    return re.sub(_BLANKS, "", re.sub(_MARKS, " ", lower))


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


# --------------------------------------------------------------------------------------------------------------------
# Processors


class CpuRow(Struct, frozen=True, forbid_unknown_fields=True):
    """One platform of cpus.json; the file says what each field means."""

    name: str
    pattern: str
    vendor: Vendor
    arch: str
    kind: str
    channels: int
    channel_bits: int
    memory_type: str
    rate_mts: int
    features: tuple[str, ...]
    cores: dict[str, int | tuple[int, int]]
    default_cores: int | tuple[int, int]
    threads_per_core: int
    aliases: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    ram_gib: float | None = None
    note: str = ""
    unverified: str = ""

    @property
    def bandwidth_per_s(self) -> float:
        """Peak memory bandwidth of one socket in bytes/s, every channel filled at the highest official rate."""
        return self.channels * self.channel_bits / 8 * self.rate_mts * 1e6


class CpuTable(Struct, frozen=True, forbid_unknown_fields=True):
    """fitcheck/data/cpus.json."""

    date: str
    about: str
    source: str
    platforms: tuple[CpuRow, ...]


class Processor(Struct, frozen=True):
    """A processor: its name as asked for, its platform and core counts. ``known`` is False where the model is not in
    the row and the counts are those of its usual model."""

    name: str
    row: CpuRow
    performance_cores: int
    efficiency_cores: int
    known: bool

    @property
    def physical_cores(self) -> int:
        """All cores of one socket."""
        return self.performance_cores + self.efficiency_cores

    @property
    def logical_cpus(self) -> int:
        """Logical CPUs of one socket: efficiency cores run one thread each."""
        return self.performance_cores * self.row.threads_per_core + self.efficiency_cores


def load_cpus() -> CpuTable:
    """Read cpus.json, about 1 ms."""
    return msgspec.json.decode((_DATA / "cpus.json").read_bytes(), type=CpuTable)


def find_cpu(name: str, table: CpuTable | None = None) -> Processor | None:
    """The platform of a processor by its brand string, board or Arm core name; None if unknown.

    ``"12th Gen Intel(R) Core(TM) i7-12700K"``, ``"AMD EPYC 9654 96-Core Processor"``, ``"Raspberry Pi 5 Model B"``.
    """
    wanted = fold_cpu_name(name)
    if not wanted:
        return None
    for row in (load_cpus() if table is None else table).platforms:
        match = re.fullmatch(row.pattern, wanted)
        if match is not None:
            model = next((group for group in match.groups() if group), "")
            return processor_of(row, model, name)
        if wanted in row.aliases:
            return processor_of(row, wanted, name)
    return None


def processor_of(row: CpuRow, model: str, name: str = "") -> Processor:
    """A platform's processor: ``model`` is a key of its ``cores`` (Intel's plus may be left out); else its usual one.
    ``name``: as asked for."""
    found = row.cores.get(model) or row.cores.get(f"{model}+")
    cores = row.default_cores if found is None else found
    performance, efficiency = (cores, 0) if isinstance(cores, int) else cores
    known = not model or not row.cores or found is not None
    return Processor(name.strip() or row.name, row, performance, efficiency, known)


def processor_with_gpu(gpu: GpuRow, table: CpuTable) -> Processor | None:
    """The processor on the same chip as a GPU; portable ones first, because a chip's GPU is used there."""
    platforms = sorted((row for row in table.platforms if gpu.name in row.gpus), key=lambda row: row.kind == "desktop")
    return processor_of(platforms[0], gpu.name) if platforms else None


_CPU_NOISE = (
    r"\((?:r|tm|c)\)|[®™©]|\bw/.*|\bwith .*|@.*|\b\d\d?(?:st|nd|rd|th) gen\b|\bgenuine\b|\bcpus?\b|\bprocessor\b"
    r"|\b(?:\d+|dual|quad|six|eight|twelve|sixteen)[- ]cores?\b"
    r"|\b(?:amd|intel|qualcomm|huawei|hisilicon|google|mediatek|samsung|microsoft|aws|starfive|broadcom)\b|\(.*"
)
_CPU_LINKS = r"\b(i[3579]|m[357]|w[3579]|[we])\s+(?=\d)"


def fold_cpu_name(name: str) -> str:
    """A brand string in small letters without maker, clock, trademark signs and what follows "with"."""
    folded = " ".join(re.sub(_CPU_NOISE, " ", name.lower()[:200]).split())
    return re.sub(_CPU_LINKS, r"\1-", folded)
