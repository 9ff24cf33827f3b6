"""A Hugging Face configuration -> ``Shape``.

A configuration is first said in the words of a GGUF header (``embedding_length``, ``attention.head_count_kv``, …), as
llama.cpp's converters do, and then goes the way of such a header; so both give the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from fitcheck.catalog.config_extras import with_extras
from fitcheck.catalog.config_families import Family
from fitcheck.catalog.gguf_architectures import Architecture
from fitcheck.catalog.gguf_shape import described_shape
from fitcheck.catalog.gguf_sizes import MAX_LAYERS
from fitcheck.types import CountedMixer, Layer, NoFeedForward, Shape

MAX_SIZE = 1 << 40  # no width, depth or count of a model comes near
_WINDOWED = ("sliding_attention", "chunked_attention", "sliding", "local")
_RECURRENT = ("linear_attention", "mamba", "mamba2", "conv", "recurrent", "kda", "lightning")


class Config:
    """A configuration over the defaults of its model type; every read value is checked and bounded.

    A field may be asked for under several names. What the file says counts first, even null, then the defaults.
    """

    def __init__(self, raw: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self._raw = raw
        self._defaults = defaults

    def value(self, *names: str) -> Any:
        """The first value given under one of the names, or None."""
        for table in (self._raw, self._defaults):
            for name in names:
                if name in table:
                    return table[name]
        return None

    def number(self, *names: str, default: int = 0) -> int:
        """A whole number from 0 to ``MAX_SIZE``."""
        value = self.value(*names)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if type(value) is int and 0 <= value <= MAX_SIZE else default

    def flag(self, *names: str) -> bool:
        """Whether a switch is on."""
        return self.value(*names) is True

    def has(self, name: str) -> bool:
        """Whether a field has a value."""
        return self.value(name) is not None

    def numbers(self, *names: str) -> list[int] | None:
        """A list of whole numbers or switches, one per layer or a list of layers."""
        value = self.value(*names)
        if not isinstance(value, list) or len(value) > 4 * MAX_LAYERS:
            return None
        return [int(item) if isinstance(item, int) and 0 <= item <= MAX_SIZE else 0 for item in value]

    def words(self, *names: str) -> list[str] | None:
        """A list of names, one per layer."""
        value = self.value(*names)
        if not isinstance(value, list) or not value or len(value) > 4 * MAX_LAYERS:
            return None
        return [item if isinstance(item, str) else "" for item in value]


def shape_from_config(config: Config, family: Family) -> Shape | None:
    """The shape of a configuration; None where depth or width are missing or impossible."""
    if _depth(config) > MAX_LAYERS:
        return None
    sizes = _hyper_parameters(config)
    if not family.feed_forward:
        sizes["feed_forward_length"] = 0
    row = _structure(config, family, sizes)
    _set_windows(config, family, sizes)
    shape = described_shape(row, {f"hf.{key}": value for key, value in sizes.items()}, config.number("vocab_size"))
    if shape is None:
        return None
    tied = config.flag("tie_word_embeddings") and not row.embedding
    positions = shape.learned_positions + family.position_offset if shape.learned_positions else 0
    shape = replace(shape, tie_word_embeddings=tied, learned_positions=positions, lm_head_bias=family.lm_head_bias)
    return with_extras(shape, config, family.extras)


def bound_shape(config: Config, params: int) -> Shape | None:
    """A shape for a model type without a form: ``params`` spread over the layers, and the most that a cache can take.

    None where the configuration does not even tell depth, width and vocabulary.
    """
    sizes = _hyper_parameters(config) if 0 < _depth(config) <= MAX_LAYERS else {}
    hidden, vocab, depth = sizes.get("embedding_length", 0), config.number("vocab_size"), _depth(config)
    tied = config.flag("tie_word_embeddings")
    body = params - hidden * vocab * (1 if tied else 2)
    heads = config.number("num_attention_heads")
    if not hidden or not vocab or not heads or body < depth:
        return None
    head = config.number("head_dim") or hidden // heads
    cache = 2.0 * 2 * config.number("num_key_value_heads", default=heads) * head
    layer = Layer(CountedMixer(params=body // depth, kv_bytes_per_token=cache), NoFeedForward(), norms=0)
    return Shape(
        hidden_size=hidden,
        vocab_size=vocab,
        kinds=(layer,),
        layers="a" * depth,
        tie_word_embeddings=tied,
        final_norms=0,
        extra_params=body % depth,
    )


def _structure(config: Config, family: Family, sizes: Mapping[str, Any]) -> Architecture:
    """The family's row with the switches of this configuration applied."""
    row = family.row
    if family.bias_flag is not None:
        row = replace(row, bias=family.bias_letters if config.flag(family.bias_flag) else "")
    if family.mlp_bias_flag is not None:
        row = replace(row, bias_ffn=config.flag(family.mlp_bias_flag))
    if family.qk_norm_flag is not None:
        row = replace(row, qk_norm="per_head" if config.flag(family.qk_norm_flag) else None)
    return row


