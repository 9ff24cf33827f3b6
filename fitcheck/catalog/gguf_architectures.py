"""What llama.cpp knows about its architectures without being told by the file.

A GGUF header gives sizes; which layers have a sliding window, or that Qwen2 has biases, is in the loader of each
architecture (llama.cpp 0c1e570, src/models/*.cpp). A row here holds that knowledge as data.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Recurrent = Literal["mamba1", "mamba2", "gdn", "kda", "shortconv", "lightning"]
RecurrentLayers = Literal["no_kv_heads", "interval", "all", "beside_attention"]


class Windows(Struct, frozen=True):
    """Which layers see a sliding window when the file does not list them.

    Every ``period``-th layer is full (0: none is, 1: all are), the first one of a period if ``full_first``, else the
    last. ``tokens`` is the window where the file names none; ``fixed`` overrides what it names; ``only_layers`` limits
    the rule to models of that depth.
    """

    period: int = 0
    full_first: bool = False
    tokens: int = 0
    fixed: bool = False
    only_layers: int | None = None


class Architecture(Struct, frozen=True):
    """Structure of an architecture. Fields that a tensor list shows (biases, norms, gates) serve headers without one.

    ``recurrent_layers``: how recurrent layers are told from attention: they have no KV heads, every
    ``full_attention_interval``-th layer is not recurrent, all are, or each layer has both.
    """

    windows: Windows | None = None
    recurrent: Recurrent | None = None
    recurrent_layers: RecurrentLayers = "no_kv_heads"
    bias: str = ""
    qk_norm: Literal["per_head", "full"] | None = None
    gate: Literal["q_double", "full", "per_head"] | None = None
    sinks: Literal["all", "windowed"] | None = None
    norms: int = 2
    norm_factor: int = 1
    final_norms: int = 1
    gated: bool = True
    bias_ffn: bool = False
    bias_experts: bool = False
    router_bias: bool = False
    shared_gate: bool = False
    shared_width_of_expert: bool = False  # one shared expert as wide as a routed one, not stated in the file
    dense_beside_experts: bool = False
    stored_shared_kv: bool = False  # layers that read another cache have K and V weights all the same
    layers_with_cache: int | None = None  # the first ones; later layers read their caches
    learned_positions: bool = False
    embedding: bool = False  # no output matrix
    normed_embedding: bool = False  # a norm of the embedding beside that of the output
    needs_tensors: bool = False  # what a layer is made of, sizes alone do not tell


def _rows(names: str, row: Architecture) -> dict[str, Architecture]:
    return dict.fromkeys(names.split(), row)


_PLAIN = (
    "llama mistral3 granite granitemoe internlm2 minicpm smollm3 ernie4_5 orion xverse llada arcee deci baichuan "
    "refact deepseek bailingmoe paddleocr dbrx cogvlm deepseek2-ocr"
)
_MLA = "deepseek2 deepseek32 glm-dsa mistral4"

ARCHITECTURES: dict[str, Architecture] = {
    **_rows(_PLAIN, Architecture()),
    **_rows(_MLA, Architecture()),
    "apertus": Architecture(qk_norm="per_head", gated=False),
    "bitnet": Architecture(norms=4),
    "exaone": Architecture(),
    "nanbeige": Architecture(),
    "ernie4_5-moe": Architecture(router_bias=True),
    "arcee": Architecture(gated=False),
    "nemotron": Architecture(gated=False, norm_factor=2),
    "qwen2": Architecture(bias="qkv"),
    **_rows("qwen2vl dream", Architecture(bias="qkv")),
    "pangu-embedded": Architecture(bias="qkvo"),
    "seed_oss": Architecture(bias="qkv"),
    "qwen2moe": Architecture(bias="qkv", shared_gate=True),
    **_rows(
        "qwen3 qwen3moe qwen3vl qwen3vlmoe hunyuan-dense hunyuan-moe rnd1 hunyuan_vl llada-moe maincoder openelm",
        Architecture(qk_norm="per_head"),
    ),
    **_rows("dots1 bailingmoe2 hy_v3", Architecture(qk_norm="per_head", router_bias=True)),
    "glm4": Architecture(bias="qkv", norms=4),
    "chatglm": Architecture(bias="qkv"),
    "glm4moe": Architecture(bias="qkv", router_bias=True),
    "minimax-m3": Architecture(qk_norm="per_head", router_bias=True),
    "hy_v4": Architecture(gate="full", router_bias=True),
    "minimax-m2": Architecture(qk_norm="full", router_bias=True),
    "olmo": Architecture(norms=0, final_norms=0),
    "olmo2": Architecture(qk_norm="full", windows=Windows(period=4)),
    "olmoe": Architecture(qk_norm="full"),
    **_rows("phi3 minicpm3", Architecture()),
    "phimoe": Architecture(bias="qkvo", norm_factor=2),
    "phi2": Architecture(bias="qkvo", norms=1, norm_factor=2, gated=False, bias_ffn=True),
    "gptneox": Architecture(bias="qkvo", norm_factor=2, gated=False, bias_ffn=True),
    "gpt2": Architecture(bias="qkvo", norm_factor=2, gated=False, bias_ffn=True, learned_positions=True),
    "starcoder": Architecture(bias="qkvo", norm_factor=2, gated=False, bias_ffn=True, learned_positions=True),
    "starcoder2": Architecture(bias="qkvo", norm_factor=2, gated=False, bias_ffn=True),
    "codeshell": Architecture(bias="qkvo", norm_factor=2, gated=False, bias_ffn=True),
    "jais": Architecture(bias="qkvo", norm_factor=2, bias_ffn=True),
    "jais2": Architecture(bias="qkvo", norm_factor=2, gated=False, bias_ffn=True),
    "bloom": Architecture(bias="qkvo", norm_factor=2, gated=False, bias_ffn=True, normed_embedding=True),
    "mpt": Architecture(gated=False),
    "grok": Architecture(norms=4, dense_beside_experts=True),
    "falcon": Architecture(norms=1, norm_factor=2, gated=False),
    "stablelm": Architecture(norm_factor=2),
    "command-r": Architecture(norms=1),
    "cohere2": Architecture(norms=1, windows=Windows(period=4)),
    "cohere2moe": Architecture(norms=1, windows=Windows(period=4, full_first=True)),
    "gemma": Architecture(),
    "gemma2": Architecture(norms=4, windows=Windows(period=2, tokens=4096)),
    "gemma3": Architecture(norms=4, qk_norm="per_head", windows=Windows(period=6)),
    "gemma3n": Architecture(
        norms=4, qk_norm="per_head", layers_with_cache=20, stored_shared_kv=True, windows=Windows(period=5)
    ),
    "gemma4": Architecture(
        norms=4, qk_norm="per_head", dense_beside_experts=True, stored_shared_kv=True, windows=Windows()
    ),
    "gemma-embedding": Architecture(norms=4, qk_norm="per_head", windows=Windows(period=6), embedding=True),
    "llama4": Architecture(shared_width_of_expert=True, windows=Windows(period=4, tokens=8192, fixed=True)),
    "gpt-oss": Architecture(
        bias="qkvo", sinks="all", bias_experts=True, router_bias=True, windows=Windows(period=2)
    ),
    "afmoe": Architecture(
        norms=4, qk_norm="per_head", gate="full", router_bias=True, windows=Windows(period=4)
    ),
    "exaone4": Architecture(qk_norm="per_head", windows=Windows(period=4, tokens=4096, only_layers=64)),
    "exaone-moe": Architecture(qk_norm="per_head", router_bias=True, windows=Windows(period=4, tokens=128)),
    "mellum": Architecture(qk_norm="per_head", windows=Windows(period=4)),
    "muse-glimmer": Architecture(norms=4, gate="full", windows=Windows(period=4)),
    "laguna": Architecture(
        qk_norm="per_head", gate="per_head", router_bias=True, windows=Windows(period=4, full_first=True)
    ),
    "step35": Architecture(qk_norm="per_head", gate="per_head", router_bias=True, windows=Windows()),
    "mimo2": Architecture(sinks="windowed", router_bias=True, windows=Windows()),
    "smallthinker": Architecture(windows=Windows(period=4, full_first=True, tokens=4096, fixed=True)),
    "plamo3": Architecture(norms=4, qk_norm="per_head", windows=Windows(period=8)),
    "granite_swa": Architecture(sinks="all", windows=Windows()),
    "spark2_5": Architecture(gate="per_head", windows=Windows()),
    "maple": Architecture(qk_norm="per_head", windows=Windows()),
    "plamo": Architecture(norms=1),
    "hrm_text": Architecture(gate="full", norms=0, final_norms=0),
    "talkie": Architecture(norms=0, final_norms=0),
    "chameleon": Architecture(qk_norm="full"),
    **_rows("arctic grovemoe rwkv6 rwkv7 rwkv6qwen2 arwkv7 t5 t5encoder", Architecture(needs_tensors=True)),
    "dots3note": Architecture(gate="per_head", router_bias=True, windows=Windows()),
    "deepseek4": Architecture(router_bias=True, windows=Windows(period=0)),
    "modern-bert": Architecture(embedding=True, normed_embedding=True, windows=Windows(period=3, full_first=True)),
    "bert": Architecture(
        bias="qkvo", norm_factor=2, gated=False, bias_ffn=True, learned_positions=True, embedding=True
    ),
    "nomic-bert": Architecture(norm_factor=2, embedding=True),
    **_rows(
        "nomic-bert-moe jina-bert-v3",
        Architecture(bias="qkvo", norm_factor=2, gated=False, bias_ffn=True, embedding=True),
    ),
    "jina-bert-v2": Architecture(bias="qkvo", norm_factor=2, embedding=True),
    **_rows("neo-bert eurobert llama-embed", Architecture(embedding=True)),
    "mamba": Architecture(recurrent="mamba1", recurrent_layers="all", norms=1),
    "mamba2": Architecture(recurrent="mamba2", recurrent_layers="all", norms=1),
    "jamba": Architecture(recurrent="mamba1"),
    "granitehybrid": Architecture(recurrent="mamba2"),
    "plamo2": Architecture(recurrent="mamba2", norms=4),
    "nemotron_h": Architecture(recurrent="mamba2", norms=1, gated=False),
    "nemotron_h_moe": Architecture(recurrent="mamba2", norms=1, gated=False, router_bias=True),
    "falcon-h1": Architecture(recurrent="mamba2", recurrent_layers="beside_attention"),
    "lfm2": Architecture(recurrent="shortconv", qk_norm="per_head", windows=Windows()),
    "lfm2moe": Architecture(recurrent="shortconv", qk_norm="per_head", router_bias=True),
    **_rows(
        "qwen3next qwen35 qwen35moe qwen4exp",
        Architecture(
            recurrent="gdn", recurrent_layers="interval", qk_norm="per_head", gate="q_double", shared_gate=True
        ),
    ),
    "minimax-01": Architecture(recurrent="lightning", recurrent_layers="interval"),
    **_rows("kimi-linear bailingmoe3 glm5-next", Architecture(recurrent="kda", router_bias=True)),
    "kimi-k3": Architecture(recurrent="kda", gate="full", router_bias=True),
}  # fmt: skip
