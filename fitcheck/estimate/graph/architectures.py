"""What each architecture's graph does differently, as data: one row per name that llama.cpp knows.

Sizes, biases, gates and norms of Q and K come from the ``Shape``; a row holds what a shape does not tell. Operations
that always run in place (scales, soft caps, biases) take no room and are left out.
Source: llama.cpp 0c1e57098, src/models/*.cpp. How to add a row: docs/compute-buffers.md.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.types import MixtureOfExperts


class Traits(Struct, frozen=True):
    """One architecture. The defaults are those of Llama.

    ``norm``: RMS_NORM or NORM (layer norm); ``norm_bias`` and ``norm_weight``: what it carries. ``qk_norm``: the kind
    of norm over Q and K; ``always_norms_qk``: even where its weights are all ones; ``norms_rotary_key``: over the
    part of latent attention's K that is rotated; ``norms_rotated``: after rope.
    ``pre_norm`` / ``post_norm``: norms before and after attention and feed-forward; ``post_norm_first``: the one
    after attention comes before the last layer's rows are gathered. ``parallel``: attention and feed-forward read the
    same input; the word order is that of the sum (a: attention, f: feed-forward, x: the layer's input).
    ``parallel_norm``: the feed-forward has a norm of its own. ``residual_first``: which sums name the residual first:
    "a" after attention, "f" after the feed-forward. ``normed_residual``: what is added is the normed input. ``qkv``:
    split, fused (one tensor) or flat (norms run over whole projections). ``rope``: all layers, none, windows (only
    layers with a window, if the model has any), windows_or_dense (the dense layers too) three_of_four, or
    of_32_layers (a model of another depth has none). ``positions``: positions per token, 0 without a position input.
    ``windows``: the engine keeps the sliding window. ``deep_inputs``: parts of the embedding that the first layers
    add to their result (images). ``attention_scale``: an input with one factor per token; ``scales_unrotated_q``:
    only layers without rope use it. ``sub_norms``: norms before both output projections. ``host_output``: the output
    matrix is the embedding on the host. ``dense``: split, or fused (gate and up in one tensor). ``squares``: the
    activation is relu squared. ``gating``: softmax, sigmoid, softmax_of_chosen, sqrt_softplus or by_bias (sigmoid where
    experts have a selection bias). ``normalises_weights``: whether the chosen experts' weights are made to add up to
    one (None: as the model says); ``scales_weights``: whether they are scaled, where the model does not say.
    ``weighs_input``:
    experts get their input weighted (Llama 4); ``routes_input``: they are chosen by the layer's input (SmallThinker).
    ``ranks_by_sigmoid``: they are chosen by a sigmoid beside the softmax that weighs them.
    ``cached``: whether keys and values are kept at all (not in diffusion models). ``scales_state``: the normed state
    is kept and scaled before the output matrix. ``embedding_norm``: the embedding has a norm, plain or weighted.
    ``fused_experts``: gate and up in one tensor. ``divides_shared_gate``: Qwen2-MoE's spelling of a sigmoid.
    ``repeats_delta_heads``: Qwen3-Next. ``copies_tails``: what a convolution keeps is copied before it is written.
    ``gates_latent``: latent attention has a gate per head; ``full_rank_delta``:
    decay and gate of Kimi delta attention are one matrix each; ``bounded_decay``: its decay has a lower bound.
    ``bends_gate``: gated units bend both branches by tanh. ``rotates_index``: the indexer's Q and K are rotated;
    ``sparse_blocks``: layers with an indexer see blocks of it. ``late``: all rows go through the last layer and stay:
    the normed or the raw state. ``pooling``: of an embedding model, where the shape does not say: cls or mean.
    ``family``: whose graph it is.
    """

    norm: str = "RMS_NORM"
    norm_bias: bool = False
    norm_weight: bool = True
    qk_norm: str = "RMS_NORM"
    always_norms_qk: bool = False
    norms_rotary_key: bool = False
    norms_rotated: bool = False
    pre_norm: bool = True
    post_norm: bool = False
    post_norm_first: bool = False
    parallel: str = ""
    parallel_norm: bool = False
    residual_first: str = ""
    normed_residual: bool = False
    qkv: str = "split"
    rope: str = "all"
    positions: int = 1
    windows: bool = False
    scaled_embedding: bool = False
    scales_state: bool = False
    deep_inputs: int = 0
    embedding_norm: str = ""
    cached: bool = True
    attention_scale: bool = False
    scales_unrotated_q: bool = False
    sub_norms: bool = False
    host_output: bool = False
    dense: str = "split"
    squares: bool = False
    gating: str = "softmax"
    normalises_weights: bool | None = True
    scales_weights: bool = False
    weighs_input: bool = False
    routes_input: bool = False
    ranks_by_sigmoid: bool = False
    fused_experts: bool = False
    divides_shared_gate: bool = False
    repeats_delta_heads: bool = False
    copies_tails: bool = False
    gates_latent: bool = False
    full_rank_delta: bool = False
    bounded_decay: bool = False
    bends_gate: bool = False
    rotates_index: bool = True
    sparse_blocks: bool = False
    anchored: bool = False
    late: str = ""
    pooling: str = "cls"
    family: str = "decoder"

    def gating_of(self, spec: MixtureOfExperts) -> str:
        """How router logits become weights."""
        if spec.gating:
            return spec.gating
        if self.gating == "by_bias":
            return "sigmoid" if spec.router_bias else "softmax"
        return self.gating

    def biases_choice(self, spec: MixtureOfExperts) -> bool:
        """Whether a bias is added to what experts are chosen by."""
        if self.gating == "softmax_of_chosen":  # there the router itself has a bias
            return False
        return spec.router_bias or (self.gating == "by_bias" and spec.gating == "sigmoid")

    def normalises(self, spec: MixtureOfExperts) -> bool:
        """Whether the weights of the chosen experts are made to add up to one."""
        if self.normalises_weights is not None:
            return self.normalises_weights
        if spec.normalises_weights is not None:
            return spec.normalises_weights
        return self.gating_of(spec) != "softmax"

    def scales(self, spec: MixtureOfExperts) -> bool:
        """Whether the weights of the chosen experts are scaled."""
        if spec.weights_scale is not None:
            return spec.weights_scale not in (0.0, 1.0)
        return self.scales_weights and self.gating_of(spec) != "softmax"


_LLAMA = Traits()
_LAYER_NORM = Traits(norm="NORM", norm_bias=True)
_SANDWICH = Traits(post_norm=True)
_DEEPSEEK = Traits(gating="by_bias", normalises_weights=None, scales_weights=True)
_SIGMOID = Traits(gating="sigmoid", normalises_weights=None, scales_weights=True)
_DELTA_NET = Traits(positions=4, anchored=True, late="normed")
_NEMOTRON_H = Traits(positions=0, rope="none", squares=True, gating="sigmoid", normalises_weights=None, late="normed")
_ENCODER = Traits(norm="NORM", norm_bias=True, pre_norm=False, rope="none", family="encoder")


def _same(names: str, traits: Traits) -> dict[str, Traits]:
    return dict.fromkeys(names.split(), traits)


ARCHITECTURES: dict[str, Traits] = {
    **_same(
        "llama qwen2 qwen3 qwen3moe ernie4_5 ernie4_5-moe internlm2 arcee seed_oss exaone xverse maincoder "
        "deci pangu-embedded",
        _LLAMA,
    ),
    "mistral3": Traits(attention_scale=True),
    **_same("dream llada rnd1", Traits(cached=False)),
    "llada-moe": Traits(cached=False, normalises_weights=False),
    **_same("hunyuan-dense hunyuan-moe", Traits(norms_rotated=True)),
    "smollm3": Traits(rope="three_of_four"),
    **_same("granite granitemoe minicpm", Traits(scaled_embedding=True)),
    "minicpm3": Traits(scaled_embedding=True, scales_state=True),
    "chatglm": Traits(dense="fused"),
    "qwen": Traits(qkv="fused"),
    "refact": Traits(rope="none"),
    "openelm": Traits(qkv="fused", residual_first="a"),
    "plamo": Traits(parallel="fax"),
    "plamo2": replace(_SANDWICH, qkv="fused", dense="fused", family="plamo2"),
    "plamo3": replace(_SANDWICH, qkv="fused", dense="fused", windows=True),
    "baichuan": Traits(rope="of_32_layers"),
    "deepseek": Traits(normalises_weights=False),
    "bailingmoe": Traits(normalises_weights=None),
    "orion": _LAYER_NORM,
    "mpt": replace(_LAYER_NORM, qkv="fused", rope="none"),
    "bloom": replace(_LAYER_NORM, qkv="fused", rope="none", positions=0, embedding_norm="weighted"),
    "jais": replace(_LAYER_NORM, qkv="fused", rope="none", positions=0),
    "jais2": replace(_LAYER_NORM, squares=True),
    "codeshell": replace(_LAYER_NORM, qkv="fused"),
    "dbrx": Traits(norm="NORM", qkv="fused"),
    "grok": replace(_SANDWICH, scaled_embedding=True),
    "granite_swa": Traits(scaled_embedding=True, windows=True),
    "spark2_5": Traits(windows=True),
    "smallthinker": Traits(windows=True, rope="windows", routes_input=True),
    "qwen2moe": Traits(normalises_weights=False, divides_shared_gate=True),
    **_same("qwen2vl paddleocr", Traits(positions=4)),
    "hunyuan_vl": Traits(positions=4, norms_rotated=True),
    **_same("qwen3vl qwen3vlmoe", Traits(positions=4, deep_inputs=3)),
    "olmo": Traits(norm="NORM", norm_weight=False),
    "olmo2": replace(_SANDWICH, pre_norm=False, qkv="flat", windows=True),
    "olmoe": Traits(qkv="flat", normalises_weights=False),
    "exaone4": replace(_SANDWICH, pre_norm=False, rope="windows", windows=True),
    "exaone-moe": replace(_SIGMOID, rope="windows", windows=True),
    "apertus": _LLAMA,
    "bitnet": Traits(sub_norms=True, host_output=True),
    "nanbeige": _LLAMA,
    "phi2": replace(_LAYER_NORM, parallel="afx"),
    "phi3": Traits(qkv="fused", dense="fused", residual_first="f"),
    "phimoe": Traits(norm_bias=True, residual_first="f"),
    "gptneox": replace(_LAYER_NORM, qkv="fused", parallel="fxa", parallel_norm=True),
    "gpt2": replace(_LAYER_NORM, qkv="fused", rope="none"),
    "falcon": replace(_LAYER_NORM, qkv="fused", parallel="fax"),
    "starcoder": replace(_LAYER_NORM, qkv="fused", rope="none"),
    "starcoder2": _LAYER_NORM,
    "stablelm": replace(_LAYER_NORM, qk_norm="NORM"),
    "nemotron": replace(_LAYER_NORM, squares=True),
    "command-r": Traits(norm="NORM", parallel="fxa", qk_norm="NORM"),
    "cohere2": Traits(norm="NORM", parallel="fxa", rope="windows", windows=True),
    "cohere2moe": Traits(
        norm="NORM", parallel="fxa", rope="windows_or_dense", windows=True, gating="sigmoid",
        normalises_weights=None, late="normed",
    ),
    "gemma": Traits(scaled_embedding=True),
    "gemma2": replace(_SANDWICH, scaled_embedding=True, windows=True),
    "gemma3": replace(_SANDWICH, scaled_embedding=True, windows=True),
    "gemma-embedding": Traits(
        post_norm=True, scaled_embedding=True, windows=True, pooling="mean", family="encoder"
    ),
    "gemma3n": Traits(windows=True, family="gemma3n"),
    "gemma4": Traits(windows=True, late="normed", fused_experts=True, family="gemma4"),
    "glm4": replace(_SANDWICH, dense="fused"),
    "glm4moe": _SIGMOID,
    "dots1": _SIGMOID,
    "bailingmoe2": replace(_SIGMOID, qkv="fused"),
    "hy_v3": replace(_SIGMOID, late="normed"),
    "minimax-m2": Traits(qkv="flat", gating="sigmoid"),
    "minimax-m3": replace(_SIGMOID, sparse_blocks=True),
    "mellum": Traits(windows=True),
    "maple": Traits(windows=True, rope="windows"),
    "afmoe": Traits(
        post_norm=True, post_norm_first=True, scaled_embedding=True, windows=True, rope="three_of_four",
        gating="sigmoid", normalises_weights=None, scales_weights=True,
    ),
    "muse-glimmer": Traits(
        always_norms_qk=True, post_norm=True, post_norm_first=True, embedding_norm="plain", windows=True,
        rope="windows",
    ),
    "laguna": replace(_SIGMOID, windows=True),
    "step35": replace(_SIGMOID, windows=True, late="raw"),
    "mimo2": Traits(windows=True, gating="sigmoid"),
    "llama4": Traits(
        windows=True, rope="three_of_four", attention_scale=True, scales_unrotated_q=True, gating="sigmoid",
        normalises_weights=False, weighs_input=True,
    ),
    "gpt-oss": Traits(windows=True, gating="softmax_of_chosen", normalises_weights=False, late="raw"),
    **_same("deepseek2 mistral4", _DEEPSEEK),
    **_same("deepseek32 glm-dsa", _DEEPSEEK),
    "deepseek2-ocr": _DEEPSEEK,
    "dots3note": replace(_DEEPSEEK, norms_rotary_key=True, windows=True),
    "arctic": Traits(family="arctic"),
    "grovemoe": Traits(ranks_by_sigmoid=True),
    "chameleon": Traits(qk_norm="NORM", family="chameleon"),
    "cogvlm": Traits(qkv="fused", family="cogvlm"),
    "hrm_text": Traits(norm_weight=False, scaled_embedding=True, family="hrm_text"),
    "talkie": Traits(
        norm_weight=False, embedding_norm="plain", always_norms_qk=True, norms_rotated=True, family="talkie"
    ),
    "deepseek4": Traits(
        gating="sqrt_softplus", normalises_weights=None, scales_weights=True, family="deepseek4",
    ),
    "kimi-linear": Traits(anchored=True, rope="none", gating="sigmoid", scales_weights=True),
    "bailingmoe3": replace(_SIGMOID, gates_latent=True, full_rank_delta=True, bounded_decay=True, late="normed"),
    "kimi-k3": Traits(
        anchored=True, rope="none", gating="sigmoid", normalises_weights=None, scales_weights=True,
        bounded_decay=True, bends_gate=True, family="kimi_k3",
    ),
    "glm5-next": replace(_SIGMOID, positions=0, rope="none", bounded_decay=True, family="glm_next"),
    "hy_v4": replace(_SIGMOID, rotates_index=False, family="hy_v4"),
    "minimax-01": Traits(normed_residual=True),
    "mamba": Traits(positions=0),
    "mamba2": Traits(positions=0),
    "jamba": Traits(positions=0, rope="none", residual_first="af", normalises_weights=False),
    "t5": Traits(positions=0, rope="none", family="t5"),
    "t5encoder": Traits(positions=0, rope="none", family="t5_encoder"),
    **_same("rwkv6 rwkv7", replace(_LAYER_NORM, positions=0, embedding_norm="weighted", family="rwkv")),
    **_same("rwkv6qwen2 arwkv7", Traits(positions=0, family="rwkv")),
    "falcon-h1": _LLAMA,
    "granitehybrid": _LLAMA,
    **_same("nemotron_h nemotron_h_moe", _NEMOTRON_H),
    **_same("lfm2 lfm2moe", Traits(residual_first="af", gating="sigmoid")),
    **_same("qwen35 qwen35moe", _DELTA_NET),
    "qwen3next": replace(_DELTA_NET, positions=1, repeats_delta_heads=True),
    "qwen4exp": Traits(positions=4, copies_tails=True, family="qwen4exp"),
    "bert": _ENCODER,
    "nomic-bert-moe": replace(_ENCODER, qkv="fused", rope="all", pooling="mean", normalises_weights=False),
    "jina-bert-v2": replace(_ENCODER, positions=0, pooling="mean"),
    "jina-bert-v3": replace(_ENCODER, qkv="fused", rope="all", pooling="mean"),
    "modern-bert": Traits(
        norm="NORM", qkv="fused", dense="fused", windows=True, embedding_norm="weighted", pooling="mean",
        family="encoder",
    ),
    **_same("eurobert llama-embed", Traits(pooling="mean", family="encoder")),
    "neo-bert": Traits(dense="fused", family="encoder"),
    "nomic-bert": replace(_ENCODER, qkv="fused", rope="all", pooling="mean"),
}  # fmt: skip
