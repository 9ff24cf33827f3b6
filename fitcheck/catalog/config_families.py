"""Hugging Face model types: which llama.cpp architecture each one is, and what its configuration leaves unsaid.

Source: the modeling files of transformers 5.23.0 and llama.cpp's converters (0c1e570). Values that a config.json leaves
out are in ``data/config_defaults.json``.
"""

from __future__ import annotations

from msgspec import Struct

from fitcheck.catalog.gguf_architectures import ARCHITECTURES, Architecture, Windows


class Family(Struct, frozen=True):
    """A model type.

    ``architecture``: llama.cpp's name, None where it has no loader. ``row``: the structure. ``bias_flag`` is the field
    that switches biases of ``bias_letters`` projections on (without it, the row decides); ``mlp_bias_flag`` and
    ``qk_norm_flag`` likewise. ``extras``: what it has beyond the forms, a key of ``config_extras.EXTRAS``.
    ``position_offset``: rows of the position table beyond the context. ``windowed_kv_factor``: how many times the
    key-value heads layers with a sliding window have.
    """

    architecture: str | None
    row: Architecture
    bias_flag: str | None = None
    bias_letters: str = "qkvo"
    mlp_bias_flag: str | None = None
    qk_norm_flag: str | None = None
    position_offset: int = 0
    lm_head_bias: bool = False
    feed_forward: bool = True
    windowed_kv_factor: int = 1
    extras: str | None = None


def _like(architecture: str, **changes: object) -> Architecture:
    """The row of an architecture with some fields changed."""
    from msgspec.structs import replace

    return replace(ARCHITECTURES[architecture], **changes)


_LLAMA = ARCHITECTURES["llama"]
_WINDOWED = Windows()


def _llama(architecture: str | None = "llama", **fields: object) -> Family:
    return Family(architecture, _LLAMA, **fields)  # type: ignore[arg-type]


def _of(architecture: str, **fields: object) -> Family:
    return Family(architecture, ARCHITECTURES[architecture], **fields)  # type: ignore[arg-type]


