"""What a model needs to keep in memory, layer by layer, before it is placed; and what a placement puts where.

The same numbers make the quick answer (their sums) and the full one (``Term``s). Sizes follow llama.cpp's rules for
each kind of memory: tensors are padded to 32 bytes on the host and 128 on a GPU, quantised rows to 512 elements there.
"""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate
from operator import mul
from typing import NamedTuple

from fitcheck.estimate.cache import CacheSettings, layer_cache_bytes
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.stored import Bytes, Stored
from fitcheck.estimate.tensors import PLAIN, Layout
from fitcheck.types import Shape


class LayerLoad(NamedTuple):
    """Bytes of one layer on the host and on a GPU: weights without routed experts, routed experts, KV cache, recurrent
    state. ``has_experts``: 1 or 0.
    """

    host_dense: int
    gpu_dense: int
    host_experts: int
    gpu_experts: int
    host_kv: int
    gpu_kv: int
    state: int
    has_experts: int


NO_LAYERS = LayerLoad(0, 0, 0, 0, 0, 0, 0, 0)


class Need(NamedTuple):
    """Bytes that a placement needs on (host, first GPU, …), by part; ``expert_layers``: whose experts lie there."""

    weights: tuple[int, ...]
    kv: tuple[int, ...]
    state: tuple[int, ...]
    expert_layers: tuple[int, ...]


class Load:
    """What one model needs to keep in memory in one quantisation and context, before it is placed.

    ``kinds`` and ``letters`` as in ``Stored``. ``embedding`` and looked-up tables are read by rows and always stay on
    the host; ``output`` is the output matrix with what lies beside it, ``beside_output`` that without the matrix.
    ``second_copy``: the output is its own copy even where the embedding lies on the same device. ``loops``: how often
    the stack is run; the engine counts its layers anew each time.
    """

    def __init__(self, kinds: tuple[LayerLoad, ...], stored: Stored, loops: int = 1) -> None:
        self.loops = loops
        self.kinds = kinds
        self.letters = stored.layers
        self.n_layers = len(stored.layers)
        self.prediction_layers = stored.prediction_layers
        self.embedding = stored.embedding.host + stored.tables.host
        self.output = stored.head.plus(stored.beside_output)
        self.beside_output = stored.beside_output
        self.first_layer = stored.first_layer
        self.each_device = stored.each_device
        self.second_copy = stored.output_first or not stored.tied
        self.has_experts = any(kind.has_experts for kind in kinds)

    @cached_property
    def _named(self) -> list[tuple[str, LayerLoad]]:
        """The kinds with their letters."""
        return [(chr(97 + index), kind) for index, kind in enumerate(self.kinds)]

    @cached_property
    def all_layers(self) -> LayerLoad:
        """The sum over all layers."""
        return self._sum(0, self.n_layers)

    @cached_property
    def gpu_sums(self) -> tuple[list[int], list[int]]:
        """Running sums of what layers take on a GPU: all but routed experts, and those."""
        rest = {letter: kind.gpu_dense + kind.gpu_kv + kind.state for letter, kind in self._named}
        experts = {letter: kind.gpu_experts for letter, kind in self._named}
        return (
            list(accumulate(map(rest.__getitem__, self.letters), initial=0)),
            list(accumulate(map(experts.__getitem__, self.letters), initial=0)),
        )

    def _sum(self, first: int, last: int) -> LayerLoad:
        counts = [self.letters.count(letter, first, last) for letter, _ in self._named]
        return LayerLoad._make([sum(map(mul, counts, column)) for column in zip(*self.kinds, strict=True)])

    def layers(self, first: int, last: int) -> LayerLoad:
        """The sum over layers [first, last)."""
        if first == last:
            return NO_LAYERS
        return self.all_layers if last - first == self.n_layers else self._sum(first, last)

    @cached_property
    def least_of_layers(self) -> int:
        """Bytes that the layers need at least, whatever the device."""
        body = self.all_layers
        return body.host_dense + body.host_experts + body.host_kv + body.state

    @property
    def least(self) -> int:
        """Bytes that any placement needs, whatever the device: with less there is no need to look further."""
        output = self.output if self.second_copy else self.beside_output
        return self.least_of_layers + self.embedding + output.host


