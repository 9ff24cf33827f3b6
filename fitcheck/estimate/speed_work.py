"""What one token costs: bytes read and operations launched, by device, from a model's shape and its weights.

Nothing here knows a device's speed. Decode reads, per token: every mixer and dense weight once, of the routed experts
the routed share, the output matrix, the cache of the tokens so far (a window layer: of its window) and, twice, the
recurrent state. Tables that are looked up (embeddings) are not read whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from operator import mul
from typing import NamedTuple, Protocol

from msgspec import Struct

from fitcheck.estimate.cache import recurrent_bytes
from fitcheck.estimate.memory import layers_of_kinds
from fitcheck.estimate.tensors import QUANTISED, Matrix, layer_tensors
from fitcheck.types import (
    Attention,
    CompressedAttention,
    CountedMixer,
    DenseFeedForward,
    FeedForward,
    LatentAttention,
    Layer,
    LayerBytes,
    Mixer,
    MixtureOfExperts,
    Model,
    NoFeedForward,
    NoMixer,
    ParallelMixers,
    Shape,
    Weights,
)

SUPER_BLOCK = 256  # elements of K-quants and their like


class Part(Protocol):
    """What a device carries, as in ``DeviceUse``: which layers, the routed experts of how many, the output matrix."""

    @property
    def device(self) -> str: ...  # noqa: D102 - "cpu", "gpu0", …
    @property
    def first_layer(self) -> int: ...  # noqa: D102
    @property
    def last_layer(self) -> int: ...  # noqa: D102
    @property
    def expert_layers(self) -> int: ...  # noqa: D102
    @property
    def output(self) -> bool: ...  # noqa: D102


class Work(NamedTuple):
    """The work of one token on one device: bytes that must be read, and kernels or graph nodes that must be run."""

    weight_bytes: float = 0.0
    cache_bytes: float = 0.0
    state_bytes: float = 0.0
    operations: float = 0.0

    def plus(self, other: Work) -> Work:
        """Both."""
        return Work(
            self.weight_bytes + other.weight_bytes,
            self.cache_bytes + other.cache_bytes,
            self.state_bytes + other.state_bytes,
            self.operations + other.operations,
        )


class KindCost(NamedTuple):
    """What one kind of layer costs a token, whatever its quantisation. ``state_bytes``: of its recurrent state."""

    layer: Layer
    routed_share: float
    state_bytes: int
    operations: float


def kind_costs(shape: Shape, operations: dict[str, float]) -> tuple[KindCost, ...]:
    """Costs of each of ``Shape.kinds``. ``operations``: how many each part of a layer takes, by name."""
    return tuple(
        [
            KindCost(
                layer,
                routed_share(layer.ffn),
                recurrent_bytes(layer.mixer, shape.hidden_size),
                layer_operations(layer, operations),
            )
            for layer in shape.kinds
        ]
    )


class Costs:
    """A model in one quantisation as work: what layers cost per token is worked out once per kind, and added up for
    the layers of a device. The model must have a shape.

    ``kinds``: its ``kind_costs``, where they are at hand.
    """

    def __init__(
        self, model: Model, weights: Weights, operations: dict[str, float], kinds: tuple[KindCost, ...] | None = None
    ) -> None:
        assert model.shape is not None
        self.model = model
        self.weights = weights
        self.shape = model.shape
        self.operations = operations
        kinds = kinds or kind_costs(self.shape, operations)
        self.params_per_byte = model.params / max(1, weights.total)
        letters, of_shape = weights.layers, self.shape.layers
        # layers of one letter in ``Weights.layers`` are of one kind
        self._kinds = [
            kinds[ord(of_shape[letters.find(chr(letter))]) - 97] for letter in range(97, 97 + len(weights.kinds))
        ]
        self._with_experts = any(size.experts for size in weights.kinds)
        self._reads: dict[tuple[float, float, float], list[float]] = {}
        self._without_caches: dict[tuple[int, int, float, bool], tuple[tuple[int, ...], Work]] = {}

    @cached_property
    def narrow_shares(self) -> tuple[float, float]:
        """Shares of the layers' dense and of their routed parameters whose rows are no multiple of a super-block."""
        counts = layers_of_kinds(self.shape.layers)
        tensors = [layer_tensors(kind, self.shape) for kind in self.shape.kinds[: len(counts)]]
        dense = _narrow_share([each.mixer + each.ffn for each in tensors], counts)
        return dense, _narrow_share([each.experts for each in tensors], counts)

    def groups(self, first: int, last: int) -> list[tuple[LayerBytes, KindCost, int]]:
        """The distinct sizes of layers among [first, last), each with its kind and how many there are."""
        counts = layers_of_kinds(self.weights.layers, first, last)
        return [group for group in zip(self.weights.kinds, self._kinds, counts, strict=False) if group[2]]

    def decode(
        self,
        depth: float,
        cache_bytes: tuple[float, float],
        first: int,
        last: int,
        experts_here: float = 1.0,
        output_here: bool = True,
    ) -> Work:
        """The work of one token at ``depth`` tokens in the cache, for layers [first, last) on one device.

        ``cache_bytes``: bytes per element of K and of V. ``experts_here``: share of these layers' routed experts that
        live on this device.
        """
        key = (first, last, experts_here, output_here)
        found = self._without_caches.get(key)
        if found is None:
            found = self._without_caches[key] = self._work(*key)
        counts, work = found
        read = sum(map(mul, self._reads_at(depth, *cache_bytes), counts))
        return work._replace(cache_bytes=self.shape.num_loops * read)

    def _work(self, first: int, last: int, experts_here: float, output_here: bool) -> tuple[tuple[int, ...], Work]:
        weight = state = count = 0.0
        for size, kind, n in self.groups(first, last):
            weight += n * (size.mixer + size.ffn + size.experts * experts_here * kind.routed_share)
            state += n * kind.state_bytes
            count += n * kind.operations
        loops, operations = self.shape.num_loops, self.operations
        if self.shape.per_layer_embedding_params:
            count += (last - first) * operations["per_layer_embedding"]
        weight, state, count = loops * weight, loops * state, loops * count
        if output_here:
            weight += output_bytes(self.weights) + self.weights.other
            count += operations["output"]
        return layers_of_kinds(self.weights.layers, first, last), Work(weight, 0.0, 2 * state, count)

    def _reads_at(self, depth: float, key: float, value: float) -> list[float]:
        """Bytes that a token reads of the cache of a layer of each kind."""
        wanted = (depth, key, value)
        found = self._reads.get(wanted)
        if found is None:
            found = self._reads[wanted] = [cache_read_bytes(kind.layer.mixer, *wanted) for kind in self._kinds]
        return found

    def experts(self, first: int, last: int, share: float) -> Work:
        """The work of ``share`` of the routed experts of layers [first, last), where they live apart from their
        layer.
        """
        weight = count = 0.0
        for size, kind, n in self.groups(first, last):
            if size.experts:
                weight += n * size.experts * share * kind.routed_share
                count += n * share * self.operations["moe"]
        return Work(weight_bytes=weight * self.shape.num_loops, operations=count * self.shape.num_loops)

    def experts_held(self, part: Part) -> float:
        """Share of the routed experts of a device's own layers that it holds; the processor reads the rest."""
        if part.device == "cpu" or not self._with_experts:
            return 1.0
        with_experts = sum([n for size, _, n in self.groups(part.first_layer, part.last_layer) if size.experts])
        return min(1.0, part.expert_layers / with_experts) if with_experts else 1.0


