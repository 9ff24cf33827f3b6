"""Apple: chips with unified memory under macOS, and under Linux."""

from __future__ import annotations

from math import log2

GIB = 1024**3
NEWEST_MACOS = 26


def working_set_bytes(ram_bytes: int, macos_major: int) -> int:
    """How much memory Metal recommends to use at most (recommendedMaxWorkingSetSize), where it cannot be asked.

    Up to macOS 15 two thirds up to 36 GiB, else three quarters; since macOS 26 from 74 % at 16 GiB to 84 % at 128 GiB
    (seen: 11.84 of 16, 107.52 of 128 GiB).
    """
    if macos_major < 26:
        return ram_bytes * 2 // 3 if ram_bytes <= 36 * GIB else ram_bytes * 3 // 4
    doublings = min(3.0, max(0.0, log2(max(1, ram_bytes) / (16 * GIB))))
    return int(ram_bytes * (0.74 + 0.1 * doublings / 3))
