"""Memory that a process shows beyond what the engine asked for: pages of the model file, copies of weights.

With mmap, weights in RAM are pages of the file: they count as resident, and the system may drop and read them again.
Weights that the CPU backend rearranges (llama.cpp repacks Q4_0, Q4_K, IQ4_NL and others, by processor) live in a copy
of their own, beside those pages. Source: ``src/llama-mmap.cpp``, ``ggml/src/ggml-cpu/repack.cpp`` of llama.cpp 0c1e570.
"""

from __future__ import annotations

from typing import NamedTuple

from fitcheck.estimate.placement import Use


class Resident(NamedTuple):
    """Physical memory of a process in bytes while it makes tokens.

    ``least``: weights once, those of encoders too, caches and states; ``most``: everything the engine allocates, and a
    second copy of weights; ``reclaimable``: how much of ``most`` are pages of the file, which the system can take back.
    """

    least: int
    most: int
    reclaimable: int


def resident(host: Use, mmap: bool) -> Resident:
    """What the host's part of a placement shows as resident memory, without and with everything touched."""
    parts = host.parts
    least = parts.weights + parts.kv + parts.state + parts.projector
    pages = parts.weights if mmap else 0
    return Resident(least, host.need + pages, pages)