def _hyper_parameters(config: Config) -> dict[str, Any]:
    """The configuration in the words of a GGUF header, without the architecture's prefix."""
    hidden = config.number("hidden_size", "n_embd", "d_model", "dim")
    n_layers = _depth(config)
    heads = config.number("num_attention_heads", "n_head", "n_heads")
    sizes: dict[str, Any] = {
        "embedding_length": hidden,
        "block_count": n_layers,
        "attention.head_count": heads,
        "attention.head_count_kv": _kv_heads(config, heads),
        "context_length": config.number("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len"),
        "feed_forward_length": _feed_forward_length(config, hidden),
    }
    head = config.number("head_dim", "attention_head_dim", "kv_channels")
    if head:
        sizes["attention.key_length"] = head
        sizes["attention.value_length"] = config.number("v_head_dim") or head
    sizes.update(_experts(config, n_layers))
    sizes.update(_latent_attention(config))
    sizes.update(_state_space(config, hidden))
    sizes.update(_per_layer(config, sizes, n_layers))
    sizes.update(_gemma(config, sizes))
    return sizes


def _gemma(config: Config, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Gemma 3n and 4: layers that read other caches, and full-attention layers with heads of their own."""
    shared = config.number("num_kv_shared_layers")
    found: dict[str, Any] = {"attention.shared_kv_layers": shared} if shared else {}
    kinds = config.words("layer_types") or []
    n_layers, width = sizes["block_count"], sizes["feed_forward_length"]
    if config.flag("use_double_wide_mlp") and shared and isinstance(width, int):
        found["feed_forward_length"] = [width if i < n_layers - shared else 2 * width for i in range(n_layers)]
    head = _global_head_dim(config)
    if head:
        found["attention.key_length"] = found["attention.value_length"] = head
        found["attention.key_length_swa"] = found["attention.value_length_swa"] = config.number("head_dim")
        heads, own = config.number("num_global_key_value_heads"), sizes["attention.head_count_kv"]
        if heads and config.flag("attention_k_eq_v"):
            found["attention.head_count_kv"] = [heads if kind == "full_attention" else own for kind in kinds]
            found["k_eq_v_layers"] = [int(kind == "full_attention") for kind in kinds]
    return found


def _global_head_dim(config: Config) -> int:
    """Width of a head in full-attention layers, where it differs; 0 otherwise."""
    told = config.number("global_head_dim")
    layers = config.value("per_layer_config")
    if not told and isinstance(layers, dict):
        first = next(iter(layers.values()), None)
        told = Config(first if isinstance(first, dict) else {}, {}).number("head_dim")
    return told


def _depth(config: Config) -> int:
    return config.number("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def _kv_heads(config: Config, heads: int) -> int:
    if config.flag("new_decoder_architecture") or not config.flag("multi_query"):
        return config.number("num_key_value_heads", "num_kv_heads", "n_head_kv", default=heads) or heads
    return 1


def _feed_forward_length(config: Config, hidden: int) -> int | list[int]:
    names = (
        "intermediate_size_mlp",
        "block_ff_dim",
        "intermediate_size",
        "n_inner",
        "ffn_dim",
        "ffn_hidden_size",
        "d_ff",
    )
    listed = config.numbers("intermediate_size")
    if listed:
        return listed
    width = config.number(*names) or 4 * hidden
    if not config.flag("block_auto_adjust_ff_dim"):
        return width
    step = config.number("block_multiple_of") or 1  # LFM2: two thirds, rounded up
    return -(-(2 * width // 3) // step) * step


def _experts(config: Config, n_layers: int) -> dict[str, Any]:
    count = config.number("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    if count <= 1 or config.value("enable_moe_block") is False:
        return {}
    width = config.number("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
    n_shared = config.number("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
    shared = config.number(
        "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size"
    )
    shared = shared or n_shared * width
    sizes = {"expert_shared_count": n_shared, "expert_shared_feed_forward_length": shared} if shared else {}
    return {
        **sizes,
        **_routing(config),
        "expert_count": count,
        "expert_used_count": config.number(
            "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k"
        ),
        "expert_feed_forward_length": width,
        "expert_layers": _expert_layers(config, n_layers),
    }


def _routing(config: Config) -> dict[str, Any]:
    """How experts are chosen, as far as the configuration says."""
    sizes: dict[str, Any] = {}
    gating = {"softmax": 1, "sigmoid": 2}.get(
        str(config.value("scoring_func", "score_function", "moe_router_activation_func"))
    )
    if gating is not None:
        sizes["expert_gating_func"] = gating
    sizes["expert_weights_norm"] = config.value("norm_topk_prob", "moe_renormalize") is not False
    scale = config.value("routed_scaling_factor")
    if isinstance(scale, (int, float)):
        sizes["expert_weights_scale"] = float(scale)
    if config.number("n_group") > 1:
        sizes["expert_group_count"] = config.number("n_group")
        sizes["expert_group_used_count"] = config.number("topk_group")
    return sizes


def _expert_layers(config: Config, n_layers: int) -> list[int]:
    """1 for a layer with experts."""
    kinds = config.words("mlp_layer_types")
    if kinds is not None:
        return [int(kind not in ("dense", "mlp")) for kind in kinds]
    listed = config.numbers("moe_layers")
    if listed is not None:
        return [int(index in listed) for index in range(n_layers)]
    frequencies = config.numbers("moe_layer_freq")
    if frequencies is not None:
        return frequencies
    first = config.number("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
    step = config.number("decoder_sparse_step", "expert_layer_period", "moe_layer_interval", default=1) or 1
    offset = config.number("expert_layer_offset") if config.has("expert_layer_period") else step - 1
    dense = config.numbers("mlp_only_layers") or []
    return [int(index >= first and index % step == offset and index not in dense) for index in range(n_layers)]


def _latent_attention(config: Config) -> dict[str, Any]:
    rank = config.number("kv_lora_rank")
    if not rank:
        return {}
    nope, rope = config.number("qk_nope_head_dim"), config.number("qk_rope_head_dim")
    heads = config.number("num_attention_heads")
    value = config.number("v_head_dim") or (config.number("hidden_size") // heads if heads else 0)
    return {
        "attention.kv_lora_rank": rank,
        "attention.q_lora_rank": config.number("q_lora_rank"),
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": value,
        "rope.dimension_count": rope,
        "attention.indexer.head_count": config.number("index_n_heads"),
        "attention.indexer.key_length": config.number("index_head_dim"),
        "attention.indexer.top_k": config.number("index_topk"),
    }


def _state_space(config: Config, hidden: int) -> dict[str, Any]:
    """Sizes of recurrent layers: delta net, Mamba-2, Mamba-1 or short convolution, by the fields that are there."""
    if config.has("linear_attn_config") or config.has("linear_num_heads"):
        return _kimi_delta(config)
    if config.has("linear_num_value_heads"):
        heads, width = config.number("linear_num_value_heads"), config.number("linear_value_head_dim")
        return {
            "ssm.inner_size": heads * width,
            "ssm.state_size": config.number("linear_key_head_dim"),
            "ssm.time_step_rank": heads,
            "ssm.group_count": config.number("linear_num_key_heads"),
            "ssm.conv_kernel": config.number("linear_conv_kernel_dim"),
        }
    if config.has("conv_L_cache"):
        return {"shortconv.l_cache": config.number("conv_L_cache")}
    heads = config.number("mamba_n_heads", "mamba_num_heads", "num_heads")
    width = config.number("mamba_d_head", "mamba_head_dim", "head_dim")
    state = config.number("mamba_d_state", "ssm_state_size", "state_size")
    if not state:
        return {}
    inner = config.number("mamba_d_ssm") or heads * width or config.number("mamba_expand", "expand") * hidden
    rank = heads or config.number("mamba_dt_rank", "time_step_rank") or -(-hidden // 16)
    return {
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
        "ssm.group_count": config.number("mamba_n_groups", "n_groups"),
        "ssm.conv_kernel": config.number("mamba_d_conv", "conv_kernel"),
    }


def _kimi_delta(config: Config) -> dict[str, Any]:
    own = config.value("linear_attn_config")
    own = Config(own if isinstance(own, dict) else {}, {})
    full = own.numbers("full_attn_layers")  # counted from one
    sizes: dict[str, Any] = {
        "kda.head_dim": own.number("head_dim") or config.number("linear_head_dim"),
        "ssm.conv_kernel": own.number("short_conv_kernel_size") or config.number("linear_conv_kernel_dim"),
    }
    if full is not None:
        sizes["attention.recurrent_layers"] = [int(index + 1 not in full) for index in range(_depth(config))]
    return sizes


def _per_layer(config: Config, sizes: Mapping[str, Any], n_layers: int) -> dict[str, Any]:
    """What the list of layer types says: which layers are recurrent, and what a layer of a single part is."""
    kinds = config.words("layer_types", "layers_block_type") or _override_pattern(config)
    if kinds is None:
        return _periodic(config, n_layers)
    found: dict[str, Any] = {"block_count": sizes["block_count"] or len(kinds)}
    if any(kind in _RECURRENT for kind in kinds):
        found["attention.recurrent_layers"] = [int(kind in _RECURRENT) for kind in kinds]
    if any(kind in ("mlp", "moe") for kind in kinds):
        found.update(_single_parts(kinds, sizes))
    return found


def _override_pattern(config: Config) -> list[str] | None:
    """Nemotron-H's string of one letter per layer."""
    letters = config.value("hybrid_override_pattern")
    if not isinstance(letters, str) or not 0 < len(letters) <= MAX_LAYERS:
        return None
    names = {"M": "mamba", "-": "mlp", "*": "attention", "E": "moe"}
    return [names.get(letter, "") for letter in letters]


def _single_parts(kinds: list[str], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Layers that are a mixer or a feed-forward, never both (Nemotron-H)."""
    mixes = [kind not in ("mlp", "moe") for kind in kinds]
    widths = {"mlp": sizes["feed_forward_length"], "moe": sizes.get("expert_feed_forward_length", 0)}
    attention = [kind not in _RECURRENT and mix for kind, mix in zip(kinds, mixes, strict=True)]
    return {
        "attention.head_count_kv": [
            sizes["attention.head_count_kv"] if is_attention else 0 for is_attention in attention
        ],
        "feed_forward_length": [widths.get(kind, 0) for kind in kinds],
        "expert_layers": [int(kind == "moe") for kind in kinds],
    }


def _periodic(config: Config, n_layers: int) -> dict[str, Any]:
    """Which layers are recurrent, where a period says it instead of a list."""
    period = config.number("attn_layer_period")
    if period:
        offset = config.number("attn_layer_offset")
        return {"attention.recurrent_layers": [int(i % period != offset) for i in range(n_layers)]}
    listed = config.numbers("attn_layer_indices", "full_attn_idxs")
    if listed is not None:
        return {"attention.recurrent_layers": [int(i not in listed) for i in range(n_layers)]}
    interval = config.number("full_attention_interval")
    return {"full_attention_interval": interval} if interval else {}


def _set_windows(config: Config, family: Family, sizes: dict[str, Any]) -> None:
    """Add the sliding window and the layers that have it."""
    tokens = config.number("sliding_window", "attention_chunk_size")
    if family.row.windows is None or not tokens or config.value("use_sliding_window") is False:
        sizes["attention.sliding_window"] = 0
        return
    sizes["attention.sliding_window"] = tokens
    kinds, period = config.words("layer_types"), config.number("sliding_window_pattern")
    listed = [int(kind in _WINDOWED) for kind in kinds] if kinds is not None else config.numbers("hybrid_layer_pattern")
    if listed is not None:
        sizes["attention.sliding_window_pattern"] = listed
        own = sizes["attention.head_count_kv"]
        windowed = config.number("swa_num_key_value_heads") or own * family.windowed_kv_factor
        if windowed != own and isinstance(own, int):
            sizes["attention.head_count_kv"] = [windowed if is_windowed else own for is_windowed in listed]
    elif period:
        sizes["attention.sliding_window_pattern"] = period
