"""Hyper-parameters and tensors of a GGUF file -> ``Shape``.

Sizes come from the metadata that llama.cpp reads (src/llama-model.cpp, src/models/*.cpp, 0c1e570). What a layer is
made of comes from its tensors; without a tensor list, from the row of the architecture. A layer that has no form in
``types`` keeps its parameter count and a bound for its cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.catalog.gguf_architectures import ARCHITECTURES, Architecture
from fitcheck.catalog.plausible import implausible
from fitcheck.estimate.tensors import Layout, elements, layer_tensors
from fitcheck.types import (
    Attention,
    CompressedAttention,
    CountedMixer,
    DenseFeedForward,
    FeedForward,
    GatedDeltaNet,
    Indexer,
    KimiDelta,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba1,
    Mamba2,
    Mixer,
    MixtureOfExperts,
    NoFeedForward,
    NoMixer,
    ParallelMixers,
    Shape,
    ShortConvolution,
    Tensor,
)

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
_UNKNOWN = Architecture()
_NORMS = frozenset(
    (
        *("attn_norm", "attn_norm_2", "ffn_norm", "post_attention_norm", "post_ffw_norm", "attn_output_norm"),
        *("layer_output_norm", "post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"),
    )
)
_COUNTED_OUTSIDE = ("token_embd.weight", "output.", "position_embd.", "output_norm.", "per_layer_token_embd.")
_NO_PARAMETERS = ("rope_", "layer_output_scale")  # numbers of a file that no model counts as parameters

Dims = dict[str, tuple[int, ...]]  # tensor name without "blk.N." -> dimensions, fastest first


class Sizes:
    """The whole numbers of one architecture's metadata; a per-layer array answers for its layer."""

    def __init__(self, architecture: str, metadata: Mapping[str, Any]) -> None:
        self._prefix = architecture + "."
        self._metadata = metadata

    def get(self, key: str, default: int = 0, layer: int = 0) -> int:
        """A whole number, or ``default`` where the file has none for this layer."""
        value = self._metadata.get(self._prefix + key)
        if isinstance(value, (tuple, list)):
            value = value[layer] if layer < len(value) else None
        return int(value) if isinstance(value, int) and value >= 0 else default

    def array(self, key: str) -> Sequence[int] | None:
        """A per-layer array, or None."""
        value = self._metadata.get(self._prefix + key)
        return value if isinstance(value, (tuple, list)) else None

    def number(self, key: str) -> float:
        """A number, 0 where the file has none."""
        value = self._metadata.get(self._prefix + key)
        return float(value) if isinstance(value, (int, float)) else 0.0

    def has(self, key: str) -> bool:
        """Whether the file has this key."""
        return self._prefix + key in self._metadata

    @property
    def depth(self) -> int:
        """Layers that run; prediction heads behind them do not."""
        return self.get("block_count") - self.get("nextn_predict_layers")


def shape_from_gguf(
    architecture: str, metadata: Mapping[str, Any], n_vocab: int, tensors: Iterable[Tensor] | None = None
) -> Shape | None:
    """The shape that ``architecture`` has with this metadata (keys as in the file: ``llama.block_count``, …).

    ``n_vocab`` is the number of tokens. With ``tensors`` any architecture gets a shape; without them None is returned
    for one that has no row in ``ARCHITECTURES``. None also stands for metadata without depth or width.
    """
    row = ARCHITECTURES.get(architecture)
    sizes = Sizes(architecture, metadata)
    if tensors is None:
        return _described_shape(row, sizes, n_vocab) if row is not None else None
    row = row or _UNKNOWN
    hidden, n_layers = sizes.get("embedding_length"), sizes.depth
    if not hidden or not 0 < n_layers <= MAX_LAYERS:
        return None
    windows = _windows(row, sizes, n_layers)
    shared_from = _first_layer_without_cache(row, sizes, n_layers)
    outside, blocks = _by_layer(tensors, n_layers)
    layers = [_Listed(blocks[i], sizes, i, windows[i], i >= shared_from).layer() for i in range(n_layers)]
    shape = _shape(layers, **_outside_listed(outside, blocks, row, sizes, hidden, n_vocab))
    return _with_rest(shape, layers, blocks, Layout(stored_shared_kv=row.stored_shared_kv))


