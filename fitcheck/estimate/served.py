"""What a runtime makes of a machine's cards: each has the backends that the runtime's own builds serve on it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from fitcheck.estimate.runtimes import Runtime
from fitcheck.types import Accelerator, Backend, Machine

_NAMES = {
    Backend.CUDA: "CUDA",
    Backend.ROCM: "ROCm",
    Backend.VULKAN: "Vulkan",
    Backend.SYCL: "SYCL",
    Backend.METAL: "Metal",
}


def as_served(found: tuple[Accelerator, ...], system: str, row: Runtime) -> tuple[Accelerator, ...]:
    """The cards, each with its backends narrowed to those that the runtime serves; themselves where it serves all."""
    cards = tuple([_narrowed(card, system, row) for card in found])
    return found if cards == found else cards


def _narrowed(card: Accelerator, system: str, row: Runtime) -> Accelerator:
    served = tuple([backend for backend in card.backends if row.serves(backend, card, system)])
    return card if served == card.backends else replace(card, backends=served)


def detours(machine: Machine, name: str, row: Runtime) -> Iterator[str]:
    """Cards that the runtime does not drive as their vendor would have it, for people."""
    for card in machine.accelerators:
        best = next((backend for backend in card.backends if backend in row.backends), None)
        if not card.usable or best is None or row.serves(best, card, machine.os):
            continue
        target = card.gfx_target or f"compute capability {card.compute_capability}"
        served = _narrowed(card, machine.os, row).backends
        instead = f"it takes {name_of(served[0])}" if served else "it leaves the card alone"
        yield f"{name} has no {name_of(best)} for {target} ({card.name}): {instead}"


def name_of(backend: Backend) -> str:
    """A backend as people and llama.cpp's devices spell it."""
    return _NAMES.get(backend, backend.value)
