"""Every value the program speaks about.

All values are frozen: a probe makes a ``Machine``, the catalog a ``Model``, the estimator a ``Fit``, the adviser a
``Report``; nothing is changed afterwards. Bytes are ``int``, rates are ``float`` in SI units, and names carry their
unit (``_bytes``, ``_per_s``, ``_tokens``, ``_s``, ``_w``). ``None`` means "not known"; a machine that did not say
something also carries a ``Problem`` about it. Parameter counts are exact integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Union

from msgspec import Struct, field

# --------------------------------------------------------------------------------------------------------------------
# Words


class Origin(str, Enum):
    """Where a number comes from, best first."""

    USER = "user"  # given on the command line
    MEASURED = "measured"  # on this machine, by fitcheck
    REPORTED = "reported"  # by the system or the driver
    PUBLISHED = "published"  # measured by others on this hardware
    CATALOG = "catalog"  # from a table in fitcheck/data
    MODELLED = "modelled"  # computed by a formula from other numbers
    ASSUMED = "assumed"  # a stated guess; intervals widen


class Verdict(str, Enum):
    FITS = "fits"
    TIGHT = "tight"  # fits, with less left than the margin that keeps a desktop responsive
    NO = "no"


class Task(str, Enum):
    CHAT = "chat"
    CODING = "coding"
    REASONING = "reasoning"
    VISION = "vision"
    EMBEDDING = "embedding"


class PlacementKind(str, Enum):
    GPU = "gpu"  # everything on accelerators (or in unified memory, driven by the GPU)
    SPLIT = "split"  # some layers or experts in RAM
    CPU = "cpu"


class Openness(str, Enum):
    FULLY_OPEN = "fully_open"  # weights under a permissive licence, training data and code published
    PERMISSIVE = "permissive"  # weights under a licence without use limits
    RESTRICTED = "restricted"  # weights published, use limited by the licence
    UNKNOWN = "unknown"


class Backend(str, Enum):
    CUDA = "cuda"
    ROCM = "rocm"
    METAL = "metal"
    VULKAN = "vulkan"
    SYCL = "sycl"
    CPU = "cpu"


class Vendor(str, Enum):
    NVIDIA = "nvidia"
    AMD = "amd"
    INTEL = "intel"
    APPLE = "apple"
    QUALCOMM = "qualcomm"
    OTHER = "other"


class FlashAttention(str, Enum):
    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Licences(str, Enum):
    """Which licences an answer may contain."""

    ANY = "any"
    PERMISSIVE = "permissive"  # permissive or fully open
    OPEN = "open"  # fully open only


class Value(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of every value: immutable, strict about unknown fields, silent about defaults."""


class Record(Struct, frozen=True):
    """Base of what is printed as JSON: immutable, every field present."""


# --------------------------------------------------------------------------------------------------------------------
# Machine: what the probe found


class Rate(Record, frozen=True):
    """A bandwidth or throughput with its origin. ``per_s`` is bytes/s or FLOP/s, as the field that holds it says."""

    per_s: float
    origin: Origin
    source: str = ""


class Problem(Record, frozen=True):
    """Something that could not be read. ``hint`` names the next step; ``part`` the probe (``nvidia``, ``ram``, …)."""

    part: str
    message: str
    hint: str = ""


class Evidence(Record, frozen=True):
    """One thing that was found and where: ``Evidence("ram.total", "24.0 GiB", "/proc/meminfo")``."""

    what: str
    value: str
    source: str


class Pool(Record, frozen=True):
    """A memory pool.

    ``total_bytes`` is what the owner reports, ``free_bytes`` what is free now (page cache counted as free),
    ``usable_bytes`` what an engine may take at most right now, limits of containers and of the driver applied.
    ``bandwidth`` is the peak read bandwidth in bytes/s (for Origin.MEASURED: the measured one).
    """

    total_bytes: int
    free_bytes: int | None
    usable_bytes: int
    bandwidth: Rate | None = None


