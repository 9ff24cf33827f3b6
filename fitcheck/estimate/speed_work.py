"""What one token costs: bytes read and operations launched, by device, from a model's shape and its weights.

Nothing here knows a device's speed. Decode reads, per token: every mixer and dense weight once, of the routed experts
the routed share, the output matrix, the cache of the tokens so far (a window layer: of its window) and, twice, the
recurrent state. Tables that are looked up (embeddings) are not read whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from fitcheck.estimate.cache import recurrent_bytes
from fitcheck.types import (
    Attention,
    CompressedAttention,
    CountedMixer,
    DenseFeedForward,
    DeviceUse,
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


class Work(Struct, frozen=True):
    """The work of one token on one device: bytes that must be read, and kernels or graph nodes that must be run."""

    weight_bytes: float = 0.0
    cache_bytes: float = 0.0
    state_bytes: float = 0.0
    operations: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.weight_bytes + other.weight_bytes,
            self.cache_bytes + other.cache_bytes,
            self.state_bytes + other.state_bytes,
            self.operations + other.operations,
        )


def layer_groups(shape: Shape, weights: Weights, first: int, last: int) -> Iterator[tuple[Layer, LayerBytes, int]]:
    """The distinct (kind of layer, bytes of a layer) pairs among layers [first, last), with how many there are."""
    kinds, sizes = shape.kinds, weights.kinds
    pairs = zip(shape.layers[first:last], weights.layers[first:last], strict=True)
    for (kind, size), count in Counter(pairs).items():
        yield kinds[ord(kind) - 97], sizes[ord(size) - 97], count


def decode_work(
    model: Model,
    weights: Weights,
    operations: dict[str, float],
    depth: float,
    cache_bytes: tuple[float, float] = (2.0, 2.0),
    first: int = 0,
    last: int | None = None,
    experts_here: float = 1.0,
    output_here: bool = True,
) -> Work:
    """The work of one token at ``depth`` tokens in the cache, for layers [first, last) of the model on one device.

    ``operations``: how many operations each part of a layer takes, by name. ``cache_bytes``: bytes per element of K
    and of V. ``experts_here``: share of these layers' routed experts that live on this device.
    """
    shape = model.shape
    assert shape is not None
    weight = cache = state = count = 0.0
    loops = shape.num_loops
    for layer, size, n in layer_groups(shape, weights, first, shape.n_layers if last is None else last):
        n *= loops
        weight += n * (size.mixer + size.ffn + size.experts * experts_here * routed_share(layer.ffn))
        cache += n * cache_read_bytes(layer.mixer, depth, *cache_bytes)
        state += n * recurrent_bytes(layer.mixer, 1, shape.hidden_size)
        count += n * layer_operations(layer, operations)
        if shape.per_layer_embedding_params:
            count += n * operations["per_layer_embedding"]
    if output_here:
        weight += output_bytes(weights) + weights.other
        count += operations["output"]
    return Work(weight, cache, 2 * state, count)


def expert_work(
    model: Model, weights: Weights, operations: dict[str, float], first: int, last: int, share: float
) -> Work:
    """The work of ``share`` of the routed experts of layers [first, last), where they live apart from their layer."""
    shape = model.shape
    assert shape is not None
    weight = count = 0.0
    for layer, size, n in layer_groups(shape, weights, first, last):
        if size.experts:
            weight += n * size.experts * share * routed_share(layer.ffn)
            count += n * share * operations["moe"]
    return Work(weight_bytes=weight * shape.num_loops, operations=count * shape.num_loops)


def experts_held(model: Model, use: DeviceUse) -> float:
    """Share of the routed experts of a device's own layers that it holds; the processor reads the rest."""
    shape = model.shape
    assert shape is not None
    kinds = [isinstance(kind.ffn, MixtureOfExperts) for kind in shape.kinds]
    if not any(kinds) or use.device == "cpu":
        return 1.0
    counts = Counter(shape.layers[use.first_layer : use.last_layer])
    with_experts = sum(count for letter, count in counts.items() if kinds[ord(letter) - 97])
    return min(1.0, use.expert_layers / with_experts) if with_experts else 1.0


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
    """The work of a prompt on one device: arithmetic in FLOP, and per micro-batch the weight bytes that it touches and
    the rows that an expert gets."""

    layers: tuple[tuple[Layer, int], ...]
    dense_flop: float
    expert_flop: float
    attention_flop: float
    weight_bytes: float
    rows_per_expert: float

    def operations(self, operations: dict[str, float]) -> float:
        """Kernels of one micro-batch."""
        return sum(n * layer_operations(layer, operations) for layer, n in self.layers)


def prefill_work(
    model: Model,
    weights: Weights,
    prompt_tokens: int,
    ubatch_tokens: int,
    first: int = 0,
    last: int | None = None,
    depth: int = 0,
) -> PrefillWork:
    """The work of a prompt for layers [first, last), with ``depth`` tokens in the cache before it. Logits are made for
    the last token only."""
    shape = model.shape
    assert shape is not None
    last = shape.n_layers if last is None else last
    expert_params = attention = touched = 0.0
    batch, rows = min(prompt_tokens, ubatch_tokens), 32.0
    layers = []
    for layer, size, n in layer_groups(shape, weights, first, last):
        layers.append((layer, n))
        attention += n * attention_flop(layer.mixer, prompt_tokens, depth)
        touched += n * (size.mixer + size.ffn)
        if isinstance(layer.ffn, MixtureOfExperts):
            share = routed_share(layer.ffn)
            rows = max(0.5, batch * share)
            expert_params += n * routed_params(layer.ffn, shape.hidden_size)
            touched += n * size.experts * (1.0 - (1.0 - share) ** batch)
    share_of_layers = (last - first) / shape.n_layers
    head = 0 if shape.no_lm_head else shape.vocab_size * shape.hidden_size  # worked out for one token only
    body = max(0, model.params_active - head)
    flop = 2.0 * prompt_tokens * shape.num_loops
    return PrefillWork(
        layers=tuple(layers),
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
