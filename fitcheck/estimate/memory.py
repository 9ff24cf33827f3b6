"""What a model needs to keep in memory, layer by layer, before it is placed; and where a placement puts it.

The same numbers make the quick answer (their sums) and the full one (``Term``s). Sizes follow llama.cpp's rules for
each kind of memory: tensors are padded to 32 bytes on the host and 128 on a GPU, quantised rows to 512 elements there.
"""

from __future__ import annotations

from typing import NamedTuple

from fitcheck.estimate.cache import CacheSettings, layer_cache_bytes
from fitcheck.estimate.quantize import Bytes, Quantizations, Stored
from fitcheck.estimate.tensors import PLAIN, Layout
from fitcheck.types import Shape


class LayerLoad(NamedTuple):
    """Bytes of one layer on the host and on a GPU: weights without routed experts, routed experts, KV cache, recurrent
    state.
    """

    host_dense: int
    gpu_dense: int
    host_experts: int
    gpu_experts: int
    host_kv: int
    gpu_kv: int
    state: int


class Load(NamedTuple):
    """What one model needs to keep in memory in one quantisation and context, before it is placed.

    ``layers`` in execution order. ``embedding`` and looked-up tables are read by rows and always stay on the host;
    ``output`` is the output matrix with what lies beside it, ``beside_output`` that without the matrix.
    """

    layers: tuple[LayerLoad, ...]
    embedding: int
    output: Bytes
    beside_output: Bytes
    first_layer: Bytes
    each_device: Bytes
    second_copy: bool  # the output is its own copy even where the embedding lies on the same device
    prediction_layers: int

    @property
    def least(self) -> int:
        """Bytes that any placement needs, whatever the device: an early no."""
        body = sum(layer.host_dense + layer.host_experts + layer.host_kv + layer.state for layer in self.layers)
        return body + self.embedding + (self.output if self.second_copy else self.beside_output).host


class Need(NamedTuple):
    """Bytes that a placement needs on (host, first GPU, …), by part; ``expert_layers``: whose experts lie there."""

    weights: tuple[int, ...]
    kv: tuple[int, ...]
    state: tuple[int, ...]
    expert_layers: tuple[int, ...]


def load_of(
    shape: Shape, stored: Stored, settings: CacheSettings, table: Quantizations, layout: Layout = PLAIN
) -> Load:
    """The load of a model in a quantisation and context; layers of one kind share one value."""
    caches = [layer_cache_bytes(kind, settings, shape.hidden_size, table, layout) for kind in shape.kinds]
    made: dict[tuple[str, str], LayerLoad] = {}
    layers = []
    for kind, letter in zip(shape.layers, stored.layers, strict=True):
        found = made.get((kind, letter))
        if found is None:
            mixer, ffn, experts = stored.kinds[ord(letter) - 97]
            cache = caches[ord(kind) - 97]
            found = made[kind, letter] = LayerLoad(
                mixer.host + ffn.host, mixer.gpu + ffn.gpu, experts.host, experts.gpu, *cache
            )
        layers.append(found)
    return Load(
        layers=tuple(layers),
        embedding=stored.embedding.host + stored.tables.host,
        output=stored.head.plus(stored.beside_output),
        beside_output=stored.beside_output,
        first_layer=stored.first_layer,
        each_device=stored.each_device,
        second_copy=stored.output_first or not stored.tied,
        prediction_layers=stored.prediction_layers,
    )


def need_of(load: Load, layer_devices: tuple[int, ...], cpu_expert_layers: int = 0) -> Need:
    """Weights, caches and states per device. ``layer_devices``: 0 the host, 1 the first GPU, …, per layer and once
    more for the output; the first ``cpu_expert_layers`` layers keep their routed experts on the host.
    """
    n = max(layer_devices) + 1
    weights, kv, state, expert_layers = [0] * n, [0] * n, [0] * n, [0] * n
    for index, layer in enumerate(load.layers):
        device = layer_devices[index]
        if device:
            weights[device] += layer.gpu_dense
            kv[device] += layer.gpu_kv
        else:
            weights[0] += layer.host_dense
            kv[0] += layer.host_kv
        state[device] += layer.state
        if layer.host_experts:
            home = 0 if index < cpu_expert_layers else device
            weights[home] += layer.gpu_experts if home else layer.host_experts
            expert_layers[home] += 1
    for device in set(layer_devices[:-1]):
        weights[device] += load.each_device.gpu if device else load.each_device.host
    first, output = layer_devices[0], layer_devices[-1]
    weights[first] += load.first_layer.gpu if first else load.first_layer.host
    weights[0] += load.embedding
    if output:
        weights[output] += load.output.gpu
    else:
        weights[0] += (load.output if load.second_copy else load.beside_output).host
    return Need(tuple(weights), tuple(kv), tuple(state), tuple(expert_layers))