def described_shape(row: Architecture, metadata: Mapping[str, Any], n_vocab: int) -> Shape | None:
    """The shape of a structure with these hyper-parameters (keys with any one prefix); None without depth or width."""
    return _described_shape(row, Sizes(next(iter(metadata), "").split(".")[0], metadata), n_vocab)


def _described_shape(row: Architecture, sizes: Sizes, n_vocab: int) -> Shape | None:
    hidden, n_layers = sizes.get("embedding_length"), sizes.depth
    if not hidden or not 0 < n_layers <= MAX_LAYERS:
        return None
    windows = _windows(row, sizes, n_layers)
    shared_from = _first_layer_without_cache(row, sizes, n_layers)
    layers = [_Described(row, sizes, i, windows[i], i >= shared_from).layer() for i in range(n_layers)]
    return _shape(layers, **_outside_described(row, sizes, hidden, n_vocab))


def _with_rest(shape: Shape, layers: list[Layer], blocks: list[Dims], layout: Layout) -> Shape:
    """Count what a layer has beyond its form, so that the parameters are those of the file."""
    if implausible(shape):
        return shape
    modelled = {layer: _modelled(layer, shape, layout) for layer in shape.kinds}
    counted = []
    for layer, block in zip(layers, blocks, strict=True):
        found = _elements(dims for name, dims in block.items() if not name.startswith(_NO_PARAMETERS))
        counted.append(replace(layer, extra_params=max(0, found - modelled[layer])))
    whole = _shape(counted, hidden_size=shape.hidden_size, vocab_size=shape.vocab_size)
    return replace(shape, kinds=whole.kinds, layers=whole.layers)


def _modelled(layer: Layer, shape: Shape, layout: Layout) -> int:
    """Elements that the form of a layer accounts for."""
    parts = layer_tensors(layer, shape, layout)
    return elements(parts.mixer) + elements(parts.ffn) + elements(parts.experts)


def _shape(layers: list[Layer], **outside: Any) -> Shape:
    """Name equal layers by the same letter."""
    letters: dict[Layer, str] = {}
    text = "".join(letters.setdefault(layer, chr(97 + len(letters))) for layer in layers)
    return Shape(kinds=tuple(letters), layers=text, **outside)


def _by_layer(tensors: Iterable[Tensor], n_layers: int) -> tuple[Dims, list[Dims]]:
    """Tensors outside layers, and those of each layer, by name. Prediction heads, past the last layer, fall out."""
    outside: Dims = {}
    blocks: list[Dims] = [{} for _ in range(n_layers)]
    for tensor in tensors:
        parts = tensor.name.split(".", 2)
        if parts[0] == "blk" and len(parts) == 3 and parts[1].isdecimal():
            index = int(parts[1][:4])
            if index < n_layers:
                blocks[index][parts[2]] = tensor.dims
        else:
            outside[tensor.name] = tensor.dims
    return outside, blocks


def _windows(row: Architecture, sizes: Sizes, n_layers: int) -> list[int | None]:
    """The sliding window of each layer in tokens, None for full attention."""
    rule = row.windows
    if rule is None or rule.only_layers not in (None, n_layers):
        return [None] * n_layers
    named = sizes.get("attention.sliding_window", -1)
    tokens = rule.tokens if rule.fixed and named != 0 else (named if named >= 0 else rule.tokens)
    listed = sizes.array("attention.sliding_window_pattern")
    if listed is not None:
        return [tokens if tokens and i < len(listed) and listed[i] else None for i in range(n_layers)]
    period = sizes.get("attention.sliding_window_pattern", rule.period)
    full = 0 if rule.full_first else period - 1
    return [tokens if tokens and (period == 0 or i % period != full) else None for i in range(n_layers)]


