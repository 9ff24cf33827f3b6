"""What a model needs to keep in memory, layer by layer, before it is placed; and what a placement puts where.

The same numbers make the quick answer (their sums) and the full one (``Term``s). Sizes follow llama.cpp's rules for
each kind of memory: tensors are padded to 32 bytes on the host and 128 on a GPU, quantised rows to 512 elements there.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import accumulate
from operator import mul

from msgspec import Struct

from fitcheck.estimate.cache import CacheForm, CacheSettings, cache_bytes
from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.stored import Bytes, Stored
from fitcheck.types import Shape


class Series:
    """A number of bytes (or another count) per layer. ``letters`` name for each layer which of ``values`` it has;
    ``total`` is the sum over all layers.
    """

    __slots__ = ("letters", "total", "values")

    def __init__(self, values: list[int], letters: str) -> None:
        self.values = values
        self.letters = letters
        self.total: int = sum(map(mul, values, layers_of_kinds(letters)))

    def over(self, first: int, last: int) -> int:
        """The sum over layers [first, last)."""
        if first == last or not self.total:
            return 0
        if last - first == len(self.letters):
            return self.total
        return sum(map(mul, self.values, layers_of_kinds(self.letters, first, last)))


def running_sums(values: list[int], letters: str) -> list[int]:
    """The sums over the first n layers, by n, of what a layer of each kind has."""
    return list(accumulate(map(values.__getitem__, _kind_numbers(letters)), initial=0))


@lru_cache(maxsize=1024)
def _kind_numbers(letters: str) -> tuple[int, ...]:
    return tuple([ord(letter) - 97 for letter in letters])


@lru_cache(maxsize=4096)
def layers_of_kinds(letters: str, first: int = 0, last: int | None = None) -> tuple[int, ...]:
    """How many of layers [first, last) each kind has, up to the last kind that has any."""
    here = letters[first:last]
    return tuple([here.count(chr(letter)) for letter in range(97, ord(max(here, default="`")) + 1)])


class LayerWeights:
    """Weights of a model's layers in one quantisation: in the host's memory and in a GPU's, all and of these the routed
    experts; ``expert_layers`` has 1 for a layer with experts. ``output``: the output matrix with what lies beside it.
    ``second_copy``: the output is its own copy even where the embedding lies on the same device.
    """

    def __init__(self, stored: Stored) -> None:
        host, gpu, host_experts, gpu_experts, expert_layers = [], [], [], [], []
        for kind in stored.kinds:
            mixer, ffn, experts = kind.mixer, kind.ffn, kind.experts
            host.append(mixer.host + ffn.host + experts.host)
            gpu.append(mixer.gpu + ffn.gpu + experts.gpu)
            host_experts.append(experts.host)
            gpu_experts.append(experts.gpu)
            expert_layers.append(1 if experts.file else 0)
        letters = stored.layers
        self.stored = stored
        self.host = Series(host, letters)
        self.gpu = Series(gpu, letters)
        self.expert_layers = Series(expert_layers, letters)
        self.host_experts = self.gpu_experts = self.expert_layers  # nothing, in every layer
        if self.expert_layers.total:
            self.host_experts = Series(host_experts, letters)
            self.gpu_experts = Series(gpu_experts, letters)
        self.embedding = stored.embedding.host + stored.tables.host
        self.output = stored.head.plus(stored.beside_output)
        self.second_copy = stored.output_first or not stored.tied
        self._placed: dict[tuple[object, ...], tuple[tuple[int, ...], tuple[int, ...]]] = {}

    @cached_property
    def running_experts(self) -> list[int]:
        """Bytes of the routed experts of the first n layers on GPUs, by n."""
        return running_sums(self.gpu_experts.values, self.stored.layers)

    def on(self, ends: tuple[int, ...], output: int, cpu_expert_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Bytes of a placement per device, and how many layers' experts of them, as ``need_of`` says it."""
        key = (ends, output, cpu_expert_layers)
        found = self._placed.get(key)
        if found is None:
            found = self._placed[key] = self._sums(*key)
        return found

    def _sums(
        self, ends: tuple[int, ...], output: int, cpu_expert_layers: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        stored = self.stored
        weights, expert_layers = [], []
        first = 0
        for device, last in enumerate(ends):
            size = with_experts = 0
            if last > first:
                size = (self.gpu if device else self.host).over(first, last) + _on(stored.each_device, device)
                size += 0 if first else _on(stored.first_layer, device)
                with_experts = self.expert_layers.over(first, last)
            if first < cpu_expert_layers:
                away = min(last, cpu_expert_layers)
                size -= (self.gpu_experts if device else self.host_experts).over(first, away)
                with_experts -= self.expert_layers.over(first, away)
            weights.append(size)
            expert_layers.append(with_experts)
            first = last
        if cpu_expert_layers:
            weights[0] += self.host_experts.over(0, cpu_expert_layers)
            expert_layers[0] += self.expert_layers.over(0, cpu_expert_layers)
        weights[0] += self.embedding
        weights[output] += _on(self.output if output or self.second_copy else stored.beside_output, output)
        return tuple(weights), tuple(expert_layers)


class LayerCaches(Struct, frozen=True):
    """What a context costs a model's layers: KV cache on the host and on a GPU, recurrent state."""

    host: Series
    gpu: Series
    state: Series


class Need(Struct, frozen=True):
    """Bytes that a placement needs on (host, first GPU, …), by part; ``expert_layers``: whose experts lie there."""

    weights: tuple[int, ...]
    kv: tuple[int, ...]
    state: tuple[int, ...]
    expert_layers: tuple[int, ...]


class Load:
    """What one model needs to keep in memory in one quantisation and context, before it is placed.

    ``least_of_layers``: bytes that they need at least, whatever the device. ``loops``: how often the stack is run; the
    engine counts its layers anew each time.
    """

    def __init__(self, weights: LayerWeights, caches: LayerCaches, loops: int = 1) -> None:
        self.weights = weights
        self.caches = caches
        self.loops = loops
        self.least_of_layers = weights.host.total + caches.host.total + caches.state.total
        self.n_layers = len(weights.stored.layers)
        self.prediction_layers = weights.stored.prediction_layers
        self.has_experts = weights.expert_layers.total > 0

    @property
    def least(self) -> int:
        """Bytes that any placement needs, whatever the device: with less there is no need to look further."""
        weights = self.weights
        output = weights.output if weights.second_copy else weights.stored.beside_output
        return self.least_of_layers + weights.embedding + output.host

    @cached_property
    def running_on_gpus(self) -> tuple[list[int], list[int]]:
        """Bytes of the first n layers on GPUs, by n: all, and of these the routed experts."""
        weights, kv, state = self.weights, self.caches.gpu.values, self.caches.state.values
        kinds = zip(weights.stored.kinds, weights.gpu.values, strict=True)
        whole = [size + kv[kind.kind] + state[kind.kind] for kind, size in kinds]
        return running_sums(whole, weights.stored.layers), weights.running_experts


def caches_of(shape: Shape, forms: tuple[CacheForm, ...], settings: CacheSettings, table: Quantizations) -> LayerCaches:
    """What a context costs. ``forms``: of ``Shape.kinds``. A stack that is run several times has a cache per run."""
    loops, letters = shape.num_loops, shape.layers
    sizes = [cache_bytes(form, settings, table) for form in forms]
    host = Series([loops * on_host for on_host, _ in sizes], letters)
    quantised = any(on_host != on_gpu for on_host, on_gpu in sizes)
    gpu = Series([loops * on_gpu for _, on_gpu in sizes], letters) if quantised else host
    states = [loops * settings.sequences * form.state_bytes for form in forms]
    return LayerCaches(host, gpu, Series(states, letters))


def need_of(load: Load, ends: tuple[int, ...], output: int, cpu_expert_layers: int = 0) -> Need:
    """Weights, caches and states per device. Token embedding and looked-up tables are read by rows and always stay on
    the host.

    ``ends``: device i holds the layers from ``ends[i - 1]`` (0 for the host, device 0) up to ``ends[i]``; ``output`` is
    the device of the output matrix. The first ``cpu_expert_layers`` layers keep their routed experts on the host.
    """
    weights, expert_layers = load.weights.on(ends, output, cpu_expert_layers)
    caches = load.caches
    kv, state = [], []
    first = 0
    for device, last in enumerate(ends):
        kv.append((caches.gpu if device else caches.host).over(first, last))
        state.append(caches.state.over(first, last))
        first = last
    return Need(weights, tuple(kv), tuple(state), expert_layers)


def gpus_hold(load: Load, ends: tuple[int, ...], output: int, cpu_expert_layers: int, room: tuple[int, ...]) -> bool:
    """Whether each GPU has room for its share of weights, caches and states: ``need_of`` for GPUs alone, without the
    parts. ``room`` in bytes, first GPU first.
    """
    whole, experts = load.running_on_gpus
    weights = load.weights
    for device in range(1, len(ends)):
        first, last = ends[device - 1], ends[device]
        need = whole[last] - whole[first]
        if first < cpu_expert_layers:
            need -= experts[min(last, cpu_expert_layers)] - experts[first]
        need += weights.stored.each_device.gpu if last > first else 0
        need += weights.stored.first_layer.gpu if first == 0 and last > 0 else 0
        need += weights.output.gpu if device == output else 0
        if need > room[device - 1]:
            return False
    return True


def _on(size: Bytes, device: int) -> int:
    return size.gpu if device else size.host
