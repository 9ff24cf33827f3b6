"""What a model needs to keep in memory, layer by layer, before it is placed; and what a placement puts where.

The same numbers make the quick answer (their sums) and the full one (``Term``s). Sizes follow llama.cpp's rules for
each kind of memory: tensors are padded to 32 bytes on the host and 128 on a GPU, quantised rows to 512 elements there.
"""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate

from msgspec import Struct

from fitcheck.estimate.cache import CacheSettings, layer_cache_bytes
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.stored import Bytes, Stored
from fitcheck.estimate.tensors import PLAIN, Layout
from fitcheck.types import Shape


class LayerLoad(Struct, frozen=True, gc=False):
    """Bytes of one layer in one kind of memory: weights without routed experts, routed experts, KV cache, recurrent
    state. ``has_experts``: 1 or 0.
    """

    dense: int
    experts: int
    kv: int
    state: int
    has_experts: int


NO_LAYERS = LayerLoad(0, 0, 0, 0, 0)


class Side:
    """A model's layers in one kind of memory: ``letters`` name for each layer which of ``kinds`` it is, ``all_layers``
    is their sum.
    """

    def __init__(self, kinds: list[tuple[str, LayerLoad]], letters: str) -> None:
        self.kinds = kinds
        self.letters = letters
        self.all_layers = self._sum(0, len(letters))

    @cached_property
    def running_sums(self) -> tuple[list[int], list[int]]:
        """Bytes of the first n layers, by n: all, and of these the routed experts."""
        whole = {letter: kind.dense + kind.experts + kind.kv + kind.state for letter, kind in self.kinds}
        experts = {letter: kind.experts for letter, kind in self.kinds}
        return (
            list(accumulate(map(whole.__getitem__, self.letters), initial=0)),
            list(accumulate(map(experts.__getitem__, self.letters), initial=0)),
        )

    def layers(self, first: int, last: int) -> LayerLoad:
        """The sum over layers [first, last)."""
        if first == last:
            return NO_LAYERS
        return self.all_layers if last - first == len(self.letters) else self._sum(first, last)

    def _sum(self, first: int, last: int) -> LayerLoad:
        dense = experts = kv = state = with_experts = 0
        for letter, kind in self.kinds:
            count = self.letters.count(letter, first, last)
            dense += count * kind.dense
            experts += count * kind.experts
            kv += count * kind.kv
            state += count * kind.state
            with_experts += count * kind.has_experts
        return LayerLoad(dense, experts, kv, state, with_experts)


class Need(Struct, frozen=True):
    """Bytes that a placement needs on (host, first GPU, …), by part; ``expert_layers``: whose experts lie there."""

    weights: tuple[int, ...]
    kv: tuple[int, ...]
    state: tuple[int, ...]
    expert_layers: tuple[int, ...]


class Load:
    """What one model needs to keep in memory in one quantisation and context, before it is placed.

    ``host`` and ``gpu``: its layers in either memory. ``embedding`` and looked-up tables are read by rows and always
    stay on the host; ``output`` is the output matrix with what lies beside it, ``beside_output`` that without it.
    ``least_of_layers``: bytes that they need at least, whatever the device. ``second_copy``: the output is its own copy
    even where the embedding lies on the same device. ``loops``: how often the stack is run; the engine counts its
    layers anew each time.
    """

    def __init__(self, host: Side, gpu: Side, stored: Stored, loops: int = 1) -> None:
        self.host = host
        self.gpu = gpu
        self.loops = loops
        body = host.all_layers
        self.least_of_layers = body.dense + body.experts + body.kv + body.state
        self.n_layers = len(stored.layers)
        self.prediction_layers = stored.prediction_layers
        self.embedding = stored.embedding.host + stored.tables.host
        self.output = stored.head.plus(stored.beside_output)
        self.beside_output = stored.beside_output
        self.first_layer = stored.first_layer
        self.each_device = stored.each_device
        self.second_copy = stored.output_first or not stored.tied
        self.has_experts = body.has_experts > 0

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
    host, gpu = [], []
    for number, kind in enumerate(stored.kinds):
        letter = chr(97 + number)
        mixer, ffn, experts = kind.mixer, kind.ffn, kind.experts
        host_kv, gpu_kv, state = caches[kind.kind]
        has_experts = 1 if experts.file else 0
        host.append((letter, LayerLoad(mixer.host + ffn.host, experts.host, host_kv, state, has_experts)))
        gpu.append((letter, LayerLoad(mixer.gpu + ffn.gpu, experts.gpu, gpu_kv, state, has_experts)))
    return Load(Side(host, stored.layers), Side(gpu, stored.layers), stored, loops)


def need_of(load: Load, ends: tuple[int, ...], output: int, cpu_expert_layers: int = 0) -> Need:
    """Weights, caches and states per device.

    ``ends``: device i holds the layers from ``ends[i - 1]`` (0 for the host, device 0) up to ``ends[i]``; ``output`` is
    the device of the output matrix. The first ``cpu_expert_layers`` layers keep their routed experts on the host.
    """
    weights, kv, state, expert_layers = [], [], [], []
    first = 0
    for device, last in enumerate(ends):
        side = load.gpu if device else load.host
        part = side.layers(first, last)
        away = side.layers(first, min(last, cpu_expert_layers)) if first < cpu_expert_layers else NO_LAYERS
        shared = _on(load.each_device, device) if last > first else 0
        beside = _on(load.first_layer, device) if first == 0 and last > 0 else 0
        weights.append(part.dense + part.experts - away.experts + shared + beside)
        kv.append(part.kv)
        state.append(part.state)
        expert_layers.append(part.has_experts - away.has_experts)
        first = last
    on_host = load.host.layers(0, cpu_expert_layers)
    weights[0] += on_host.experts + load.embedding
    expert_layers[0] += on_host.has_experts
    weights[output] += _on(load.output if output or load.second_copy else load.beside_output, output)
    return Need(tuple(weights), tuple(kv), tuple(state), tuple(expert_layers))


def gpus_hold(load: Load, ends: tuple[int, ...], output: int, cpu_expert_layers: int, room: tuple[int, ...]) -> bool:
    """Whether each GPU has room for its share of weights, caches and states: ``need_of`` for GPUs alone, without the
    parts. ``room`` in bytes, first GPU first.
    """
    whole, experts = load.gpu.running_sums
    for device in range(1, len(ends)):
        first, last = ends[device - 1], ends[device]
        need = whole[last] - whole[first]
        if first < cpu_expert_layers:
            need -= experts[min(last, cpu_expert_layers)] - experts[first]
        need += load.each_device.gpu if last > first else 0
        need += load.first_layer.gpu if first == 0 and last > 0 else 0
        need += load.output.gpu if device == output else 0
        if need > room[device - 1]:
            return False
    return True


def _on(size: Bytes, device: int) -> int:
    return size.gpu if device else size.host