def _first_layer_without_cache(row: Architecture, sizes: Sizes, n_layers: int) -> int:
    """From this layer on, layers read the cache of earlier ones."""
    if row.layers_with_cache is not None:
        return row.layers_with_cache
    return n_layers - sizes.get("attention.shared_kv_layers")


def _elements(dims: Iterable[tuple[int, ...]]) -> int:
    total = 0
    for each in dims:
        product = 1
        for dim in each:
            product *= dim
        total += product
    return total


# --------------------------------------------------------------------------------------------------------------------
# Mixers, from sizes


def _head_dims(sizes: Sizes, layer: int, windowed: bool) -> tuple[int, int]:
    """Width of a key and of a value head."""
    heads = max(1, sizes.get("attention.head_count", layer=layer))
    default = sizes.get("embedding_length") // heads
    key = sizes.get("attention.key_length", default)
    value = sizes.get("attention.value_length", default)
    if windowed:
        key = sizes.get("attention.key_length_swa", key)
        value = sizes.get("attention.value_length_swa", value)
    return key, value


class _Traits(Struct, frozen=True):
    """What an attention layer has beyond its sizes."""

    bias: str = ""
    qk_norm: str | None = None
    gate: str | None = None
    sinks: bool = False
    k_eq_v: bool = False


def _attention(sizes: Sizes, layer: int, window: int | None, shared: bool, traits: _Traits) -> Mixer:
    heads = sizes.get("attention.head_count", layer=layer)
    kv_heads = sizes.get("attention.head_count_kv", heads, layer=layer)
    if not heads or not kv_heads:
        return NoMixer()
    key, value = _head_dims(sizes, layer, window is not None)
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
    )


def _latent(sizes: Sizes, layer: int, window: int | None, indexed: bool, gate: str | None = None) -> Mixer:
    """Latent attention; a file of before absorbed matrices makes llama.cpp cache whole keys and values instead."""
    heads = sizes.get("attention.head_count", layer=layer)
    rope = sizes.get("rope.dimension_count")
    if not sizes.has("attention.key_length_mla"):
        return _attention(sizes, layer, window, False, _Traits())
    n_indexers = sizes.get("attention.indexer.head_count")
    return LatentAttention(
        n_heads=heads,
        kv_lora_rank=sizes.get("attention.kv_lora_rank"),
        qk_nope_head_dim=max(0, sizes.get("attention.key_length_mla") - rope),
        qk_rope_head_dim=rope,
        v_head_dim=sizes.get("attention.value_length_mla"),
        q_lora_rank=sizes.get("attention.q_lora_rank") or None,
        indexer=Indexer(n_indexers, sizes.get("attention.indexer.key_length")) if indexed and n_indexers else None,
        gate=gate,
    )


_POOLING = {1: "mean", 2: "cls", 3: "last"}  # llama_pooling_type
_GATING = {1: "softmax", 2: "sigmoid", 3: "softmax_of_chosen"}  # llama_expert_gating_func_type


def _routing(sizes: Sizes) -> dict[str, Any]:
    """How the file says that experts are chosen and weighted."""
    return {
        "gating": _GATING.get(sizes.get("expert_gating_func")),
        "normalises_weights": bool(sizes.number("expert_weights_norm")),
        "weights_scale": sizes.number("expert_weights_scale"),
        "expert_groups": max(1, sizes.get("expert_group_count")),
        "expert_groups_used": max(1, sizes.get("expert_group_used_count")),
    }


def _compressed(sizes: Sizes, layer: int) -> Mixer:
    ratio = sizes.get("attention.compress_ratios", layer=layer)
    n_indexers = sizes.get("attention.indexer.head_count")
    return CompressedAttention(
        n_heads=sizes.get("attention.head_count", layer=layer),
        head_dim=_head_dims(sizes, layer, False)[0],
        q_lora_rank=sizes.get("attention.q_lora_rank"),
        o_groups=sizes.get("attention.output_group_count"),
        o_lora_rank=sizes.get("attention.output_lora_rank"),
        compress_ratio=ratio,
        window=sizes.get("attention.sliding_window"),
        indexer=Indexer(n_indexers, sizes.get("attention.indexer.key_length")) if ratio == 4 and n_indexers else None,
    )


