"""Catalog rows -> GGUF files with the tensors that llama.cpp's converters write: true shapes, sparse, no weights.

Written with the ``gguf`` package from the shape alone, with llama.cpp's names; nothing of the reader is used here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf

from fitcheck.types import (
    Attention,
    CompressedAttention,
    DenseFeedForward,
    GatedDeltaNet,
    KimiDelta,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba1,
    Mamba2,
    MixtureOfExperts,
    Model,
    NoFeedForward,
    ParallelMixers,
    Shape,
    ShortConvolution,
)

Rows = Iterator[tuple[str, tuple[int, ...]]]

FUSED = {"phi3", "gpt2", "gptneox", "falcon", "bailingmoe2", "nomic-bert"}
FUSED_GATE = {"phi3", "glm4", "chatglm"}  # gate and up in one tensor
PERIODS = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4, "llama4": 4, "exaone4": 4, "olmo2": 4, "mellum": 4}
PERIODS |= {"afmoe": 4, "exaone-moe": 4, "muse-glimmer": 4, "laguna": 4, "cohere2moe": 4}
PREDICTING = {"glm4moe"}  # files hold one multi-token prediction layer
NORMS = {
    "olmo2": ("post_attention_norm", "post_ffw_norm"),
    "exaone4": ("post_attention_norm", "post_ffw_norm"),
    "gpt-oss": ("attn_norm", "post_attention_norm"),
    "glm4moe": ("attn_norm", "post_attention_norm"),
    "qwen3next": ("attn_norm", "post_attention_norm"),
    "qwen35": ("attn_norm", "post_attention_norm"),
    "qwen35moe": ("attn_norm", "post_attention_norm"),
    "seed_oss": ("attn_norm", "post_attention_norm"),
    "bert": ("attn_output_norm", "layer_output_norm"),
    "nomic-bert": ("attn_output_norm", "layer_output_norm"),
}
FOUR_NORMS = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")


def write(model: Model, path: Path) -> Path:
    """The file of a row in BF16, vectors and routers in F32."""
    assert model.shape is not None and model.architecture is not None
    writer = gguf.GGUFWriter(None, model.architecture)
    for key, value in {**_metadata(model, model.shape), "general.file_type": 32}.items():
        _add(writer, key, value)
    size = 0
    for name, dims in _tensors(model, model.shape):
        kind = _type(name, dims)
        elements = 1
        for dim in dims:
            elements *= dim
        n_bytes = elements * (2 if kind is gguf.GGMLQuantizationType.BF16 else 4)
        writer.add_tensor_info(name, tuple(reversed(dims)), None, n_bytes, kind)  # type: ignore[arg-type]
        size += (n_bytes + 31) // 32 * 32
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        file.truncate((end + 31) // 32 * 32 + size)
    return path


def _type(name: str, dims: tuple[int, ...]) -> gguf.GGMLQuantizationType:
    if name.endswith("tid2eid.weight"):
        return gguf.GGMLQuantizationType.I32
    small = len(dims) == 1 or any(
        part in name for part in ("ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "altup_correct")
    )
    small = small or name.endswith(("ssm_a", "ssm_d", ".bias", ".scale", "_norm.weight", "altup_predict_coef.weight"))
    small = small or name.startswith(("position_embd", "token_types"))
    return gguf.GGMLQuantizationType.F32 if small else gguf.GGMLQuantizationType.BF16


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    else:
        writer.add_uint32(key, value)


# --------------------------------------------------------------------------------------------------------------------
# Metadata


def _metadata(model: Model, shape: Shape) -> dict[str, Any]:
    arch = str(model.architecture)
    layers = list(shape.each_layer())
    sizes: dict[str, Any] = {
        "block_count": shape.n_layers + (arch in PREDICTING),
        "nextn_predict_layers": int(arch in PREDICTING),
        "context_length": model.context_tokens,
        "embedding_length": shape.hidden_size,
        "vocab_size": shape.vocab_size,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
    }
    sizes |= _attention_sizes(arch, shape, layers)
    sizes |= _feed_forward_sizes(layers)
    for layer in layers:
        sizes |= _mixer_sizes(layer)
    if shape.no_lm_head:
        pooling = shape.pooling or ("mean" if arch == "nomic-bert" else "cls")
        sizes |= {"pooling_type": {"mean": 1, "cls": 2}[pooling], "attention.causal": False}
    if arch == "deepseek4":
        sizes |= _compressed_sizes(layers)
    if shape.num_loops > 1:
        sizes["num_loops"] = shape.num_loops
    sizes |= _ngram_sizes(shape, layers)
    if shape.per_layer_embedding_params:
        sizes["embedding_length_per_layer_input"] = 256
    return {f"{arch}.{key}": value for key, value in sizes.items()}


def _ngram_sizes(shape: Shape, layers: list[Layer]) -> dict[str, Any]:
    numbers = [i for i, layer in enumerate(layers) if layer.ngrams]
    if not numbers:
        return {}
    spec = layers[numbers[0]].ngrams
    assert spec is not None
    rows = shape.lookup_params // shape.hidden_size
    return {
        "ple.layers": numbers,
        "ple.ngram_size": spec.longest,
        "ple.heads_per_ngram": spec.heads // (spec.longest - 1),
        "ple.conv_kernel": spec.conv_kernel,
        "ple.eos_token_id": 0,
        "ple.layer_multipliers": [1] * spec.longest,
        "ple.head_offsets": [i * rows for i in range(spec.heads)],
        "ple.head_vocab_sizes": [rows] * spec.heads,
        "embedding_length_per_layer_input": shape.hidden_size // spec.heads,
    }


def _same_or_list(values: list[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else values


def _attention_of(layer: Layer) -> Attention | None:
    if isinstance(layer.mixer, ParallelMixers):
        return next(part for part in layer.mixer.parts if isinstance(part, Attention))
    return layer.mixer if isinstance(layer.mixer, Attention) else None


def _attention_sizes(arch: str, shape: Shape, layers: list[Layer]) -> dict[str, Any]:
    found = [_attention_of(layer) for layer in layers]
    present = [each for each in found if each is not None]
    if not present:
        return (
            {}
            if any(isinstance(x.mixer, (LatentAttention, KimiDelta)) for x in layers)
            else {"attention.head_count": 0}
        )
    full = next((each for each in present if each.window is None), present[0])
    windowed = next((each for each in present if each.window is not None), None)
    without = 0 if arch == "deci" else full.n_heads  # heads where there is no attention
    sizes: dict[str, Any] = {
        "attention.head_count": _same_or_list([each.n_heads if each else without for each in found]),
        "attention.key_length": full.head_dim,
        "attention.value_length": full.v_head_dim or full.head_dim,
        "rope.dimension_count": full.head_dim,
    }
    interval = arch in ("qwen3next", "qwen35", "qwen35moe", "qwen4exp")
    kv_heads = [each.n_kv_heads if each else 0 for each in found]
    sizes["attention.head_count_kv"] = full.n_kv_heads if interval else _same_or_list(kv_heads)
    if interval:
        sizes["full_attention_interval"] = 1 + next(i for i, each in enumerate(found) if each)
    if windowed is not None:
        sizes["attention.sliding_window"] = windowed.window
        if windowed.head_dim != full.head_dim or arch == "gemma4":
            sizes["attention.key_length_swa"] = windowed.head_dim
            sizes["attention.value_length_swa"] = windowed.v_head_dim or windowed.head_dim
        if arch not in PERIODS:
            sizes["attention.sliding_window_pattern"] = [bool(each and each.window) for each in found]
    shared = sum(each.kv_shared for each in present)
    if shared or arch == "gemma4":
        sizes["attention.shared_kv_layers"] = shared
    return sizes


def _feed_forward_sizes(layers: list[Layer]) -> dict[str, Any]:
    dense = [layer.ffn for layer in layers if isinstance(layer.ffn, DenseFeedForward)]
    moe = [layer.ffn for layer in layers if isinstance(layer.ffn, MixtureOfExperts)]
    single = any(isinstance(layer.ffn, NoFeedForward) for layer in layers) and (dense or moe)
    if single or len({each.intermediate_size for each in dense}) > 1:
        widths = [getattr(x.ffn, "intermediate_size", getattr(x.ffn, "moe_intermediate_size", 0)) for x in layers]
        sizes: dict[str, Any] = {"feed_forward_length": widths}
    elif dense:
        sizes = {"feed_forward_length": dense[0].intermediate_size}
    elif moe and moe[0].dense_parallel:
        sizes = {"feed_forward_length": moe[0].dense_parallel}
    else:
        sizes = {"feed_forward_length": moe[0].moe_intermediate_size if moe else 0}
    if moe:
        sizes["expert_count"] = moe[0].n_experts
        sizes["expert_used_count"] = moe[0].experts_per_token
        sizes["expert_feed_forward_length"] = moe[0].moe_intermediate_size
        sizes["expert_shared_count"] = moe[0].n_shared
        sizes["leading_dense_block_count"] = next(
            i for i, x in enumerate(layers) if isinstance(x.ffn, MixtureOfExperts)
        )
        if layers[0].ffn.__class__ is not MixtureOfExperts or moe[0].n_shared:
            sizes |= {"expert_weights_norm": True, "expert_weights_scale": 2.5 if moe[0].router_bias else 1.0}
        sizes |= _routing(moe[0])
        if moe[0].shared_intermediate_size:
            sizes["expert_shared_feed_forward_length"] = moe[0].shared_intermediate_size
    return sizes


def _routing(moe: MixtureOfExperts) -> dict[str, Any]:
    """What a row says of how experts are chosen and weighed."""
    sizes: dict[str, Any] = {}
    if moe.gating is not None:
        sizes["expert_gating_func"] = {"softmax": 1, "sigmoid": 2, "softmax_of_chosen": 3}[moe.gating]
    if moe.normalises_weights is not None:
        sizes["expert_weights_norm"] = moe.normalises_weights
    if moe.weights_scale is not None:
        sizes["expert_weights_scale"] = moe.weights_scale
    if moe.expert_groups > 1:
        sizes |= {"expert_group_count": moe.expert_groups, "expert_group_used_count": moe.expert_groups_used}
    return sizes


def _mixer_sizes(layer: Layer) -> dict[str, Any]:
    parts = layer.mixer.parts if isinstance(layer.mixer, ParallelMixers) else (layer.mixer,)
    sizes: dict[str, Any] = {}
    for m in parts:
        if isinstance(m, LatentAttention):
            sizes |= {
                "attention.head_count": m.n_heads,
                "attention.head_count_kv": 1,
                "attention.kv_lora_rank": m.kv_lora_rank,
                "attention.key_length": m.kv_lora_rank + m.qk_rope_head_dim,
                "attention.value_length": m.kv_lora_rank,
                "attention.key_length_mla": m.qk_nope_head_dim + m.qk_rope_head_dim,
                "attention.value_length_mla": m.v_head_dim,
                "rope.dimension_count": m.qk_rope_head_dim,
            }
            if m.q_lora_rank:
                sizes["attention.q_lora_rank"] = m.q_lora_rank
            if m.indexer is not None:
                sizes["attention.indexer.head_count"] = m.indexer.n_heads
                sizes["attention.indexer.key_length"] = m.indexer.head_dim
        elif isinstance(m, Mamba1):
            sizes |= _ssm(m.d_inner, m.d_state, m.dt_rank, 0, m.conv_kernel)
        elif isinstance(m, Mamba2):
            sizes |= _ssm(m.d_inner, m.d_state, m.n_heads, m.n_groups, m.conv_kernel)
        elif isinstance(m, GatedDeltaNet):
            sizes |= _ssm(m.n_v_heads * m.v_head_dim, m.k_head_dim, m.n_v_heads, m.n_k_heads, m.conv_kernel)
        elif isinstance(m, KimiDelta):
            sizes |= {"kda.head_dim": m.head_dim, "ssm.conv_kernel": m.conv_kernel}
        elif isinstance(m, ShortConvolution):
            sizes["shortconv.l_cache"] = m.conv_kernel
    return sizes


def _compressed_sizes(layers: list[Layer]) -> dict[str, Any]:
    """DeepSeek-V4: compressed attention, and how many layers choose experts by a table."""
    mixers = [layer.mixer for layer in layers if isinstance(layer.mixer, CompressedAttention)]
    m, indexer = mixers[0], next(each.indexer for each in mixers if each.indexer)
    return {
        "attention.head_count": m.n_heads,
        "attention.head_count_kv": 1,
        "attention.key_length": m.head_dim,
        "attention.value_length": m.head_dim,
        "attention.q_lora_rank": m.q_lora_rank,
        "attention.sliding_window": m.window,
        "attention.output_group_count": m.o_groups,
        "attention.output_lora_rank": m.o_lora_rank,
        "attention.compress_ratios": [each.compress_ratio for each in mixers],
        "attention.indexer.head_count": indexer.n_heads,
        "attention.indexer.key_length": indexer.head_dim,
        "attention.indexer.top_k": indexer.top_k,
        "rope.dimension_count": 64,
        "hash_layer_count": sum(isinstance(x.ffn, MixtureOfExperts) and x.ffn.hash_routed for x in layers),
    }


def _ssm(inner: int, state: int, rank: int, groups: int, kernel: int) -> dict[str, int]:
    return {
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
        "ssm.group_count": groups,
        "ssm.conv_kernel": kernel,
    }


# --------------------------------------------------------------------------------------------------------------------
# Tensors


def _tensors(model: Model, shape: Shape) -> Rows:
    arch, hidden = str(model.architecture), shape.hidden_size
    yield "token_embd.weight", (hidden, shape.vocab_size)
    if not shape.tie_word_embeddings and not shape.no_lm_head:
        yield "output.weight", (hidden, shape.vocab_size)
    if shape.lm_head_bias:
        yield "output.bias", (shape.vocab_size,)
    if shape.final_norms:
        # encoders have theirs on the embedding; LFM2 calls it so
        on_embedding = shape.no_lm_head or arch.startswith("lfm2")
        yield from _norm("token_embd_norm" if on_embedding else "output_norm", shape)
    if shape.learned_positions:
        yield "position_embd.weight", (hidden, shape.learned_positions)
    if shape.no_lm_head:
        yield "token_types.weight", (hidden, 2)
    if shape.per_layer_embedding_params:
        yield "per_layer_token_embd.weight", (256 * shape.n_layers, shape.vocab_size)
        yield "per_layer_model_proj.weight", (hidden, 256 * shape.n_layers)
        yield "per_layer_proj_norm.weight", (256,)
    if arch == "gemma3n":
        yield "altup_proj.weight", (hidden, hidden, 3)
        yield "altup_unembd_proj.weight", (hidden, hidden, 3)
    if arch == "deepseek4":
        yield "output_hc_fn.weight", (4 * hidden, 4)
        yield "output_hc_base.weight", (4,)
        yield "output_hc_scale.weight", (1,)
    if arch == "qwen4exp":
        yield from _low_rank("output_hc", hidden)
    if shape.lookup_params:
        width = next(hidden // kind.ngrams.heads for kind in shape.kinds if kind.ngrams)
        yield "per_layer_token_embd.weight", (width, shape.lookup_params // width)
    yield from _rope_factors(model, shape)
    layers = list(shape.each_layer())
    for i, layer in enumerate(layers):
        for name, dims in _layer(arch, shape, layer):
            yield f"blk.{i}.{name}", dims
    if arch in PREDICTING:
        yield from ((f"blk.{len(layers)}.{name}", dims) for name, dims in _layer(arch, shape, layers[-1]))
        yield f"blk.{len(layers)}.nextn.eh_proj.weight", (2 * hidden, hidden)
        for name in ("enorm", "hnorm", "shared_head_norm"):
            yield f"blk.{len(layers)}.nextn.{name}.weight", (hidden,)


def _rope_factors(model: Model, shape: Shape) -> Rows:
    """Frequency factors, as the converters add them."""
    heads = [each for each in map(_attention_of, shape.each_layer()) if each is not None]
    if not heads:
        return
    full = next((each for each in heads if each.window is None), heads[0])
    arch, half = model.architecture, full.head_dim // 2
    if arch in ("llama", "deci") and 128256 <= shape.vocab_size <= 128512 and model.context_tokens > 8192:
        yield "rope_freqs.weight", (half,)
    if arch in ("exaone4", "apertus", "gemma4") or (arch == "llama4" and model.context_tokens > 1 << 20):
        yield "rope_freqs.weight", (half,)
    if (arch in ("phi3", "phimoe") and model.context_tokens > 16384) or arch == "minicpm":
        half = round(full.head_dim * (0.75 if shape.vocab_size == 200064 else 1)) // 2
        yield "rope_factors_long.weight", (half,)
        yield "rope_factors_short.weight", (half,)


def _norm(name: str, shape: Shape) -> Rows:
    yield f"{name}.weight", (shape.hidden_size,)
    if shape.norm_factor == 2:
        yield f"{name}.bias", (shape.hidden_size,)


def _layer(arch: str, shape: Shape, layer: Layer) -> Rows:
    hidden = shape.hidden_size
    names = NORMS.get(arch, ("attn_norm", "ffn_norm")) if layer.norms <= 2 else FOUR_NORMS
    names += ("post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2") if layer.norms > 4 else ()
    for name in names[: layer.norms]:
        if (arch, name) == ("falcon-h1", "ffn_norm"):
            yield name, (hidden,)
        else:
            yield from _norm(name, shape)
    parts = layer.mixer.parts if isinstance(layer.mixer, ParallelMixers) else (layer.mixer,)
    for mixer in parts:
        yield from _mixer(arch, shape, mixer)
    yield from _feed_forward(arch, hidden, layer.ffn)
    if isinstance(layer.ffn, MixtureOfExperts) and layer.ffn.hash_routed:
        yield "ffn_gate_tid2eid.weight", (layer.ffn.experts_per_token, shape.vocab_size)
    if arch == "qwen4exp":
        for name in ("hc_attn", "hc_ffn"):
            yield from _low_rank(name, hidden)
            yield f"{name}_inject.weight", (4 * hidden, 4)
    if layer.ngrams:
        yield "ple_key.weight", (hidden, 4 * hidden)
        yield "ple_value.weight", (hidden, hidden)
        for name in ("key", "query", "conv"):
            yield f"ple_norm_{name}.weight", (4 * hidden,)
        yield "ple_conv1d.weight", (layer.ngrams.conv_kernel, 4 * hidden)
    if arch in ("deepseek4", "glm5-next"):
        for name in ("attn", "ffn"):
            yield f"hc_{name}_fn.weight", (4 * hidden, 24)
            yield f"hc_{name}_base.weight", (24,)
            yield f"hc_{name}_scale.weight", (3,)
    if shape.per_layer_embedding_params:
        yield "inp_gate.weight", (hidden, 256)
        yield "proj.weight", (256, hidden)
        yield "post_norm.weight", (hidden,)
    if arch == "gemma4":
        yield "layer_output_scale.weight", (1,)
    if arch == "gemma3n":
        yield "altup_correct_coef.weight", (4, 4)
        yield "altup_correct_scale.weight", (hidden,)
        yield "altup_predict_coef.weight", (4, 16)
        yield "altup_router.weight", (hidden, 4)
        yield "altup_router_norm.weight", (hidden,)
        yield "laurel_l.weight", (hidden, 64)
        yield "laurel_r.weight", (64, hidden)
        yield "laurel_post_norm.weight", (hidden,)


def _low_rank(name: str, hidden: int) -> Rows:
    yield f"{name}_norm.weight", (4 * hidden,)
    yield f"{name}_down.weight", (4 * hidden, 320)
    yield f"{name}_up.weight", (320, 4 * hidden)


def _mixer(arch: str, shape: Shape, m: Any) -> Rows:
    hidden = shape.hidden_size
    if isinstance(m, Attention):
        yield from _attention(arch, hidden, m)
    elif isinstance(m, LatentAttention):
        yield from _latent(hidden, m)
        if arch == "glm5-next" and m.indexer is not None:
            yield "indexer_compressor_gate.weight", (hidden, m.indexer.head_dim)
            yield "indexer_compressor_ape.weight", (m.indexer.head_dim, 4)
    elif isinstance(m, CompressedAttention):
        yield from _compressed(hidden, m)
    elif isinstance(m, Mamba1):
        yield "ssm_in.weight", (hidden, 2 * m.d_inner)
        yield "ssm_conv1d.weight", (m.conv_kernel, m.d_inner)
        yield "ssm_conv1d.bias", (m.d_inner,)
        yield "ssm_x.weight", (m.d_inner, m.dt_rank + 2 * m.d_state)
        yield "ssm_dt.weight", (m.dt_rank, m.d_inner)
        yield "ssm_dt.bias", (m.d_inner,)
        yield "ssm_a", (m.d_state, m.d_inner)
        yield "ssm_d", (m.d_inner,)
        yield "ssm_out.weight", (m.d_inner, hidden)
        if m.inner_norms:
            yield "ssm_dt_norm.weight", (m.dt_rank,)
            yield "ssm_b_norm.weight", (m.d_state,)
            yield "ssm_c_norm.weight", (m.d_state,)
    elif isinstance(m, Mamba2):
        channels = m.d_inner + 2 * m.n_groups * m.d_state
        yield "ssm_in.weight", (hidden, m.d_inner + channels + m.n_heads)
        yield "ssm_conv1d.weight", (m.conv_kernel, channels)
        yield "ssm_conv1d.bias", (channels,)
        yield "ssm_dt.bias", (m.n_heads,)
        yield "ssm_a", (1, m.n_heads)
        yield "ssm_d", (1, m.n_heads)
        if m.norm:
            yield "ssm_norm.weight", (m.d_inner // m.n_groups, m.n_groups)
        yield "ssm_out.weight", (m.d_inner, hidden)
    elif isinstance(m, GatedDeltaNet):
        value, channels = m.n_v_heads * m.v_head_dim, 2 * m.n_k_heads * m.k_head_dim + m.n_v_heads * m.v_head_dim
        yield "attn_qkv.weight", (hidden, channels)
        yield "attn_gate.weight", (hidden, value)
        yield "ssm_conv1d.weight", (m.conv_kernel, channels)
        yield "ssm_dt.bias", (m.n_v_heads,)
        yield "ssm_a", (m.n_v_heads,)
        yield from _alpha_beta(arch, hidden, m)
        yield "ssm_norm.weight", (m.v_head_dim,)
        yield "ssm_out.weight", (value, hidden)
    elif isinstance(m, KimiDelta):
        yield from _kimi_delta(arch, hidden, m)
    elif isinstance(m, ShortConvolution):
        yield "shortconv.in_proj.weight", (hidden, 3 * m.channels)
        yield "shortconv.conv.weight", (m.conv_kernel, m.channels)
        yield "shortconv.out_proj.weight", (m.channels, hidden)
    elif isinstance(m, LightningAttention):
        inner = m.n_heads * m.head_dim
        yield "attn_norm_2.weight", (inner,)
        yield "attn_qkv.weight", (hidden, 3 * inner)
        yield "attn_gate.weight", (hidden, inner)
        yield "attn_output.weight", (inner, hidden)


def _alpha_beta(arch: str, hidden: int, m: GatedDeltaNet) -> Rows:
    if arch == "qwen3next":
        yield "ssm_ba.weight", (hidden, 2 * m.n_v_heads)
    else:
        yield "ssm_alpha.weight", (hidden, m.n_v_heads)
        yield "ssm_beta.weight", (hidden, m.n_v_heads)


def _attention(arch: str, hidden: int, a: Attention) -> Rows:
    value = a.v_head_dim or a.head_dim
    has_kv = not a.kv_shared or arch in ("gemma3n", "gemma4")
    widths = {"q": a.n_heads * a.head_dim, "k": a.n_kv_heads * a.head_dim, "v": a.n_kv_heads * value}
    if arch in FUSED:
        yield "attn_qkv.weight", (hidden, sum(widths.values()))
        if "q" in a.bias:
            yield "attn_qkv.bias", (sum(widths.values()),)
    else:
        for letter, width in widths.items():
            if (letter != "q" and not has_kv) or (letter == "v" and a.k_eq_v):
                continue
            yield f"attn_{letter}.weight", (hidden, width * (2 if letter == "q" and a.gate == "q_double" else 1))
            if letter in a.bias:
                yield f"attn_{letter}.bias", (width,)
    yield "attn_output.weight", (a.n_heads * value, hidden)
    if "o" in a.bias:
        yield "attn_output.bias", (hidden,)
    if a.gate in ("full", "per_head"):
        yield "attn_gate.weight", (hidden, a.n_heads * value if a.gate == "full" else a.n_heads)
    if a.qk_norm or arch == "muse-glimmer":  # whose converter makes them up
        per_head = a.qk_norm != "full"
        yield "attn_q_norm.weight", (a.head_dim if per_head else widths["q"],)
        if has_kv:
            yield "attn_k_norm.weight", (a.head_dim if per_head else widths["k"],)
    if a.sinks:
        yield "attn_sinks.weight", (a.n_heads,)
    if arch == "qwen4exp":
        yield "indexer.q_proj.weight", (hidden, 512)
        yield "indexer.k_proj.weight", (hidden, 128)
        yield "indexer.q_norm.weight", (128,)
        yield "indexer.k_norm.weight", (128,)


def _latent(hidden: int, a: LatentAttention) -> Rows:
    key = a.qk_nope_head_dim + a.qk_rope_head_dim
    if a.q_lora_rank:
        yield "attn_q_a.weight", (hidden, a.q_lora_rank)
        yield "attn_q_a_norm.weight", (a.q_lora_rank,)
        yield "attn_q_b.weight", (a.q_lora_rank, a.n_heads * key)
    else:
        yield "attn_q.weight", (hidden, a.n_heads * key)
    yield "attn_kv_a_mqa.weight", (hidden, a.kv_lora_rank + a.qk_rope_head_dim)
    yield "attn_kv_a_norm.weight", (a.kv_lora_rank,)
    yield "attn_k_b.weight", (a.qk_nope_head_dim, a.kv_lora_rank, a.n_heads)
    yield "attn_v_b.weight", (a.kv_lora_rank, a.v_head_dim, a.n_heads)
    yield "attn_output.weight", (a.n_heads * a.v_head_dim, hidden)
    if a.indexer is not None:
        yield "indexer.attn_q_b.weight", (a.q_lora_rank or hidden, a.indexer.n_heads * a.indexer.head_dim)
        yield "indexer.attn_k.weight", (hidden, a.indexer.head_dim)
        yield "indexer.proj.weight", (hidden, a.indexer.n_heads)
        yield "indexer.k_norm.weight", (a.indexer.head_dim,)
        yield "indexer.k_norm.bias", (a.indexer.head_dim,)


def _compressed(hidden: int, a: CompressedAttention) -> Rows:
    yield "attn_q_a.weight", (hidden, a.q_lora_rank)
    yield "attn_q_a_norm.weight", (a.q_lora_rank,)
    yield "attn_q_b.weight", (a.q_lora_rank, a.n_heads * a.head_dim)
    yield "attn_kv.weight", (hidden, a.head_dim)
    yield "attn_kv_a_norm.weight", (a.head_dim,)
    yield "attn_sinks.weight", (a.n_heads,)
    yield "attn_output_a.weight", (a.n_heads * a.head_dim // a.o_groups, a.o_lora_rank * a.o_groups)
    yield "attn_output_b.weight", (a.o_groups * a.o_lora_rank, hidden)
    if a.compress_ratio:
        yield from _compressor("attn", hidden, a.head_dim, a.compress_ratio)
    if a.indexer is not None:
        yield "indexer.proj.weight", (hidden, a.indexer.n_heads)
        yield "indexer.attn_q_b.weight", (a.q_lora_rank, a.indexer.n_heads * a.indexer.head_dim)
        yield from _compressor("indexer", hidden, a.indexer.head_dim, a.compress_ratio)


def _compressor(name: str, hidden: int, head: int, ratio: int) -> Rows:
    width = head * (2 if ratio == 4 else 1)
    yield f"{name}_compressor_kv.weight", (hidden, width)
    yield f"{name}_compressor_gate.weight", (hidden, width)
    yield f"{name}_compressor_ape.weight", (width, ratio)
    yield f"{name}_compressor_norm.weight", (head,)


def _kimi_delta(arch: str, hidden: int, m: KimiDelta) -> Rows:
    inner = m.n_heads * m.head_dim
    for letter in "qkv":
        yield f"attn_{letter}.weight", (hidden, inner)
        yield f"ssm_conv1d_{letter}.weight", (m.conv_kernel, 1, inner)
    for name, full in (("f", m.full_rank_decay), ("g", m.full_rank_gate)):
        if full:
            yield f"ssm_{name}.weight", (hidden, inner)
        else:
            yield f"ssm_{name}_a.weight", (hidden, m.head_dim)
            yield f"ssm_{name}_b.weight", (m.head_dim, inner)
    yield "ssm_beta.weight", (hidden, m.n_heads)
    yield "ssm_a", (m.n_heads,) if arch == "glm5-next" else (1, m.n_heads)
    yield "ssm_dt.bias", (inner,)
    yield "ssm_norm.weight", (m.head_dim,)
    yield "attn_output.weight", (inner, hidden)


def _feed_forward(arch: str, hidden: int, f: Any) -> Rows:
    if isinstance(f, DenseFeedForward):
        yield from _mlp("", hidden, f.intermediate_size, f.gated, f.bias, fused=arch in FUSED_GATE)
    if not isinstance(f, MixtureOfExperts):
        return
    yield "ffn_gate_inp.weight", (hidden, f.router_outputs or f.n_experts)
    if f.router_bias:
        name = {"gpt-oss": "ffn_gate_inp.bias", "hy_v3": "exp_probs_b"}.get(arch, "exp_probs_b.bias")
        yield name, (f.router_outputs or f.n_experts,)
    yield from _mlp("_exps", f.latent or hidden, f.moe_intermediate_size, f.gated, f.bias, f.n_experts)
    shared = f.shared_intermediate_size or f.n_shared * f.moe_intermediate_size
    if shared:
        yield from _mlp("_shexp", hidden, shared, f.gated)
    if f.shared_gate:
        yield "ffn_gate_inp_shexp.weight", (hidden,)
    if f.dense_parallel:
        yield from _mlp("", hidden, f.dense_parallel, f.gated)
    if arch == "gemma4":
        yield "ffn_gate_inp.scale", (hidden,)
        yield "ffn_down_exps.scale", (f.n_experts,)
    if f.latent:
        yield "ffn_latent_down.weight", (hidden, f.latent)
        yield "ffn_latent_up.weight", (f.latent, hidden)


def _mlp(
    suffix: str, hidden: int, width: int, gated: bool, bias: bool = False, stack: int = 1, fused: bool = False
) -> Rows:
    depth = (stack,) if stack > 1 else ()
    if gated and not fused:
        yield f"ffn_gate{suffix}.weight", (hidden, width, *depth)
    yield f"ffn_up{suffix}.weight", (hidden, width * (2 if fused else 1), *depth)
    yield f"ffn_down{suffix}.weight", (width, hidden, *depth)
    if bias:
        for name in (("gate",) if gated and not fused else ()) + ("up",):
            yield f"ffn_{name}{suffix}.bias", (width, *depth)
        yield f"ffn_down{suffix}.bias", (hidden, *depth)