class Cpu(Record, frozen=True):
    """The processor. ``features`` are Linux flag spellings in lower case (avx2, avx512_vnni, amx_int8, asimddp, …)."""

    name: str
    physical_cores: int
    logical_cpus: int
    performance_cores: int | None = None
    sockets: int = 1
    numa_nodes: int = 1
    features: tuple[str, ...] = ()
    threads: int = 1  # how many threads an engine should use here: physical or performance cores, quotas applied


class Limits(Record, frozen=True):
    """Limits of the container or service that this process runs in; None where there is none."""

    memory_bytes: int | None = None
    cpus: float | None = None
    source: str = ""


class Link(Record, frozen=True):
    """How an accelerator hangs on the host: ``kind`` is pcie, nvlink, on-chip or unknown; bytes/s in one direction."""

    kind: str
    generation: int | None = None
    width: int | None = None
    bytes_per_s: float | None = None


class Accelerator(Record, frozen=True):
    """A GPU as an engine sees it: one card, one MIG instance, or the GPU of a chip with unified memory.

    ``unified``: ``pool`` is part of the machine's RAM and must never be added to it. ``compute`` maps a dtype
    (fp32, fp16, bf16, int8, fp8, fp4) to dense peak FLOP/s (OP/s). ``catalog_name`` is the row of gpus.json that
    matched, None for an unknown card. ``usable`` is False for a card that no engine can use (driver missing):
    it is shown and not counted.
    """

    index: int
    name: str
    vendor: Vendor
    pool: Pool
    unified: bool = False
    backends: tuple[Backend, ...] = ()
    architecture: str | None = None  # Ada Lovelace, RDNA 3, M4, …
    form: str | None = None  # desktop, laptop, workstation, datacenter, soc, embedded, mining
    compute: dict[str, float] = {}
    compute_capability: str | None = None
    gfx_target: str | None = None
    cores: int | None = None  # SMs, compute units, Xe cores, Apple GPU cores
    link: Link | None = None
    partition: str | None = None  # MIG profile, vGPU profile, CPX/NPS4 …
    driver: str | None = None
    pci_id: str | None = None  # "10de:2684"
    uuid: str | None = None
    catalog_name: str | None = None
    usable: bool = True


class Machine(Record, frozen=True):
    """What was found, or what ``--on`` pretends. ``ram.usable_bytes`` already obeys ``limits``."""

    os: str  # linux, darwin, windows
    arch: str  # x86_64, arm64, …
    cpu: Cpu
    ram: Pool
    accelerators: tuple[Accelerator, ...] = ()
    limits: Limits = Limits()
    os_version: str | None = None
    environment: str | None = None  # container, vm, wsl2, … None on bare metal or unknown
    disk_free_bytes: int | None = None
    pretended: bool = False
    calibration: Calibration | None = None
    problems: tuple[Problem, ...] = ()
    evidence: tuple[Evidence, ...] = ()


class Calibration(Record, frozen=True):
    """What ``fitcheck calibrate`` measured here, by backend.

    ``speed_factors``: measured / predicted speed of what grows with a model's bytes and arithmetic;
    ``operation_factors``: measured / predicted time of what every operation costs however small it is (absent: that
    time follows the speed); ``variances``: of the logarithms of these two, and their covariance, by which models unlike
    those measured get a wider interval; ``prefill_factors``: measured / predicted prefill speed, ``prefill_sds``:
    standard deviation of its logarithm from model to model.
    """

    date: str
    machine_key: str
    ram_bandwidth_bytes_per_s: float | None = None
    gpu_bandwidth_bytes_per_s: dict[str, float] = {}
    speed_factors: dict[str, float] = {}
    operation_factors: dict[str, float] = {}
    variances: dict[str, tuple[float, float, float]] = {}
    prefill_factors: dict[str, float] = {}
    prefill_sds: dict[str, float] = {}


# --------------------------------------------------------------------------------------------------------------------
# Model: shape