def _mamba1(sizes: Sizes, inner_norms: bool) -> Mixer:
    return Mamba1(
        d_inner=sizes.get("ssm.inner_size"),
        d_state=sizes.get("ssm.state_size"),
        dt_rank=sizes.get("ssm.time_step_rank"),
        conv_kernel=sizes.get("ssm.conv_kernel"),
        inner_norms=inner_norms,
    )


def _mamba2(sizes: Sizes, norm: bool) -> Mamba2:
    return Mamba2(
        d_inner=sizes.get("ssm.inner_size"),
        n_heads=sizes.get("ssm.time_step_rank"),
        n_groups=sizes.get("ssm.group_count"),
        d_state=sizes.get("ssm.state_size"),
        conv_kernel=sizes.get("ssm.conv_kernel"),
        norm=norm,
    )


def _delta_net(sizes: Sizes) -> Mixer:
    value_heads = sizes.get("ssm.time_step_rank")
    return GatedDeltaNet(
        n_k_heads=sizes.get("ssm.group_count"),
        n_v_heads=value_heads,
        k_head_dim=sizes.get("ssm.state_size"),
        v_head_dim=sizes.get("ssm.inner_size") // max(1, value_heads),
        conv_kernel=sizes.get("ssm.conv_kernel"),
    )


def _kimi_delta(sizes: Sizes, layer: int, full_rank_gate: bool = False, full_rank_decay: bool = False) -> Mixer:
    return KimiDelta(
        n_heads=sizes.get("attention.head_count", layer=layer),
        head_dim=sizes.get("kda.head_dim"),
        conv_kernel=sizes.get("ssm.conv_kernel"),
        full_rank_gate=full_rank_gate,
        full_rank_decay=full_rank_decay,
    )


def _short_convolution(sizes: Sizes) -> Mixer:
    return ShortConvolution(conv_kernel=sizes.get("shortconv.l_cache"), channels=sizes.get("embedding_length"))


def _lightning(sizes: Sizes, layer: int) -> Mixer:
    return LightningAttention(sizes.get("attention.head_count", layer=layer), _head_dims(sizes, layer, False)[0])


# --------------------------------------------------------------------------------------------------------------------
# Layers of a file with a tensor list