Caches = tuple[tuple[int, int, int], ...]  # of each kind of layer: KV on the host, KV on a GPU, recurrent state


def caches_of(shape: Shape, settings: CacheSettings, table: Quantizations, layout: Layout = PLAIN) -> Caches:
    """What a context costs per kind of layer. A stack that is run several times has a cache per run."""
    found = []
    for kind in shape.kinds:
        host, gpu, state = layer_cache_bytes(kind, settings, shape.hidden_size, table, layout)
        found.append((shape.num_loops * host, shape.num_loops * gpu, shape.num_loops * state))
    return tuple(found)


def load_of(stored: Stored, caches: Caches, loops: int = 1) -> Load:
    """The load of a model in a quantisation and context; ``loops`` as in ``Load``."""
    kinds = []
    for kind in stored.kinds:
        experts = kind.experts
        dense = (kind.mixer.host + kind.ffn.host, kind.mixer.gpu + kind.ffn.gpu)
        has_experts = 1 if experts.file else 0
        kinds.append(LayerLoad(*dense, experts.host, experts.gpu, *caches[kind.kind], has_experts))
    return Load(tuple(kinds), stored, loops)


def need_of(load: Load, ends: tuple[int, ...], output: int, cpu_expert_layers: int = 0) -> Need:
    """Weights, caches and states per device.

    ``ends``: device i holds the layers from ``ends[i - 1]`` (0 for the host, device 0) up to ``ends[i]``; ``output`` is
    the device of the output matrix. The first ``cpu_expert_layers`` layers keep their routed experts on the host.
    """
    weights, kv, state, expert_layers = [], [], [], []
    on_host = load.layers(0, cpu_expert_layers) if cpu_expert_layers else None
    first = 0
    for device, last in enumerate(ends):
        part = load.layers(first, last)
        experts, count = (part.gpu_experts if device else part.host_experts), part.has_experts
        if on_host is not None:
            moved = load.layers(first, max(first, min(last, cpu_expert_layers)))
            experts -= moved.gpu_experts if device else moved.host_experts
            count -= moved.has_experts
        shared = _on(load.each_device, device) if last > first else 0
        beside = _on(load.first_layer, device) if first == 0 and last > 0 else 0
        weights.append((part.gpu_dense if device else part.host_dense) + experts + shared + beside)
        kv.append(part.gpu_kv if device else part.host_kv)
        state.append(part.state)
        expert_layers.append(count)
        first = last
    if on_host is not None:
        weights[0] += on_host.host_experts
        expert_layers[0] += on_host.has_experts
    weights[0] += load.embedding
    weights[output] += _on(load.output if output or load.second_copy else load.beside_output, output)
    return Need(tuple(weights), tuple(kv), tuple(state), tuple(expert_layers))


def gpus_hold(load: Load, ends: tuple[int, ...], output: int, cpu_expert_layers: int, room: tuple[int, ...]) -> bool:
    """Whether each GPU has room for its share of weights, caches and states: ``need_of`` for GPUs alone, without the
    parts. ``room`` in bytes, first GPU first.
    """
    rest, experts = load.gpu_sums
    for device in range(1, len(ends)):
        first, last = ends[device - 1], ends[device]
        need = rest[last] - rest[first]
        from_expert = max(first, min(last, cpu_expert_layers))
        need += experts[last] - experts[from_expert]
        need += load.each_device.gpu if last > first else 0
        need += load.first_layer.gpu if first == 0 and last > 0 else 0
        need += load.output.gpu if device == output else 0
        if need > room[device - 1]:
            return False
    return True


def _on(size: Bytes, device: int) -> int:
    return size.gpu if device else size.host
