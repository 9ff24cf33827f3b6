"""Jetson: boards whose GPU shares the memory, known by the device tree."""

from __future__ import annotations

import re

from fitcheck.probe.hardware import GpuRow
from fitcheck.probe.host import Found, Host, clean
from fitcheck.probe.nvidia.cards import accelerator_of, card_evidence
from fitcheck.probe.nvidia.smi import Card
from fitcheck.types import Problem, Vendor


def jetson_board(host: Host) -> str:
    """The board's name, such as ``NVIDIA Jetson AGX Orin Developer Kit``; empty on anything else."""
    compatible = host.read_text("/proc/device-tree/compatible", 4096) or ""
    board = clean((host.read_text("/proc/device-tree/model", 256) or "").replace("\0", " "))
    return (board or "NVIDIA Jetson") if "nvidia,tegra" in compatible or "Jetson" in board else ""


def jetson(host: Host, rows: tuple[GpuRow, ...], board: str) -> Found:
    """The GPU of a Jetson: the row is the board's, told apart by the size of its memory."""
    from fitcheck.probe.limits import read_confinement
    from fitcheck.probe.ram import read_ram

    memory = read_ram(host, read_confinement(host)).ram
    row = _jetson_row(rows, board, memory.total_bytes if memory else 0)
    name = row.name if row else board
    if row is None:
        unknown = Problem("nvidia", f"{board} is not in the table of GPUs", "give --bandwidth, such as 102GB/s")
        return Found(problems=(unknown,))
    release = re.search(r"# R(\d{2})", host.read_text("/etc/nv_tegra_release", 1024) or "")
    card = Card(name=name, driver=f"L4T {release[1]}" if release else None)
    whole = accelerator_of(host, card, row)
    return Found(accelerators=(whole,), evidence=(card_evidence(whole, "/proc/device-tree/model"),))


def _jetson_row(rows: tuple[GpuRow, ...], board: str, ram_bytes: int) -> GpuRow | None:
    """The row whose name shares most words with the board's and whose memory is the nearest above what Linux sees."""
    words = set(re.findall(r"[a-z0-9]+", board.lower()))

    def distance(row: GpuRow) -> tuple[int, float]:
        shared = len(words & set(re.findall(r"[a-z]+|\d+(?!\d*gb)", row.name.lower())))
        sizes = [abs(size * 1024**3 - ram_bytes) for size in row.memory_options_gib] or [0.0]
        return -shared, min(sizes)

    boards = [row for row in rows if row.vendor is Vendor.NVIDIA and row.unified and row.name.startswith("Jetson")]
    return min(boards, key=distance, default=None)
