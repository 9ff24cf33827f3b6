"""Which layers, experts and caches go on which device.

The rule is llama.cpp's own (``common/fit.cpp``): everything on the GPUs when it fits with the margin; else, for a
mixture of experts, all layers on the GPU and the routed experts of as few layers as possible in RAM; else as many whole
layers as fit; else the CPU alone. Several GPUs get layers in proportion to their free memory.
"""

from __future__ import annotations

from msgspec import Struct

from fitcheck.estimate.memory import Load
from fitcheck.types import Accelerator, Backend, Machine, PlacementKind


class Device(Struct, frozen=True):
    """A GPU that the runtime can use, as the placement sees it. ``overhead_bytes`` are taken before anything else."""

    name: str  # gpu0, gpu1, …
    have_bytes: int
    overhead_bytes: int
    backend: Backend
    card: Accelerator


class Split(Struct, frozen=True):
    """A placement in the engine's terms.

    ``gpu_layers``: how many layers, counted from the last, lie on GPUs (``-ngl``; one more than layers: the output
    matrix too); ``cpu_expert_layers``: so many layers from the first keep their experts in RAM (``--n-cpu-moe``);
    ``layer_devices``: 0 the host, 1 the first GPU, …, per layer and once more for the output.
    """

    kind: PlacementKind
    gpu_layers: int
    cpu_expert_layers: int
    layer_devices: tuple[int, ...]


class Need(Struct, frozen=True):
    """Bytes that a split needs on (host, first GPU, …), by part."""

    weights: tuple[int, ...]
    kv: tuple[int, ...]
    state: tuple[int, ...]
    experts: tuple[int, ...]  # layers whose experts are on the device


def gpu_devices(machine: Machine, backends: tuple[Backend, ...], overheads: dict[str, int]) -> tuple[Device, ...]:
    """The accelerators that count: usable, with a backend of the runtime."""
    devices = []
    for card in machine.accelerators:
        backend = next((b for b in card.backends if b in backends), None)
        if card.usable and backend is not None:
            name = f"gpu{card.index}"
            devices.append(Device(name, card.pool.usable_bytes, overheads[backend.value], backend, card))
    return tuple(devices)


def split_layers(n_layers: int, gpu_layers: int, shares: tuple[int, ...]) -> tuple[int, ...]:
    """Device of each layer and of the output: llama.cpp's layer split of the last ``gpu_layers`` by ``shares``."""
    first = max(n_layers + 1 - gpu_layers, 0)
    total = sum(shares)
    ends = []
    running = 0
    for share in shares:
        running += share
        ends.append(running / total if total else 1.0)
    devices = [0] * min(first, n_layers + 1)
    on_gpu = n_layers + 1 - first
    device = 0
    for index in range(on_gpu):
        while device < len(ends) - 1 and index / on_gpu >= ends[device]:
            device += 1
        devices.append(1 + device)
    return tuple(devices)


def need_of(load: Load, split: Split) -> Need:
    """Weights, caches and states of a split, per device."""
    n = max(split.layer_devices, default=0) + 1
    weights, kv, state, experts = [0] * n, [0] * n, [0] * n, [0] * n
    for index, layer in enumerate(load.layers):
        device = split.layer_devices[index]
        weights[device] += layer.dense
        kv[device] += layer.kv
        state[device] += layer.state
        home = 0 if index < split.cpu_expert_layers else device
        weights[home] += layer.experts
        experts[home] += 1 if layer.experts else 0
    output = split.layer_devices[-1]
    weights[0] += load.embedding
    if output or not load.head_shared:
        weights[output] += load.head
    return Need(tuple(weights), tuple(kv), tuple(state), tuple(experts))


def cpu_split(n_layers: int) -> Split:
    """Everything on the host."""
    return Split(PlacementKind.CPU, 0, 0, (0,) * (n_layers + 1))


def gpu_split(n_layers: int, devices: tuple[Device, ...]) -> Split:
    """Everything on the GPUs, layers in proportion to what each can hold."""
    shares = tuple(max(device.have_bytes - device.overhead_bytes, 0) for device in devices)
    return Split(PlacementKind.GPU, n_layers + 1, 0, split_layers(n_layers, n_layers + 1, shares))