FAMILIES: dict[str, Family] = {
    # plain dense models
    "llama": _llama(bias_flag="attention_bias", mlp_bias_flag="mlp_bias"),
    "mistral": _llama(),
    "ministral": Family("llama", _like("llama", windows=_WINDOWED)),
    "ministral3": _of("mistral3"),
    "mixtral": _llama(),
    "yi": _llama(),
    "internlm3": _llama(),
    "iquestcoder": _llama(None),
    "aquila": _llama(),
    "helium": _llama(None, bias_flag="attention_bias"),
    "cwm": Family("llama", _like("llama", windows=_WINDOWED)),
    "arcee": _of("arcee", bias_flag="attention_bias", mlp_bias_flag="mlp_bias"),
    "smollm3": _of("smollm3", bias_flag="attention_bias", mlp_bias_flag="mlp_bias"),
    "ernie4_5": _of("ernie4_5", bias_flag="use_bias"),
    "granite": _of("granite", bias_flag="attention_bias", mlp_bias_flag="mlp_bias"),
    "seed_oss": _of("seed_oss", bias_flag="attention_bias", bias_letters="qkv", mlp_bias_flag="mlp_bias"),
    "qwen2": _of("qwen2"),
    "qwen3": _of("qwen3", bias_flag="attention_bias"),
    "hunyuan_v1_dense": _of("hunyuan-dense", bias_flag="attention_bias"),
    "exaone4": _of("exaone4"),
    "apertus": Family("apertus", _like("arcee", qk_norm="per_head"), bias_flag="attention_bias", extras="activation"),
    "nanochat": Family(None, _like("arcee", norms=0, final_norms=0), bias_flag="attention_bias"),
    "nemotron": _of("nemotron", bias_flag="attention_bias", mlp_bias_flag="mlp_bias"),
    "bitnet": Family("bitnet", _like("llama", norms=4), extras="inner_norms"),
    "glm": _of("chatglm", bias_flag="attention_bias", bias_letters="qkv"),
    "glm4": _of("glm4", bias_flag="attention_bias", bias_letters="qkv"),
    "phi3": _of("phi3"),
    "phi4_multimodal": _of("phi3"),
    "phi": _of("phi2", lm_head_bias=True, qk_norm_flag="qk_layernorm"),
    "gemma": _of("gemma", bias_flag="attention_bias"),
    "gemma2": _of("gemma2", bias_flag="attention_bias"),
    "gemma3_text": _of("gemma3", bias_flag="attention_bias"),
    "vaultgemma": Family(None, _like("gemma", windows=_WINDOWED), bias_flag="attention_bias"),
    "olmo": _of("olmo", bias_flag="attention_bias"),
    "olmo2": _of("olmo2", bias_flag="attention_bias"),
    "olmo3": _of("olmo2", bias_flag="attention_bias"),
    "cohere": _of("command-r", bias_flag="attention_bias", qk_norm_flag="use_qk_norm"),
    "cohere2": _of("cohere2", bias_flag="attention_bias"),
    "starcoder2": _of("starcoder2", bias_flag="use_bias", mlp_bias_flag="use_bias"),
    "stablelm": _of("stablelm", bias_flag="use_qkv_bias", bias_letters="qkv"),
    "gpt2": _of("gpt2"),
    "gpt_bigcode": _of("starcoder"),
    "gpt_neox": _of("gptneox", bias_flag="attention_bias"),
    "gptj": Family("gptj", _like("phi2", bias=""), lm_head_bias=True),
    "codegen": Family("codegen", _like("phi2", bias=""), lm_head_bias=True),
    "opt": Family(None, _like("gpt2"), bias_flag="enable_bias", mlp_bias_flag="enable_bias", position_offset=2),
    "bloom": Family("bloom", _like("gptneox"), extras="embedding_norm"),
    "mpt": Family("mpt", _like("gptneox", bias="", bias_ffn=False, norm_factor=1)),
    "falcon": _of("falcon", bias_flag="bias", mlp_bias_flag="bias"),
    "persimmon": Family("persimmon", _like("gptneox", qk_norm="per_head")),
    "minicpm": _of("minicpm"),
    "jais2": Family("jais2", _like("gptneox"), bias_flag="attention_bias", mlp_bias_flag="mlp_bias"),
    "hyperclovax": _llama(bias_flag="attention_bias", mlp_bias_flag="mlp_bias"),
    "granite_swa": Family("granite_swa", _like("granite", windows=_WINDOWED), bias_flag="attention_bias"),
    # mixtures of experts
    "qwen2_moe": _of("qwen2moe", bias_flag="qkv_bias", bias_letters="qkv"),
    "qwen3_moe": _of("qwen3moe", bias_flag="attention_bias"),
    "granitemoe": _of("granitemoe", bias_flag="attention_bias"),
    "granitemoeshared": _of("granitemoe", bias_flag="attention_bias"),
    "olmoe": _of("olmoe", bias_flag="attention_bias"),
    "flex_olmo": Family(None, _like("olmoe"), bias_flag="attention_bias"),
    "phimoe": _of("phimoe", bias_flag="attention_bias"),
    "gpt_oss": _of("gpt-oss", bias_flag="attention_bias"),
    "glm4_moe": _of("glm4moe", bias_flag="attention_bias", bias_letters="qkv", qk_norm_flag="use_qk_norm"),
    "dots1": _of("dots1", bias_flag="attention_bias"),
    "ernie4_5_moe": Family("ernie4_5-moe", _like("ernie4_5-moe", router_bias=True), bias_flag="use_bias"),
    "hunyuan_v1_moe": _of("hunyuan-moe", bias_flag="attention_bias"),
    "hy_v3": _of("hy_v3", bias_flag="attention_bias"),
    "minimax_m2": _of("minimax-m2"),
    "llama4_text": _of("llama4", bias_flag="attention_bias"),
    "exaone_moe": _of("exaone-moe"),
    "solar_open": Family("glm4moe", _like("glm4moe", bias=""), bias_flag="attention_bias", bias_letters="qkv"),
    "afmoe": _of("afmoe"),
    "mellum": _of("mellum", bias_flag="attention_bias"),
    "mimo_v2_flash": _of("mimo2", windowed_kv_factor=2),
    "laguna": _of("laguna"),
    "cohere2_moe": _of("cohere2moe", bias_flag="attention_bias"),
    # latent attention
    "deepseek_v2": _of("deepseek2", bias_flag="attention_bias"),
    "deepseek_v3": Family("deepseek2", _like("deepseek2", router_bias=True), bias_flag="attention_bias"),
    "kimi_k2": Family("deepseek2", _like("deepseek2", router_bias=True), bias_flag="attention_bias"),
    "deepseek_v32": Family("deepseek32", _like("deepseek32", router_bias=True), bias_flag="attention_bias"),
    "glm4_moe_lite": Family("deepseek2", _like("deepseek2", router_bias=True), bias_flag="attention_bias"),
    "glm_moe_dsa": Family("glm-dsa", _like("glm-dsa", router_bias=True), bias_flag="attention_bias"),
    "minicpm3": Family("minicpm3", _like("minicpm3")),
    "youtu": Family("deepseek2", _like("deepseek2")),
    "mistral4": Family("mistral4", _like("mistral4", router_bias=True)),
    # recurrent and hybrid models
    "mamba": _of("mamba", feed_forward=False),
    "falcon_mamba": _of("mamba", feed_forward=False),
    "mamba2": _of("mamba2", feed_forward=False),
    "jamba": _of("jamba"),
    "bamba": Family(None, _like("granitehybrid", recurrent_layers="all"), bias_flag="attention_bias"),
    "granitemoehybrid": Family(
        "granitehybrid", _like("granitehybrid", recurrent_layers="all"), bias_flag="attention_bias"
    ),
    "nemotron_h": _of("nemotron_h", bias_flag="attention_bias", mlp_bias_flag="mlp_bias"),
    "falcon_h1": _of("falcon-h1", bias_flag="attention_bias", mlp_bias_flag="mlp_bias"),
    "lfm2": _of("lfm2"),
    "lfm2_moe": _of("lfm2moe"),
    "qwen3_next": _of("qwen3next", bias_flag="attention_bias"),
    "qwen3_5_text": _of("qwen35", bias_flag="attention_bias"),
    "qwen3_5_moe_text": _of("qwen35moe", bias_flag="attention_bias"),
    "kimi_linear": _of("kimi-linear"),
    # text parts of multimodal models
    "qwen2_vl_text": _of("qwen2vl"),
    "qwen2_5_vl_text": _of("qwen2vl"),
    "qwen3_vl_text": _of("qwen3vl", bias_flag="attention_bias"),
    "qwen3_vl_moe_text": _of("qwen3vlmoe", bias_flag="attention_bias"),
    "glm4v_text": _of("glm4"),
    "glm4v_moe_text": _of("glm4moe", bias_flag="attention_bias", bias_letters="qkv", qk_norm_flag="use_qk_norm"),
    "gemma3n_text": _of("gemma3n", bias_flag="attention_bias", extras="alternating_updates"),
    "gemma4_text": _of("gemma4", bias_flag="attention_bias", extras="per_layer_input"),
    "gemma4_unified_text": _of("gemma4", bias_flag="attention_bias", extras="per_layer_input"),
    "mllama_text_model": Family(None, _LLAMA),
    # encoders
    "bert": _of("bert", extras="token_types_and_pooler"),
    "roberta": _of("bert", extras="token_types_and_pooler"),
    "xlm-roberta": _of("bert", extras="token_types_and_pooler"),
    "modernbert": Family("modern-bert", _like("modern-bert")),
    "nomic_bert": _of("nomic-bert", extras="token_types"),
}