def _narrow_share(parts: Sequence[tuple[Matrix, ...]], counts: tuple[int, ...]) -> float:
    whole = narrow = 0
    for part, n in zip(parts, counts, strict=True):
        for matrix in part:
            if matrix.rows > 1 and matrix.precision == QUANTISED:
                whole += n * matrix.elements
                narrow += n * matrix.elements * bool(matrix.columns % SUPER_BLOCK)
    return narrow / max(1, whole)


def output_bytes(weights: Weights) -> int:
    """The matrix that makes logits: its own tensor, or the token embedding once more."""
    return weights.token_embedding if weights.tied else weights.output


def routed_share(ffn: FeedForward) -> float:
    """Share of the routed experts' bytes that one token reads."""
    return ffn.experts_per_token / ffn.n_experts if isinstance(ffn, MixtureOfExperts) else 1.0


def cache_read_bytes(mixer: Mixer, depth: float, key: float, value: float) -> float:
    """Bytes of one layer's cache that a token reads when ``depth`` tokens are in it."""
    if isinstance(mixer, Attention):
        cells = depth if mixer.window is None else min(depth, mixer.window)
        return cells * mixer.n_kv_heads * (mixer.head_dim * key + (mixer.v_head_dim or mixer.head_dim) * value)
    if isinstance(mixer, LatentAttention):
        width = mixer.kv_lora_rank + mixer.qk_rope_head_dim + (mixer.indexer.head_dim if mixer.indexer else 0)
        return depth * width * key
    if isinstance(mixer, CompressedAttention):
        compressed = depth / mixer.compress_ratio if mixer.compress_ratio else 0.0
        return (min(depth, mixer.window) + compressed) * mixer.head_dim * key
    if isinstance(mixer, CountedMixer):
        return depth * mixer.kv_bytes_per_token * (key + value) / 4 + mixer.window_bytes
    if isinstance(mixer, ParallelMixers):
        return sum(cache_read_bytes(part, depth, key, value) for part in mixer.parts)
    return 0.0