class Attention(Value, frozen=True, tag_field="type", tag="attn"):
    """Grouped-query attention. ``window`` is the sliding window in tokens. ``kv_shared``: reads an earlier layer's
    cache.

    ``k_eq_v``: one projection serves as K and V. ``kv_fixed``: cross-attention over a fixed number of tokens, of
    ``fixed_tokens`` where that is known (T5).
    ``bias``: which projections carry one, of "qkvo". ``gate``: None, ``q_double`` (Q projection twice as wide),
    ``full`` (own matrix of the attention width), ``per_head``. ``qk_norm``: None, ``per_head`` (head_dim weights)
    or ``full``.
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    v_head_dim: int | None = None
    window: int | None = None
    qk_norm: str | None = None
    bias: str = ""
    gate: str | None = None
    sinks: bool = False
    kv_shared: bool = False
    k_eq_v: bool = False
    kv_fixed: bool = False
    fixed_tokens: int = 0
    extra_params: int = 0


class Indexer(Value, frozen=True):
    """The lightning indexer of sparse attention (DeepSeek-V3.2 and later): each query sees ``top_k`` cached keys."""

    n_heads: int
    head_dim: int
    top_k: int = 2048


class LatentAttention(Value, frozen=True, tag_field="type", tag="mla"):
    """Multi-head latent attention: one compressed vector per token is cached (kv_lora_rank + qk_rope_head_dim).

    Where it is not ``absorbed`` (MiniCPM3, files of before April 2025), whole keys and values are. ``window``: the
    sliding window in tokens. ``gate``: ``full`` or ``per_head``, as in ``Attention``.
    """

    n_heads: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None
    indexer: Indexer | None = None
    gate: str | None = None
    extra_params: int = 0
    absorbed: bool = True
    window: int | None = None


class CompressedAttention(Value, frozen=True, tag_field="type", tag="csa"):
    """Compressed sparse attention (DeepSeek-V4): a window plus every ``compress_ratio``-th token (0: window only)."""

    n_heads: int
    head_dim: int
    q_lora_rank: int
    o_groups: int
    o_lora_rank: int
    compress_ratio: int
    window: int
    indexer: Indexer | None = None


class Mamba1(Value, frozen=True, tag_field="type", tag="mamba1"):
    d_inner: int
    d_state: int
    dt_rank: int
    conv_kernel: int
    inner_norms: bool = False


class Mamba2(Value, frozen=True, tag_field="type", tag="mamba2"):
    d_inner: int
    n_heads: int
    n_groups: int
    d_state: int
    conv_kernel: int
    norm: bool = True


class GatedDeltaNet(Value, frozen=True, tag_field="type", tag="gdn"):
    n_k_heads: int
    n_v_heads: int
    k_head_dim: int
    v_head_dim: int
    conv_kernel: int


class KimiDelta(Value, frozen=True, tag_field="type", tag="kda"):
    n_heads: int
    head_dim: int
    conv_kernel: int
    full_rank_gate: bool = False
    full_rank_decay: bool = False


class ShortConvolution(Value, frozen=True, tag_field="type", tag="shortconv"):
    conv_kernel: int
    channels: int


class LightningAttention(Value, frozen=True, tag_field="type", tag="lightning"):
    n_heads: int
    head_dim: int


class TimeMix(Value, frozen=True):
    """The sizes of RWKV's time mixing, of ``version`` 6 or 7.

    Ranks are of low-rank projections: of the mixture with the token before (``mix_rank``, version 6), of the decay, and
    in version 7 of the learning rate, of V's share of the first layer's V, and of the gate (0: none). ``n_kv_heads``:
    where there are fewer heads of K and V. ``bias``: which of receptance, K and V carry one, of "rkv". ``norm``: a norm
    per head behind it; ``bonus``: a weight for the current token (version 6). ``fused``: mixing weights lie in one
    tensor. ``channel_width``: of RWKV's own feed-forward, 0 where an ordinary one follows.
    """

    version: int
    head_dim: int
    decay_rank: int
    mix_rank: int = 0
    rate_rank: int = 0
    value_rank: int = 0
    gate_rank: int = 0
    n_kv_heads: int = 0
    bias: str = ""
    norm: bool = True
    bonus: bool = False
    fused: bool = True
    channel_width: int = 0


class CountedMixer(Value, frozen=True, tag_field="type", tag="counted"):
    """A mixer that this program has no form for: parameters and cache sizes as published, nothing derived.

    ``time_mix``: what is known of one of RWKV, whose state is exact.
    """

    params: int
    kv_bytes_per_token: float = 0.0  # at f16, this layer
    state_bytes: int = 0
    window_bytes: int = 0
    time_mix: TimeMix | None = None


class NoMixer(Value, frozen=True, tag_field="type", tag="none"):
    pass


class ParallelMixers(Value, frozen=True, tag_field="type", tag="parallel"):
    """Several mixers in one layer that read the same input (Falcon-H1) or follow each other (LongCat)."""

    parts: tuple[Union[Attention, LatentAttention, Mamba2], ...]


Mixer = Union[
    Attention,
    LatentAttention,
    CompressedAttention,
    Mamba1,
    Mamba2,
    GatedDeltaNet,
    KimiDelta,
    ShortConvolution,
    LightningAttention,
    CountedMixer,
    ParallelMixers,
    NoMixer,
]


class DenseFeedForward(Value, frozen=True, tag_field="type", tag="dense"):
    """``gated``: gate, up and down (SwiGLU and kin); else up and down."""

    intermediate_size: int
    gated: bool = True
    bias: bool = False


class MixtureOfExperts(Value, frozen=True, tag_field="type", tag="moe"):
    """Routed experts, of which ``experts_per_token`` are read per token, and shared ones that every token reads.

    ``shared_intermediate_size``: width of all shared experts together, None when there is none. ``dense_parallel``:
    width of a dense feed-forward beside the experts. ``latent``: experts work in a space of this width (Nemotron 3)
    with a norm of ``latent_norm`` elements; ``expert_hidden`` is the same width.
    ``router_outputs``: where it differs from ``n_experts`` (zero-computation experts). ``chunk_experts``: small experts
    that several routed ones share, and that work on their sum (GroveMoE). ``gating``: softmax, sigmoid,
    softmax_of_chosen or sqrt_softplus; ``normalises_weights``, ``weights_scale``: of the chosen experts' weights (None:
    what the architecture does). ``expert_groups``: experts are chosen within the best ``expert_groups_used`` of so many
    groups. ``hash_routed``: a table over the vocabulary names each token's experts, the router only weighs them.
    """

    n_experts: int
    experts_per_token: int
    moe_intermediate_size: int
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    router_outputs: int | None = None
    chunk_experts: int = 0
    chunk_intermediate_size: int = 0
    n_shared: int = 0
    shared_intermediate_size: int | None = None
    shared_gate: bool = False
    dense_parallel: int | None = None
    expert_hidden: int | None = None
    latent: int | None = None
    latent_norm: int = 0
    gating: str | None = None
    normalises_weights: bool | None = None
    weights_scale: float | None = None
    expert_groups: int = 1
    expert_groups_used: int = 1
    hash_routed: bool = False


class NoFeedForward(Value, frozen=True, tag_field="type", tag="none"):
    pass


FeedForward = Union[DenseFeedForward, MixtureOfExperts, NoFeedForward]


class NgramEmbedding(Value, frozen=True):
    """A table of n-grams beside the token embedding, whose rows one layer adds to its input (Qwen3.8-Flash-Next).

    Each token reads ``heads`` rows, which together are as wide as the model: as many for each length from 2 to
    ``longest`` tokens. A convolution of ``conv_kernel`` taps runs over every ``longest``-th token. ``streams``:
    residual streams that the rows are added to.
    """

    longest: int
    heads: int
    conv_kernel: int
    streams: int = 4

    @property
    def history(self) -> int:
        """Tokens that the convolution looks back."""
        return (self.conv_kernel - 1) * self.longest


class Layer(Value, frozen=True):
    """One kind of layer. ``norms``: how many norm vectors of hidden size; ``extra_params``: parameters not modelled.
    ``ngrams``: an embedding of n-grams that is added to the layer's input. ``norms_behind``: norms stand behind mixer
    and feed-forward where the architecture has them before (Chameleon's swin norm).
    """

    mixer: Mixer
    ffn: FeedForward
    norms: int = 2
    extra_params: int = 0
    ngrams: NgramEmbedding | None = None
    norms_behind: bool = False


class Shape(Value, frozen=True):
    """The text model as it stands in memory: kinds of layers, and one letter per layer in execution order.

    ``layers`` is a string: "aab" means two layers of ``kinds[0]`` and one of ``kinds[1]``. Sizes are in elements.
    ``norm_factor``: parameters per norm and hidden unit (1 RMS norm, 2 layer norm with bias). ``final_norms``: 1 unless
    the model has none. ``learned_positions``: rows of a learned position table. ``per_layer_embedding_params`` and
    ``lookup_params``: tables that are looked up, not multiplied (Gemma 3n per-layer input, n-gram tables).
    ``extra_params``: everything else outside layers. ``num_loops``: times the stack is run.
    ``pooling``: of an embedding model, cls, mean or last.
    """

    hidden_size: int
    vocab_size: int
    kinds: tuple[Layer, ...]
    layers: str
    tie_word_embeddings: bool = False
    norm_factor: int = 1
    final_norms: int = 1
    no_lm_head: bool = False
    lm_head_bias: bool = False
    learned_positions: int = 0
    per_layer_embedding_params: int = 0
    lookup_params: int = 0
    extra_params: int = 0
    num_loops: int = 1
    pooling: str | None = None

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    def each_layer(self) -> Iterator[Layer]:
        """The layers in execution order."""
        kinds = self.kinds
        return (kinds[ord(letter) - 97] for letter in self.layers)


# --------------------------------------------------------------------------------------------------------------------
# Model: facts


class PublishedFile(Value, frozen=True):
    """A file or file set that somebody published. ``exact`` is False where the source rounds (then to 10 MB).

    ``tensors_only``: the bytes are those of the tensors, without the header. ``parts``: what the file holds beside the
    text model: output (an output matrix though the model ties it), mtp, mtp_embeddings (an embedding and an output
    matrix of the prediction layer's own), vision, audio; mxfp4_experts: that its experts stay MXFP4. ``note``: why the
    size is not what the quantisation of this shape gives.
    """

    repo: str
    quant: str
    bytes: int
    file: str | None = None
    exact: bool = True
    tensors_only: bool = False
    parts: tuple[str, ...] = ()
    note: str = ""
    source: str = ""


class Benchmark(Value, frozen=True):
    """A public score. ``index`` is a key of the catalog's table of indices; ``date`` that of the snapshot."""

    index: str
    score: float
    date: str
    source: str = ""


class BenchmarkIndex(Value, frozen=True):
    """A public index or leaderboard that scores come from; ``unit`` is index, elo or percent."""

    name: str
    unit: str
    url: str = ""


class Licence(Value, frozen=True):
    """A licence of weights. ``spdx``: its key is an SPDX identifier. ``openness``: of weights under it."""

    name: str
    openness: Openness
    spdx: bool = False


class Tensor(Value, frozen=True):
    """A tensor of a real file: ``dims`` fastest first, as GGUF writes them; ``type`` a ggml type (Q4_K, F32, …)."""

    name: str
    dims: tuple[int, ...]
    type: str


class MediaEncoder(Value, frozen=True):
    """A tower that turns an image or sound into tokens of the language model, as llama.cpp's ``mmproj`` file holds it.

    ``kind`` is the file's ``clip.projector_type``: which graph it is. Sizes are in elements, ``patch_size`` and
    ``image_size`` in pixels (of sound 1 and 0); ``image_size``: the side of a tile, or of the image that positions were
    learned for. ``layers`` 0: there is no transformer. ``out_size``: the language model's width; ``projector_size``:
    the hidden width of the projector where the kind does not settle it. ``merge`` patches per side become one token.
    ``positions``: rows of the table of learned positions (per axis where there are two). ``head_size`` 0: hidden_size /
    heads. ``full_attention_every``: the other layers attend within windows (0: none does). ``deepstack``: layers whose
    states go to the language model too. ``standardized``: the result is shifted and scaled by learned vectors;
    ``newline``: a learned vector ends each line. ``tokens``: of the largest image, where the file settles it.
    """

    kind: str
    hidden_size: int
    layers: int
    heads: int
    ffn_size: int
    patch_size: int
    image_size: int
    out_size: int
    merge: int = 1
    projector_size: int = 0
    positions: int = 0
    head_size: int = 0
    full_attention_every: int = 0
    deepstack: tuple[int, ...] = ()
    standardized: bool = False
    newline: bool = False
    tokens: int = 0


class Model(Value, frozen=True):
    """A model that somebody may want to run.

    ``params`` counts every weight of the text model in use; ``params_active`` those read per token, without the
    input embedding; ``tower_params`` the weights of vision, audio and prediction towers by name. ``grade``: A shape
    reproduces the published count exactly, B within 0.7 %, C nominal; ``published_params`` is that count, towers
    included. ``lineage``: models of one lineage differ in generation, size and training, not in purpose;
    ``derived_from``: the id of the model that this one is a fine-tune of, by others. ``sources``:
    field -> key in the catalog's table of sources. ``tensors``: only for a real file, then exact; ``file_quant`` names
    its mix. ``publisher``: whose GGUF files are meant (the owner of their Hub repository), where that is known.
    ``encoders``: all that the ``mmproj`` file holds; empty where that is not known.
    """

    id: str
    name: str
    shape: Shape | None
    params: int
    params_active: int
    architecture: str | None = None  # llama.cpp's name; None: llama.cpp does not run it
    hf_architecture: str | None = None
    family: str = ""
    lineage: str = ""
    derived_from: str | None = None
    developer: str = ""
    hub_repo: str | None = None
    licence: str | None = None
    openness: Openness = Openness.UNKNOWN
    gated: bool | None = None
    released: str | None = None  # YYYY-MM-DD or YYYY-MM
    modalities: tuple[str, ...] = ("text",)  # text, vision, audio, embedding
    # reasoning, coding, tools, vision, multilingual; base: not instructed; coder, math, guard, …: made for one purpose
    abilities: tuple[str, ...] = ()
    context_tokens: int = 0
    context_extended_tokens: int | None = None
    native_dtype: str = "BF16"
    tower_params: dict[str, int] = {}
    encoders: tuple[MediaEncoder, ...] = ()
    aliases: tuple[str, ...] = ()
    ollama_tags: tuple[str, ...] = ()
    gguf_repos: tuple[str, ...] = ()
    files: tuple[PublishedFile, ...] = ()
    benchmarks: tuple[Benchmark, ...] = ()
    downloads_30d: int | None = None
    grade: str = "C"
    published_params: int | None = None
    note: str = ""
    sources: dict[str, str] = {}
    tensors: tuple[Tensor, ...] | None = None
    file_quant: str | None = None
    path: str | None = None
    publisher: str | None = None

    @property
    def longest_context_tokens(self) -> int:
        """The most that the model takes, extended where that is published; 0 where it is not known."""
        return self.context_extended_tokens or self.context_tokens


# --------------------------------------------------------------------------------------------------------------------
# Weights: a model in one quantisation, as bytes


class LayerBytes(Record, frozen=True):
    """Bytes of one layer in its own types. ``mixer`` and ``ffn`` are read for every token (dense and shared experts,
    router, norms); of ``experts`` (all routed experts together) only the routed share."""

    mixer: int
    ffn: int
    experts: int = 0

    @property
    def total(self) -> int:
        return self.mixer + self.ffn + self.experts


class Weights(Record, frozen=True):
    """Bytes of a model's tensors in one quantisation, by role. ``layers`` says for each layer which of ``kinds`` it
    is.

    ``tied``: there is no output tensor in the file; the engine reads ``token_embedding`` as the output matrix (and
    keeps a second copy of it on the GPU). ``lookup``: tables read by row only (per-layer embeddings, n-gram tables,
    position tables). ``total`` is the sum of all tensor bytes of the file, ``file_bytes`` with the header.
    """

    quant: str
    kinds: tuple[LayerBytes, ...]
    layers: str  # one letter per layer, as in Shape.layers, but naming ``kinds`` of this value
    token_embedding: int
    output: int
    lookup: int
    other: int  # final norms and the rest that is read per token
    tied: bool
    total: int
    file_bytes: int
    exact: bool = True
    unloaded: int = 0  # in the file and in ``total``, never loaded (multi-token prediction layers)

    def each_layer(self) -> Iterator[LayerBytes]:
        """The layers in execution order."""
        kinds = self.kinds
        return (kinds[ord(letter) - 97] for letter in self.layers)


# --------------------------------------------------------------------------------------------------------------------
# Request: what was asked


class Request(Record, frozen=True):
    """One question. ``context_tokens`` None means the model's own maximum; ``quant`` and ``runtime`` None mean: choose.

    ``logits_tokens``: how many tokens' logits the engine reserves room for at once (None: what the runtime does;
    1 for a chat server, ubatch for llama-bench). ``margin_bytes``: kept free per device beyond what is needed
    (None: the default of the verdict). Speeds are tokens/s for one sequence.
    """

    context_tokens: int | None = 8192
    parallel: int = 1
    prompt_tokens: int = 512
    answer_tokens: int = 256
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    batch_tokens: int = 2048
    ubatch_tokens: int = 512
    flash_attention: FlashAttention = FlashAttention.AUTO
    swa_full: bool = False
    kv_unified: bool = False
    logits_tokens: int | None = None
    mmap: bool = True
    runtime: str | None = None  # a row of runtimes.json
    quant: str | None = None
    min_decode_per_s: float | None = None
    min_prefill_per_s: float | None = None
    max_first_token_s: float | None = None
    allow: tuple[PlacementKind, ...] = (PlacementKind.GPU, PlacementKind.SPLIT, PlacementKind.CPU)
    task: Task = Task.CHAT
    licences: Licences = Licences.ANY
    margin_bytes: int | None = None


# --------------------------------------------------------------------------------------------------------------------
# Fit: one model on one machine


class Interval(Record, frozen=True):
    """An 80 % interval and its most likely value; the unit is that of the field that holds it."""

    low: float
    likely: float
    high: float


class Term(Record, frozen=True):
    """One part of the memory: ``name`` is weights, kv_cache, recurrent_state, compute_buffer, output_buffer,
    runtime_overhead, projector, projector_buffer, …; ``device`` as in ``DeviceUse``; ``formula`` and ``source`` explain
    the bytes."""

    name: str
    device: str
    bytes: int
    formula: str = ""
    source: str = ""


class DeviceUse(Record, frozen=True):
    """What one device carries. ``device`` is "cpu", "gpu0", "gpu1", …; layer ranges are half open.

    ``layers`` = [first, last): whose mixer and dense weights and caches live here; ``expert_layers`` counts the
    layers whose routed experts live here; ``output`` is True where the output matrix lives. ``have_bytes`` is the
    usable memory.
    """

    device: str
    name: str
    need_bytes: int
    have_bytes: int
    first_layer: int = 0
    last_layer: int = 0
    expert_layers: int = 0
    output: bool = False


class Placement(Record, frozen=True):
    """Where everything goes, and the engine's flags that put it there (``-ngl``, ``--n-cpu-moe``, ``-ts``, …)."""

    kind: PlacementKind
    devices: tuple[DeviceUse, ...]
    flags: tuple[str, ...] = ()
    share_on_gpu: float = 0.0  # of the weights that every token may read


class Measurement(Record, frozen=True):
    """A published measurement near this question."""

    hardware: str
    model: str
    quant: str
    backend: str
    tokens_per_s: float
    test: str  # decode or prefill
    source: str
    date: str = ""
    engine: str = ""


class Speed(Record, frozen=True):
    """Speeds in tokens/s; ``first_token_s`` for ``Request.prompt_tokens``. ``bound_by``: memory, compute, link,
    overhead.

    ``assumed`` names the inputs that were assumed (then output prints ``~``). ``rough`` marks a prefill that is an
    order of magnitude only. ``throughput`` is over all parallel sequences.
    """

    decode_per_s: Interval
    decode_full_context_per_s: Interval
    prefill_per_s: Interval | None
    first_token_s: Interval | None
    throughput_per_s: Interval | None
    bound_by: str
    bytes_per_token: int
    bandwidth_per_s: float
    origin: Origin = Origin.MODELLED
    rough_prefill: bool = False
    load_s: Interval | None = None
    assumed: tuple[str, ...] = ()
    nearest: tuple[Measurement, ...] = ()


class Quality(Record, frozen=True):
    """How good the answers are, on the scale of one public index. ``estimated``: from family and size, not measured."""

    score: float
    index: str
    estimated: bool
    quant_loss: float = 0.0  # already subtracted from score
    rule: str = ""
    source: str = ""


class Fit(Record, frozen=True):
    """One model in one quantisation on one machine: the answer and the arithmetic behind it.

    ``need_bytes`` / ``have_bytes`` are sums over the devices of the placement (a unified pool once).
    ``max_context_tokens``: the most that still fits in this placement, ``max_context_q8_tokens`` with a q8_0 cache;
    None in a list of many, where it is not asked for.
    ``reasons``: every requirement that is not met, each with needed and found; empty when all are met.
    """

    model: str
    quant: str
    runtime: str
    verdict: Verdict
    placement: Placement
    terms: tuple[Term, ...]
    need_bytes: int
    have_bytes: int
    context_tokens: int
    max_context_tokens: int | None
    max_context_q8_tokens: int | None
    speed: Speed | None
    quality: Quality | None
    reasons: tuple[str, ...] = ()
    command: str = ""
    disk_bytes: int = 0
    exact: bool = True  # False: a bound, not the engine's own arithmetic
    notes: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------------------------------
# Report: what is printed


class ErrorInfo(Record, frozen=True):
    code: str
    message: str
    hint: str = ""


class Answer(Record, frozen=True):
    """The one-line answer per task: which model, and the command that runs it."""

    task: Task
    model: str
    quant: str
    command: str


class Requirement(Record, frozen=True):
    """One thing that was asked for: ``name`` is memory, speed, prefill, first_token, context, placement, quant,
    runtime, licence, task, …; ``needed`` and ``found`` are written for people."""

    name: str
    met: bool
    needed: str
    found: str


class Check(Record, frozen=True):
    """The verdict on one model: every requirement, the fit that comes closest, and the best one that does pass."""

    model: str
    passed: bool
    requirements: tuple[Requirement, ...] = ()
    fit: Fit | None = None
    nearest: Fit | None = None
    chosen: bool = False  # --first, or an alternative of fitcheck.toml: the one to use
    request: Request | None = None


class ContextPoint(Record, frozen=True):
    """Memory at one context length; ``kv_type`` of the cache."""

    context_tokens: int
    need_bytes: int
    have_bytes: int
    fits: bool
    kv_type: str
    decode_per_s: Interval | None = None
    kind: PlacementKind | None = None


class Hardware(Record, frozen=True):
    """One way to run a model. ``kind``: one_card, two_cards, mac, mini_pc, workstation, datacentre, this_machine;
    ``what`` is text for ``--on``, or for this machine what would have to be added."""

    kind: str
    what: str
    fit: Fit


class Report(Record, frozen=True, kw_only=True):
    """Everything a command found out. Renderers read it and compute nothing."""

    schema: str = field(default="urn:fitcheck:report:1", name="$schema")
    schema_version: int = 1
    fitcheck_version: str = ""
    catalog_date: str = ""
    command: str
    answer: bool | None = None  # check: yes or no
    exit_code: int = 0
    summary: str
    best: tuple[Answer, ...] = ()
    request: Request | None = None
    machine: Machine | None = None
    fits: tuple[Fit, ...] = ()
    hidden_fits: int = 0  # how many more fit
    hidden_not: int = 0  # how many do not
    checks: tuple[Check, ...] = ()
    context_curve: tuple[ContextPoint, ...] = ()
    hardware: tuple[Hardware, ...] = ()
    models: tuple[Model, ...] = ()
    notes: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    error: ErrorInfo | None = None


__all__ = [name for name, value in list(globals().items()) if isinstance(value, type) and value.__module__ == __name__]
__all__ += ["FeedForward", "Mixer"]
