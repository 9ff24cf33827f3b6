"""Runtimes (engines) as rows of data: what they load, where they run, what they reserve, how they are started."""

from __future__ import annotations

from msgspec import Struct

from fitcheck.errors import FitcheckError
from fitcheck.types import Accelerator, Attention, Backend, LatentAttention, Machine, Model, ParallelMixers, Shape
from fitcheck.units import GIB

LLAMA_CPP = "llama.cpp"
VLLM = "vllm"
USUAL_THREADS = 1536  # resident threads per streaming multiprocessor of most generations
UNKNOWN_CORES = 128
_PLAIN = "._-/:\\@+=~"  # letters that no shell reads


class Runtime(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of ``data/runtimes.json``.

    ``memory`` names the form of its memory arithmetic: llama.cpp's own, or that of ``estimate.engines``. ``quants``:
    best quality first; ``native_quants``: the one to use for models trained in a dtype. ``split``: it can leave a part
    of the model in RAM; ``tensor_parallel``: it shares layers out over cards. ``margin_bytes``: what it likes to keep
    free per device; ``reserve_bytes``: what it holds back per GPU beside the driver's context; ``graph_bytes``: CUDA
    graphs. ``batch_tokens``: how many prompt tokens it works on at once. ``context_step``: contexts are rounded up to
    it. ``flash_heads``: head sizes that a backend has flash attention kernels for (absent: all). ``targets``: the gfx
    targets that its builds of a backend are made for, by backend or by backend and system ("rocm windows"; absent:
    all); ``least_capability``: the oldest CUDA compute capability. ``command`` runs a model as it is published;
    ``commands``: by quantisation, where that one has to be made or found first; ``programs``: that they start, and
    where to get each. ``default_contexts``: (GiB of GPU memory, tokens): from so much memory on it gives so much
    context unless ``context_setting`` names another (none: its command does).
    """

    memory: str
    quants: tuple[str, ...]
    backends: tuple[Backend, ...]
    command: str
    programs: dict[str, str]
    source: str
    split: bool = False
    tensor_parallel: bool = False
    margin_bytes: int = 1 << 30
    reserve_bytes: int = 0
    graph_bytes: int = 0
    utilization: float = 1.0
    batch_tokens: int = 512
    context_step: int = 256
    native_quants: dict[str, str] = {}
    commands: dict[str, str] = {}
    flash_heads: dict[str, tuple[int, ...]] = {}
    targets: dict[str, tuple[str, ...]] = {}
    least_capability: float = 0.0
    default_contexts: tuple[tuple[int, int], ...] = ()
    context_setting: str = ""

    def default_context(self, gpu_bytes: int) -> int | None:
        """Tokens of context that it gives by itself, with so much memory on all GPUs; None where it has no own idea."""
        return max((tokens for least, tokens in self.default_contexts if gpu_bytes >= least * GIB), default=None)

    def serves(self, backend: Backend, card: Accelerator, system: str) -> bool:
        """Whether its builds run on a card by this backend; a card that does not say what it is gets the benefit."""
        if backend not in self.backends:
            return False
        if backend is Backend.CUDA and card.compute_capability:
            return float(card.compute_capability) >= self.least_capability
        made_for = self.targets.get(f"{backend.value} {system}") or self.targets.get(backend.value)
        return not made_for or not card.gfx_target or card.gfx_target in made_for


class Overhead(Struct, frozen=True):
    """Bytes that a backend takes per process and device, outside of what the engine allocates itself.

    A driver keeps local memory for every thread that can be resident at once, so the context of a large GPU is larger:
    ``bytes_per_thread`` times the cores (``Accelerator.cores``) times ``threads_per_core`` by compute capability.
    """

    bytes: int
    note: str
    source: str
    bytes_per_thread: int = 0
    threads_per_core: dict[str, int] = {}

    def on(self, card: Accelerator) -> int:
        """Bytes on one accelerator; one whose cores are not known counts as a large one."""
        threads = self.threads_per_core.get(card.compute_capability or "", USUAL_THREADS)
        return self.bytes + self.bytes_per_thread * threads * (card.cores or UNKNOWN_CORES)


class Runtimes(Struct, frozen=True):
    """The table ``data/runtimes.json``."""

    sources: dict[str, str]
    runtimes: dict[str, Runtime]
    overheads: dict[str, Overhead]

    def row(self, name: str) -> Runtime:
        """The runtime ``name``; raises FitcheckError ``unknown_runtime``."""
        found = self.runtimes.get(name)
        if found is None:
            names = ", ".join(self.runtimes)
            raise FitcheckError("unknown_runtime", f"unknown runtime {name}", f"one of {names}")
        return found


def head_sizes(shape: Shape) -> set[int]:
    """Widths of the attention heads as the cache sees them."""
    sizes = set()
    for kind in shape.kinds:
        mixer = kind.mixer
        for part in mixer.parts if isinstance(mixer, ParallelMixers) else (mixer,):
            if isinstance(part, Attention):
                sizes.add(part.head_dim)
            elif isinstance(part, LatentAttention):
                sizes.add(part.kv_lora_rank + part.qk_rope_head_dim)
    return sizes


def command_of(
    row: Runtime, model: Model, quant: str, flags: tuple[str, ...], context_tokens: int, parallel: int
) -> str:
    """The command line that runs a model in this runtime, or the page that lists such files of it."""
    published = quant in (model.file_quant, model.native_dtype)
    command = row.command if published else row.commands.get(quant, row.command)
    values = {
        "file": _quoted(model.path or f"{model.name}-{quant}.gguf"),
        "tag": model.ollama_tags[0] if model.ollama_tags else model.id,
        "repo": _quoted(model.path or model.hub_repo or model.id),
        "flags": " ".join(flags),
        "context": str(context_tokens),
        "parallel": str(parallel),
    }
    return command.format(**values).strip()


def _quoted(text: str) -> str:
    """For a shell, where it has to be."""
    if all(letter.isalnum() or letter in _PLAIN for letter in text):
        return text
    from shlex import quote

    return quote(text)


def choose(model: Model, machine: Machine, name: str | None) -> str:
    """The runtime that is asked for, or the one that fits the model: llama.cpp where it knows the architecture, unless
    the model is a folder of safetensors, which llama.cpp does not read."""
    if name and name != "auto":
        return name
    safetensors = model.file_quant is not None and model.tensors is None
    if model.architecture is not None and not safetensors:
        return LLAMA_CPP
    unified = any(gpu.unified and Backend.METAL in gpu.backends for gpu in machine.accelerators)
    return "mlx" if unified else VLLM if machine.accelerators else "transformers"
