"""Memory of one placement: which bytes lie on which device, and why.

A ``Layout`` of a model over devices is turned into bytes per device and part. The same numbers make the quick answer
(their sums) and the full one (``Term``s).
"""

from __future__ import annotations

from msgspec import Struct

from fitcheck.estimate.cache import CacheSettings, layer_cache_bytes
from fitcheck.estimate.quantize import Quantizations
from fitcheck.types import LayerBytes, Shape, Weights


class LayerLoad(Struct, frozen=True):
    """Bytes of one layer: weights without routed experts, routed experts, KV cache, recurrent state."""

    dense: int
    experts: int
    kv: int
    state: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.dense + self.experts + self.kv + self.state


class Load(Struct, frozen=True):
    """What one model needs to keep in memory in one quantisation and context, before it is placed.

    ``layers`` in execution order; ``embedding`` is read by rows and stays on the host beside GPUs; ``head`` is the
    output matrix with the final norms, of which a tied model keeps a second copy on the GPU.
    """

    layers: tuple[LayerLoad, ...]
    embedding: int
    head: int
    head_shared: bool

    @property
    def total(self) -> int:
        """Everything on one device: a tied output matrix counts once."""
        body = sum(layer.total for layer in self.layers)
        return body + self.embedding + (0 if self.head_shared else self.head)


def load_of(shape: Shape, weights: Weights, settings: CacheSettings, table: Quantizations) -> Load:
    """The load of a model in a quantisation and context; layers of one kind share one value."""
    made: dict[tuple[str, str], LayerLoad] = {}
    caches = [layer_cache_bytes(kind, settings, shape.hidden_size, table) for kind in shape.kinds]
    layers = []
    for kind, letter in zip(shape.layers, weights.layers, strict=True):
        found = made.get((kind, letter))
        if found is None:
            layer: LayerBytes = weights.kinds[ord(letter) - 97]
            kv, state = caches[ord(kind) - 97]
            found = made[kind, letter] = LayerLoad(layer.mixer + layer.ffn, layer.experts, kv, state)
        layers.append(found)
    head = (weights.token_embedding if weights.tied else weights.output) + weights.other
    return Load(tuple(layers), weights.token_embedding + weights.lookup, head, weights.tied)
