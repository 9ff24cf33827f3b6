"""The mixer of a layer from the sizes in a header, one function for each kind; and how experts are chosen.

Source: the ``load_arch_hparams`` functions of llama.cpp 0c1e570.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from fitcheck.catalog.gguf_sizes import Sizes
from fitcheck.types import (
    Attention,
    CompressedAttention,
    GatedDeltaNet,
    Indexer,
    KimiDelta,
    LatentAttention,
    LightningAttention,
    Mamba1,
    Mamba2,
    Mixer,
    NgramEmbedding,
    NoMixer,
    ShortConvolution,
)


def head_dims(sizes: Sizes, layer: int, windowed: bool) -> tuple[int, int]:
    """Width of a key and of a value head."""
    heads = max(1, sizes.get("attention.head_count", layer=layer))
    default = sizes.get("embedding_length") // heads
    key = sizes.get("attention.key_length", default)
    value = sizes.get("attention.value_length", default)
    if windowed:
        key = sizes.get("attention.key_length_swa", key)
        value = sizes.get("attention.value_length_swa", value)
    return key, value


class Traits(Struct, frozen=True):
    """What an attention layer has beyond its sizes."""

    bias: str = ""
    qk_norm: str | None = None
    gate: str | None = None
    sinks: bool = False
    k_eq_v: bool = False
    extra_params: int = 0


def attention(sizes: Sizes, layer: int, window: int | None, shared: bool, traits: Traits) -> Mixer:
    """Grouped-query attention; no mixer where a layer has no heads."""
    heads = sizes.get("attention.head_count", layer=layer)
    kv_heads = sizes.get("attention.head_count_kv", heads, layer=layer)
    if not heads or not kv_heads:
        return NoMixer()
    key, value = head_dims(sizes, layer, window is not None)
    return Attention(
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=key,
        v_head_dim=None if value == key else value,
        window=window,
        qk_norm=traits.qk_norm,
        bias=traits.bias,
        gate=traits.gate,
        sinks=traits.sinks,
        kv_shared=shared,
        k_eq_v=traits.k_eq_v,
        extra_params=traits.extra_params,
    )


def indexer_params(sizes: Sizes) -> int:
    """Parameters of an indexer beside grouped-query attention: projections and norms of its Q and K."""
    heads, width = sizes.get("attention.indexer.head_count"), sizes.get("attention.indexer.key_length")
    return width * (sizes.get("embedding_length") * (heads + 1) + 2) if heads else 0


TOP_K = 2048  # keys that an indexer chooses in all published models that do not say


def indexer(sizes: Sizes) -> Indexer | None:
    """The indexer that a file describes."""
    heads = sizes.get("attention.indexer.head_count")
    if not heads:
        return None
    keys = sizes.get("attention.indexer.top_k") or TOP_K
    return Indexer(heads, sizes.get("attention.indexer.key_length"), top_k=keys)


def latent(sizes: Sizes, layer: int, indexed: bool, gate: str | None = None, window: int | None = None) -> Mixer:
    """Latent attention; without absorbed matrices llama.cpp caches whole keys and values. Layers with a ``window`` may
    have sizes of their own."""
    own = "_swa" if window and sizes.has("attention.kv_lora_rank_swa") else ""
    heads = sizes.get("attention.head_count", layer=layer)
    rope = sizes.get("rope.dimension_count")
    absorbed = sizes.has("attention.key_length_mla")
    key, value = head_dims(sizes, layer, False)
    if absorbed:
        key, value = sizes.get(f"attention.key_length_mla{own}"), sizes.get(f"attention.value_length_mla{own}")
    return LatentAttention(
        n_heads=heads,
        kv_lora_rank=sizes.get(f"attention.kv_lora_rank{own}"),
        qk_nope_head_dim=max(0, key - rope),
        qk_rope_head_dim=rope,
        v_head_dim=value,
        q_lora_rank=sizes.get("attention.q_lora_rank") or None,
        indexer=indexer(sizes) if indexed else None,
        gate=gate,
        absorbed=absorbed,
        window=window,
    )


_GATING = {1: "softmax", 2: "sigmoid", 3: "softmax_of_chosen", 4: "sqrt_softplus"}  # llama_expert_gating_func_type


def routing(sizes: Sizes) -> dict[str, Any]:
    """How the file says that experts are chosen and weighted."""
    return {
        "gating": _GATING.get(sizes.get("expert_gating_func")),
        "normalises_weights": bool(sizes.number("expert_weights_norm")),
        "weights_scale": sizes.number("expert_weights_scale"),
        "expert_groups": max(1, sizes.get("expert_group_count")),
        "expert_groups_used": max(1, sizes.get("expert_group_used_count")),
    }


def compressed(sizes: Sizes, layer: int) -> Mixer:
    """DeepSeek-V4: only layers that keep every fourth token have an indexer."""
    ratio = sizes.get("attention.compress_ratios", layer=layer)
    return CompressedAttention(
        n_heads=sizes.get("attention.head_count", layer=layer),
        head_dim=head_dims(sizes, layer, False)[0],
        q_lora_rank=sizes.get("attention.q_lora_rank"),
        o_groups=sizes.get("attention.output_group_count"),
        o_lora_rank=sizes.get("attention.output_lora_rank"),
        compress_ratio=ratio,
        window=sizes.get("attention.sliding_window"),
        indexer=indexer(sizes) if ratio == 4 else None,
    )


def mamba1(sizes: Sizes, inner_norms: bool) -> Mixer:
    """Mamba; ``inner_norms``: its time step, B and C are normed (Jamba)."""
    return Mamba1(
        d_inner=sizes.get("ssm.inner_size"),
        d_state=sizes.get("ssm.state_size"),
        dt_rank=sizes.get("ssm.time_step_rank"),
        conv_kernel=sizes.get("ssm.conv_kernel"),
        inner_norms=inner_norms,
    )


def mamba2(sizes: Sizes, norm: bool) -> Mamba2:
    """Mamba-2; ``norm``: it has a norm behind the gate."""
    return Mamba2(
        d_inner=sizes.get("ssm.inner_size"),
        n_heads=sizes.get("ssm.time_step_rank"),
        n_groups=sizes.get("ssm.group_count"),
        d_state=sizes.get("ssm.state_size"),
        conv_kernel=sizes.get("ssm.conv_kernel"),
        norm=norm,
    )


def delta_net(sizes: Sizes) -> Mixer:
    """Gated delta net (Qwen3-Next and later)."""
    value_heads = sizes.get("ssm.time_step_rank")
    return GatedDeltaNet(
        n_k_heads=sizes.get("ssm.group_count"),
        n_v_heads=value_heads,
        k_head_dim=sizes.get("ssm.state_size"),
        v_head_dim=sizes.get("ssm.inner_size") // max(1, value_heads),
        conv_kernel=sizes.get("ssm.conv_kernel"),
    )


def kimi_delta(sizes: Sizes, layer: int, full_rank_gate: bool = False, full_rank_decay: bool = False) -> Mixer:
    """Kimi delta attention."""
    return KimiDelta(
        n_heads=sizes.get("attention.head_count", layer=layer),
        head_dim=sizes.get("kda.head_dim"),
        conv_kernel=sizes.get("ssm.conv_kernel"),
        full_rank_gate=full_rank_gate,
        full_rank_decay=full_rank_decay,
    )


def short_convolution(sizes: Sizes) -> Mixer:
    """LFM2."""
    return ShortConvolution(conv_kernel=sizes.get("shortconv.l_cache"), channels=sizes.get("embedding_length"))


MAX_NGRAM, MAX_NGRAM_HEADS = 8, 64  # LLAMA_MAX_PLE_NGRAM, LLAMA_MAX_PLE_HEADS
MAX_TAPS = 64  # of a convolution; published models have four


def ngrams(sizes: Sizes, layer: int) -> NgramEmbedding | None:
    """The n-gram embedding that this layer adds; None for most layers, and for sizes that llama.cpp refuses."""
    if layer not in (sizes.array("ple.layers") or ()):
        return None
    longest, taps = sizes.get("ple.ngram_size"), sizes.get("ple.conv_kernel")
    heads = (longest - 1) * sizes.get("ple.heads_per_ngram")
    if not (1 < longest <= MAX_NGRAM and 0 < heads <= MAX_NGRAM_HEADS and 0 < taps <= MAX_TAPS):
        return None
    return NgramEmbedding(longest, heads, taps)


def lightning(sizes: Sizes, layer: int) -> Mixer:
    """MiniMax-01."""
    return LightningAttention(sizes.get("attention.head_count", layer=layer), head_dims(sizes, layer, False)[0])