class _Listed:
    """One layer, by its tensors."""

    def __init__(self, dims: Dims, sizes: Sizes, index: int, window: int | None, shared: bool) -> None:
        self._dims = dims
        self._sizes = sizes
        self._index = index
        self._window = window
        self._shared = shared

    def layer(self) -> Layer:
        dims = self._dims
        hidden = self._sizes.get("embedding_length")
        norms = sum(1 for name, size in dims.items() if size == (hidden,) and name.removesuffix(".weight") in _NORMS)
        return Layer(mixer=self._mixer(), ffn=self._feed_forward(), norms=norms)

    def _has(self, name: str) -> bool:
        return f"{name}.weight" in self._dims

    def _width(self, name: str, axis: int) -> int:
        """A dimension of a weight, 0 if there is none."""
        dims = self._dims.get(f"{name}.weight", ())
        return dims[axis] if axis < len(dims) else 0

    def _mixer(self) -> Mixer:
        sizes, index = self._sizes, self._index
        if self._has("attn_compressor_kv") or sizes.array("attention.compress_ratios") is not None:
            return _compressed(sizes, index)
        if self._has("attn_kv_a_mqa"):
            return _latent(
                sizes, index, self._window, self._has("indexer.attn_k"), "full" if self._has("attn_gate") else None
            )
        if self._has("shortconv.conv"):
            return _short_convolution(sizes)
        if self._has("ssm_conv1d_q"):
            return _kimi_delta(sizes, index, self._has("ssm_g"), self._has("ssm_f"))
        if self._has("ssm_conv1d"):
            return self._state_space()
        if self._has("attn_output"):
            return self._attention()
        return self._counted()

    def _state_space(self) -> Mixer:
        sizes = self._sizes
        if self._has("ssm_ba") or self._has("ssm_alpha") or self._has("ssm_beta"):
            return _delta_net(sizes)
        if self._has("ssm_x"):
            return _mamba1(sizes, self._has("ssm_dt_norm"))
        mamba = _mamba2(sizes, self._has("ssm_norm"))
        attention = self._attention() if self._has("attn_q") else None
        return ParallelMixers((attention, mamba)) if isinstance(attention, Attention) else mamba

    def _attention(self) -> Mixer:
        sizes, index = self._sizes, self._index
        fused = self._has("attn_qkv")
        gate = self._gate()
        if gate == "lightning":
            return _lightning(sizes, index)
        traits = _Traits(
            bias=self._biases(fused),
            qk_norm=self._qk_norm(),
            gate=gate,
            sinks="attn_sinks.weight" in self._dims,
            k_eq_v=self._has("attn_k") and not self._has("attn_v") and not fused,
        )
        return _attention(sizes, index, self._window, self._shared, traits)

    def _biases(self, fused: bool) -> str:
        if fused:
            projections = "qkv" if "attn_qkv.bias" in self._dims else ""
        else:
            projections = "".join(letter for letter in "qkv" if f"attn_{letter}.bias" in self._dims)
        return projections + ("o" if "attn_output.bias" in self._dims else "")

    def _qk_norm(self) -> str | None:
        dims = self._dims.get("attn_q_norm.weight")
        if dims is None:
            return None
        key, _ = _head_dims(self._sizes, self._index, self._window is not None)
        return "per_head" if dims == (key,) else "full"

    def _gate(self) -> str | None:
        heads = self._sizes.get("attention.head_count", layer=self._index)
        key, _ = _head_dims(self._sizes, self._index, self._window is not None)
        if self._width("attn_q", 1) == 2 * heads * key > 0:
            return "q_double"
        width = self._width("attn_gate", 1)
        if width and self._has("attn_qkv"):
            return "lightning"
        return None if not width else "per_head" if width == heads else "full"

    def _counted(self) -> Mixer:
        """A mixer without a form: its parameters, and the most that its cache can take."""
        sizes, index = self._sizes, self._index
        own = [size for name, size in self._dims.items() if not name.startswith(("ffn_", "exp_probs"))]
        if not own:
            return NoMixer()
        kv_heads = sizes.get("attention.head_count_kv", sizes.get("attention.head_count", layer=index), layer=index)
        heads_of_state = sizes.get("wkv.head_size")
        if heads_of_state:
            hidden = sizes.get("embedding_length")
            state = 4 * hidden * (sizes.get("token_shift_count", 2) + heads_of_state)
            return CountedMixer(params=_elements(own), state_bytes=state)
        if all(len(size) == 1 for size in own):
            return NoMixer()
        return CountedMixer(
            params=_elements(own), kv_bytes_per_token=2.0 * kv_heads * sum(_head_dims(sizes, index, False))
        )

    def _feed_forward(self) -> FeedForward:
        if self._has("ffn_gate_inp") or self._has("ffn_down_exps"):
            return self._experts()
        width = self._width("ffn_down", 0)
        if not width:
            return NoFeedForward()
        return DenseFeedForward(width, gated=self._gated("ffn"), bias="ffn_down.bias" in self._dims)

    def _gated(self, prefix: str, suffix: str = "") -> bool:
        """Gate and up are two tensors, or one of twice the width."""
        if self._has(f"{prefix}_gate{suffix}") or self._has(f"{prefix}_gate_up{suffix}"):
            return True
        return self._width(f"{prefix}_up{suffix}", 1) == 2 * self._width(f"{prefix}_down{suffix}", 0)

    def _experts(self) -> FeedForward:
        sizes, index = self._sizes, self._index
        width = self._width("ffn_down_exps", 0) or self._width("ffn_down.0", 0)
        shared = self._width("ffn_down_shexp", 0)
        latent = self._width("ffn_latent_down", 1) or self._width("ffn_routed_down", 1)
        return MixtureOfExperts(
            n_experts=self._width("ffn_down_exps", 2) or sizes.get("expert_count"),
            experts_per_token=sizes.get("expert_used_count", layer=index),
            moe_intermediate_size=width,
            gated=self._gated("ffn", "_exps") or self._has("ffn_gate.0"),
            bias="ffn_down_exps.bias" in self._dims,
            router_bias=any(name.startswith(("exp_probs_b", "ffn_gate_inp.bias")) for name in self._dims),
            n_shared=max(1, sizes.get("expert_shared_count")) if shared else 0,
            shared_intermediate_size=shared or None,
            shared_gate=self._has("ffn_gate_inp_shexp"),
            dense_parallel=self._width("ffn_down", 0) or None,
            expert_hidden=latent or None,
            latent=latent or None,
            latent_norm=self._width("ffn_routed_norm", 0),
            **_routing(sizes),
        )