def layer_operations(layer: Layer, operations: dict[str, float]) -> float:
    """How many kernels (or graph nodes) a layer takes per token."""
    return mixer_operations(layer.mixer, operations) + ffn_operations(layer.ffn, operations) + float(layer.norms)


def mixer_operations(mixer: Mixer, operations: dict[str, float]) -> float:
    """Operations of one mixer; names of ``operations`` are the tags of the mixers and of attention's extras."""
    if isinstance(mixer, NoMixer):
        return 0.0
    if isinstance(mixer, ParallelMixers):
        return sum(mixer_operations(part, operations) for part in mixer.parts)
    count = operations[str(mixer.__struct_config__.tag)]
    if isinstance(mixer, Attention):
        count += operations["qk_norm"] * bool(mixer.qk_norm) + operations["gate"] * bool(mixer.gate)
        count += operations["bias"] * bool(mixer.bias)
    return count


def ffn_operations(ffn: FeedForward, operations: dict[str, float]) -> float:
    """Operations of one feed-forward; shared experts and a parallel dense one come on top of the routed ones."""
    if isinstance(ffn, NoFeedForward):
        return 0.0
    if isinstance(ffn, DenseFeedForward):
        return operations["dense"]
    beside = bool(ffn.shared_intermediate_size) + bool(ffn.dense_parallel)
    return operations["moe"] + operations["dense"] * beside


class PrefillWork(Struct, frozen=True):
    """The work of a prompt on one device: arithmetic in FLOP, and per micro-batch the kernels, the weight bytes
    that it touches and the rows that an expert gets."""

    operations: float
    dense_flop: float
    expert_flop: float
    attention_flop: float
    weight_bytes: float
    rows_per_expert: float


def prefill_work(
    costs: Costs, prompt_tokens: int, ubatch_tokens: int, first: int, last: int, depth: int = 0
) -> PrefillWork:
    """The work of a prompt for layers [first, last), with ``depth`` tokens in the cache before it. Logits are made for
    the last token only."""
    shape = costs.shape
    expert_params = attention = touched = 0.0
    batch, rows = min(prompt_tokens, ubatch_tokens), 32.0
    operations = 0.0
    for size, kind, n in costs.groups(first, last):
        ffn = kind.layer.ffn
        operations += n * kind.operations
        attention += n * attention_flop(kind.layer.mixer, prompt_tokens, depth)
        touched += n * (size.mixer + size.ffn)
        if isinstance(ffn, MixtureOfExperts):
            share = kind.routed_share
            rows = max(0.5, batch * share)
            expert_params += n * routed_params(ffn, shape.hidden_size)
            touched += n * size.experts * (1.0 - (1.0 - share) ** batch)
    share_of_layers = (last - first) / shape.n_layers
    head = 0 if shape.no_lm_head else shape.vocab_size * shape.hidden_size  # worked out for one token only
    body = max(0, costs.model.params_active - head)
    flop = 2.0 * prompt_tokens * shape.num_loops
    return PrefillWork(
        operations=operations,
        dense_flop=max(0.0, share_of_layers * body - expert_params) * flop,
        expert_flop=expert_params * flop,
        attention_flop=attention * shape.num_loops,
        weight_bytes=touched,
        rows_per_expert=rows,
    )


def routed_params(ffn: MixtureOfExperts, hidden_size: int) -> float:
    """Parameters of the routed experts that one token uses."""
    width = ffn.latent or ffn.expert_hidden or hidden_size
    return ffn.experts_per_token * (3 if ffn.gated else 2) * width * ffn.moe_intermediate_size


def attention_flop(mixer: Mixer, tokens: int, depth: int = 0) -> float:
    """FLOP of causal attention (scores and values) of ``tokens`` tokens that follow ``depth`` others."""
    if isinstance(mixer, Attention):
        widths = mixer.head_dim + (mixer.v_head_dim or mixer.head_dim)
        return 2.0 * _pairs(tokens, depth, mixer.window) * mixer.n_heads * widths
    if isinstance(mixer, LatentAttention):
        widths = 2 * mixer.kv_lora_rank + mixer.qk_rope_head_dim
        return 2.0 * _pairs(tokens, depth, None) * mixer.n_heads * widths
    if isinstance(mixer, CompressedAttention):
        return 4.0 * _pairs(tokens, depth, mixer.window) * mixer.n_heads * mixer.head_dim
    if isinstance(mixer, ParallelMixers):
        return sum(attention_flop(part, tokens, depth) for part in mixer.parts)
    return 0.0


def _pairs(tokens: int, depth: int, window: int | None) -> float:
    """How many (query, key) pairs causal attention scores: token i sees depth + i keys, at most the window."""
    if window is None or depth + tokens <= window:
        return tokens * (depth + tokens / 2.0)
    rising = max(0, window - depth)  # queries that still see fewer keys than the window
    return rising * (depth + rising / 2.0) + (tokens - rising) * window
