"""The encoders of a model in bytes: planned ahead for those of the catalog, planned now, or a bound.

For encoders with a graph (``fitcheck.estimate.graph.image_kinds``) the bytes are the engine's own plan; others get a
bound and are not ``exact``. Source: llama.cpp 0c1e57098, tools/mtmd.
"""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from fitcheck.estimate.images import EncoderBytes
from fitcheck.types import Backend, MediaEncoder, Model

EXACT = (None, Backend.CUDA, Backend.ROCM)  # other backends reorder nodes: nearly the same
MOST_PATCHES = 16384  # 4096 tokens of 2 x 2 patches: the most that encoders are given unless their file says more
FEWEST_LAYERS = 12
HEADS = 16
BOUND = "working memory for images is a bound for 4096 tokens an image: the encoder's graph is not known"
FILE = "mmproj"  # what ``PublishedFile.quant`` calls the file of the encoders
Plan = tuple[int, int, int]  # bytes of the weights, of the host's buffer, of the GPU's


class Row(Struct, frozen=True):
    """The encoders of one file, planned by backend ("cpu", "cuda", "metal") as the engine sets them up by itself."""

    encoders: tuple[MediaEncoder, ...]
    plans: dict[str, Plan]


class EncoderTable(Struct, frozen=True):
    """``data/encoders.json``: the catalog's encoders, planned ahead."""

    engine: str
    rows: tuple[Row, ...]
    by_encoders: dict[tuple[MediaEncoder, ...], dict[str, Plan]] = field(default_factory=dict)

    def find(self, encoders: tuple[MediaEncoder, ...], backend: Backend | None) -> Plan | None:
        """The plan for a backend (None: the host), None where there is none."""
        if not self.by_encoders:
            self.by_encoders.update({row.encoders: row.plans for row in self.rows})
        return self.by_encoders.get(encoders, {}).get(column(backend))


def column(backend: Backend | None) -> str:
    """The plan that stands for a backend."""
    if backend in (None, Backend.CPU):
        return "cpu"
    return "metal" if backend is Backend.METAL else "cuda"


def bytes_on(
    model: Model,
    backend: Backend | None,
    flash: bool | None,
    flash_heads: tuple[int, ...] | None,
    table: EncoderTable | None,
) -> EncoderBytes:
    """All encoders of a model on the GPU of a backend, or on the host (None).

    ``flash``: with flash attention or without (None: as the engine sets it up); ``flash_heads``: sizes of heads that
    the GPU has a kernel for (None: any). The weights of a real file are that file's.
    """
    planned = table.find(model.encoders, backend) if table and flash is None else None
    planned = planned or plan(model.encoders, backend, flash, flash_heads)
    if planned is None:
        found = bound(model, backend is not None, flash is not False)
    else:
        found = EncoderBytes(*planned, exact=backend in EXACT)
    file_bytes = next((file.bytes for file in model.files if file.quant == FILE), 0)
    return replace(found, weights=file_bytes) if file_bytes else found


def plan(
    encoders: tuple[MediaEncoder, ...], backend: Backend | None, flash: bool | None, flash_heads: tuple[int, ...] | None
) -> Plan | None:
    """The engine's own plan, some 10 ms; None where the encoders are not known or one has no graph."""
    if not encoders:
        return None
    from fitcheck.estimate.graph.image_plan import GRAPHS, planned

    if any(encoder.kind not in GRAPHS for encoder in encoders):
        return None
    return planned(encoders, backend, flash, lambda size: flash_heads is None or size in flash_heads)


def bound(model: Model, on_gpu: bool, flash: bool) -> EncoderBytes:
    """No less than an encoder of as many weights needs for as many patches as nearly all are given.

    A transformer of few layers is the widest for its weights; of its states some ten lie side by side at the peak,
    besides a mask over all pairs of patches in 32 and in 16 bits, or without flash attention the scores of all heads.
    """
    weights = tower_params(model)
    if not weights:
        return EncoderBytes(exact=False, note="what images need is not counted: nothing is known of the encoder")
    width = int((weights / (12 * FEWEST_LAYERS)) ** 0.5)
    pairs = MOST_PATCHES**2 * (6 if flash else 6 + 4 * HEADS)
    buffer = 10 * 4 * width * MOST_PATCHES + pairs
    inputs = 4 * MOST_PATCHES**2 + 3 * 4 * 32**2 * MOST_PATCHES
    host, gpu = (inputs, buffer) if on_gpu else (buffer, 0)
    return EncoderBytes(2 * weights, host, gpu, False, BOUND)


def tower_params(model: Model) -> int:
    """Weights of the image encoder: the catalog's count, else what the published count has beyond the text model."""
    counted = sum(params for tower, params in model.tower_params.items() if "vision" in tower or tower == "projector")
    if counted or model.published_params is None or "vision" not in model.modalities:
        return counted
    return max(model.published_params - model.params - sum(model.tower_params.values()), 0)