def _outside_listed(
    outside: Dims, blocks: list[Dims], row: Architecture, sizes: Sizes, hidden: int, n_vocab: int
) -> dict[str, Any]:
    """Everything of a shape but its layers."""
    embedding = outside.get("token_embd.weight", ())
    per_layer = _elements([outside.get("per_layer_token_embd.weight", (0,))])
    positions = outside.get("position_embd.weight", ())
    pooled = row.embedding or sizes.has("pooling_type")
    final = "output_norm" if "output_norm.weight" in outside else "token_embd_norm"  # encoders, LFM2
    counted = (*_COUNTED_OUTSIDE, final)
    rest = [size for name, size in outside.items() if not name.startswith((*counted, *_NO_PARAMETERS))]
    biased = any("attn_norm.bias" in block or "attn_output_norm.bias" in block for block in blocks)
    return {
        "hidden_size": hidden,
        "vocab_size": embedding[1] if len(embedding) == 2 else n_vocab,
        "tie_word_embeddings": "output.weight" not in outside and not pooled,
        "norm_factor": 2 if biased or f"{final}.bias" in outside else 1,
        "final_norms": int(f"{final}.weight" in outside),
        "no_lm_head": "output.weight" not in outside and pooled,
        "lm_head_bias": "output.bias" in outside,
        "learned_positions": positions[1] if len(positions) == 2 else 0,
        "per_layer_embedding_params": per_layer,
        "extra_params": _elements(rest),
        "num_loops": max(1, sizes.get("num_loops", 1)),
        "pooling": _POOLING.get(sizes.get("pooling_type")),
    }


# --------------------------------------------------------------------------------------------------------------------
# Layers of an architecture without a tensor list


class _Described:
    """One layer, by the row of its architecture."""

    def __init__(self, row: Architecture, sizes: Sizes, index: int, window: int | None, shared: bool) -> None:
        self._row = row
        self._sizes = sizes
        self._index = index
        self._window = window
        self._shared = shared

    def layer(self) -> Layer:
        mixer, ffn, norms = self._mixer(), self._feed_forward(), self._row.norms
        if isinstance(ffn, NoFeedForward) or isinstance(mixer, NoMixer):
            norms = min(norms, 1)
        return Layer(mixer=mixer, ffn=ffn, norms=norms)

    def _mixer(self) -> Mixer:
        row, sizes, index = self._row, self._sizes, self._index
        if sizes.array("attention.compress_ratios") is not None:
            return _compressed(sizes, index)
        recurrent = self._recurrent()
        if recurrent is not None and row.recurrent_layers != "beside_attention":
            return recurrent
        if sizes.has("attention.kv_lora_rank"):
            return _latent(sizes, index, self._window, True)
        k_eq_v = bool(sizes.get("k_eq_v_layers", layer=index))  # not in GGUF files, where tensors tell
        sinks = row.sinks == "all" or (row.sinks == "windowed" and self._window is not None)
        traits = _Traits(bias=row.bias, qk_norm=row.qk_norm, gate=row.gate, sinks=sinks, k_eq_v=k_eq_v)
        attention = _attention(sizes, index, self._window, self._shared, traits)
        if isinstance(recurrent, Mamba2) and isinstance(attention, Attention):
            return ParallelMixers((attention, recurrent))
        return attention

    def _recurrent(self) -> Mixer | None:
        row, sizes, index = self._row, self._sizes, self._index
        if row.recurrent is None or not self._is_recurrent():
            return None
        makers: dict[str, Union[Mixer, None]] = {
            "mamba1": _mamba1(sizes, inner_norms=row.recurrent_layers != "all"),
            "mamba2": _mamba2(sizes, norm=row.recurrent_layers != "beside_attention"),
            "gdn": _delta_net(sizes),
            "kda": _kimi_delta(sizes, index),
            "shortconv": _short_convolution(sizes),
            "lightning": _lightning(sizes, index),
        }
        return makers[row.recurrent]

    def _is_recurrent(self) -> bool:
        rule, sizes, index = self._row.recurrent_layers, self._sizes, self._index
        listed = sizes.array("attention.recurrent_layers")
        if listed is not None:
            return index < len(listed) and bool(listed[index])
        if rule == "interval":
            return (index + 1) % max(1, sizes.get("full_attention_interval", 4)) != 0
        if rule == "no_kv_heads":
            without_ffn = sizes.array("feed_forward_length") is None or sizes.get("feed_forward_length", 0, index) == 0
            return sizes.get("attention.head_count_kv", 1, layer=index) == 0 and without_ffn
        return True

    def _feed_forward(self) -> FeedForward:
        row, sizes, index = self._row, self._sizes, self._index
        width = sizes.get("feed_forward_length", layer=index)
        n_experts = sizes.get("expert_count")
        if n_experts and self._has_experts(width):
            return self._experts(n_experts, width)
        return DenseFeedForward(width, gated=row.gated, bias=row.bias_ffn) if width else NoFeedForward()

    def _has_experts(self, width: int) -> bool:
        sizes, index = self._sizes, self._index
        listed = sizes.array("expert_layers")  # not in GGUF files, where tensors tell
        if listed is not None:
            return index < len(listed) and bool(listed[index])
        step = sizes.get("interleave_moe_layer_step") or sizes.get("moe_every_n_layers") or 1
        if sizes.array("feed_forward_length") is not None and not width:
            return False
        return index >= sizes.get("leading_dense_block_count") and (index + 1) % step == 0

    def _experts(self, n_experts: int, width: int) -> FeedForward:
        row, sizes, index = self._row, self._sizes, self._index
        expert = sizes.get("expert_feed_forward_length", width, layer=index)
        n_shared = max(sizes.get("expert_shared_count"), int(row.shared_width_of_expert))
        shared = sizes.get("expert_shared_feed_forward_length", n_shared * expert, layer=index)
        return MixtureOfExperts(
            n_experts=n_experts,
            experts_per_token=sizes.get("expert_used_count", layer=index),
            moe_intermediate_size=expert,
            gated=row.gated,
            bias=row.bias_ffn,
            router_bias=row.router_bias,
            n_shared=max(1, n_shared) if shared else 0,
            shared_intermediate_size=shared or None,
            shared_gate=row.shared_gate and shared > 0,
            dense_parallel=width if row.dense_beside_experts else None,
            **_routing(sizes),
        )


def _outside_described(row: Architecture, sizes: Sizes, hidden: int, n_vocab: int) -> dict[str, Any]:
    """Everything of a shape but its layers. Whether the output matrix is tied, only a tensor list could say."""
    per_layer = sizes.get("embedding_length_per_layer_input") * sizes.get("block_count") * n_vocab
    return {
        "hidden_size": hidden,
        "vocab_size": n_vocab,
        "norm_factor": row.norm_factor,
        "final_norms": row.final_norms,
        "no_lm_head": row.embedding,
        "learned_positions": sizes.get("context_length") if row.learned_positions else 0,
        "per_layer_embedding_params": per_layer,
        "num_loops": max(1, sizes.get("num_loops", 1)),
        "pooling": _POOLING.get(sizes.get("pooling_type")),
    }
