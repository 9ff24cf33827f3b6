"""What a context costs: the KV cache and the recurrent state of each layer, in bytes.

Source: ``src/llama-kv-cache*.cpp``, ``src/llama-memory-recurrent.cpp`` and ``src/llama-hparams.cpp`` of llama.cpp
0c1e570. Cells are counted per stream: one when the cache is unified, else one per sequence.
"""

from __future__ import annotations

from msgspec import Struct

from fitcheck.estimate.quantize import Quantizations
from fitcheck.types import (
    Attention,
    CompressedAttention,
    CountedMixer,
    GatedDeltaNet,
    KimiDelta,
    LatentAttention,
    Layer,
    LightningAttention,
    Mamba1,
    Mamba2,
    Mixer,
    ParallelMixers,
    Shape,
    ShortConvolution,
)

CELL_STEP = 256  # contexts and windows are padded to it
CUDA_ROW_STEP = 512  # CUDA pads the last row of a quantised tensor to it (MATRIX_ROW_PADDING)


class CacheSettings(Struct, frozen=True):
    """What the engine knows about the context when it allocates caches.

    ``context_tokens`` is the total over all sequences as the user asks for it. ``windows``: False where the engine
    ignores the model's sliding windows. ``pad_rows``: the cache lies on a CUDA device. ``padded_v``: elements that V
    rows take when flash attention is off and layers differ (None: each its own).
    """

    context_tokens: int
    sequences: int = 1
    unified: bool = False
    swa_full: bool = False
    ubatch_tokens: int = 512
    type_k: str = "f16"
    type_v: str = "f16"
    windows: bool = True
    pad_rows: bool = False
    padded_v: int | None = None

    @property
    def streams(self) -> int:
        """How many caches lie side by side."""
        return 1 if self.unified else self.sequences

    @property
    def cells(self) -> int:
        """Cells of a full-attention cache, per stream."""
        return padded(padded(self.context_tokens) // self.streams)

    def window_cells(self, window: int) -> int:
        """Cells of a sliding-window cache, per stream."""
        cells = self.cells
        if self.swa_full or not self.windows:
            return cells
        sequences = self.sequences if self.unified else 1
        return padded(min(cells, window * sequences + self.ubatch_tokens))


def padded(cells: int, step: int = CELL_STEP) -> int:
    """The next multiple of ``step``."""
    return -(-cells // step) * step


def _tensor_bytes(kv_type: str, elements: int, cells: int, settings: CacheSettings, table: Quantizations) -> int:
    size = table.kv_row_bytes(kv_type, elements) * cells * settings.streams
    if settings.pad_rows and elements % CUDA_ROW_STEP and kv_type not in ("f16", "bf16", "f32"):
        size += table.kv_row_bytes(kv_type, CUDA_ROW_STEP - elements % CUDA_ROW_STEP)
    return size


def kv_bytes(mixer: Mixer, settings: CacheSettings, table: Quantizations) -> int:
    """Bytes of one layer's KV cache, all sequences."""
    if isinstance(mixer, Attention):
        return _attention_bytes(mixer, settings, table)
    if isinstance(mixer, LatentAttention):
        elements = mixer.kv_lora_rank + mixer.qk_rope_head_dim
        size = _tensor_bytes(settings.type_k, elements, settings.cells, settings, table)
        if mixer.indexer is not None:
            size += _tensor_bytes(settings.type_k, mixer.indexer.head_dim, settings.cells, settings, table)
        return size
    if isinstance(mixer, CompressedAttention):
        return _compressed_bytes(mixer, settings, table)
    if isinstance(mixer, CountedMixer):
        per_element = table.kv_row_bytes(settings.type_k, 32) / 64
        return round(mixer.kv_bytes_per_token * per_element * settings.cells * settings.streams) + mixer.window_bytes
    if isinstance(mixer, ParallelMixers):
        return sum(kv_bytes(part, settings, table) for part in mixer.parts)
    return 0


def _attention_bytes(a: Attention, settings: CacheSettings, table: Quantizations) -> int:
    if a.kv_shared or a.kv_fixed:
        return 0
    cells = settings.window_cells(a.window) if a.window else settings.cells
    k = a.n_kv_heads * a.head_dim
    v = settings.padded_v or a.n_kv_heads * (a.v_head_dim or a.head_dim)
    return _tensor_bytes(settings.type_k, k, cells, settings, table) + _tensor_bytes(
        settings.type_v, v, cells, settings, table
    )


def _compressed_bytes(a: CompressedAttention, settings: CacheSettings, table: Quantizations) -> int:
    size = _tensor_bytes(settings.type_k, a.head_dim, settings.window_cells(a.window), settings, table)
    if a.compress_ratio:
        cells = -(-settings.cells // a.compress_ratio)
        size += _tensor_bytes(settings.type_k, a.head_dim, cells, settings, table)
        if a.indexer is not None:
            size += _tensor_bytes(settings.type_k, a.indexer.head_dim, cells, settings, table)
    return size


def recurrent_bytes(mixer: Mixer, sequences: int, hidden: int) -> int:
    """Bytes of one layer's recurrent state (32-bit floats), all sequences."""
    return 4 * max(1, sequences) * _state_elements(mixer, hidden)


def _state_elements(m: Mixer, hidden: int) -> int:
    if isinstance(m, Mamba2):
        return (m.conv_kernel - 1) * (m.d_inner + 2 * m.n_groups * m.d_state) + m.d_state * m.d_inner
    if isinstance(m, Mamba1):
        return (m.conv_kernel - 1) * m.d_inner + m.d_state * m.d_inner
    if isinstance(m, GatedDeltaNet):
        inner = m.n_v_heads * m.v_head_dim
        return (m.conv_kernel - 1) * (inner + 2 * m.n_k_heads * m.k_head_dim) + m.k_head_dim * inner
    if isinstance(m, KimiDelta):
        return 3 * (m.conv_kernel - 1) * m.n_heads * m.head_dim + m.head_dim * m.head_dim * m.n_heads
    if isinstance(m, ShortConvolution):
        return hidden * (m.conv_kernel - 1)
    if isinstance(m, LightningAttention):
        return m.n_heads * m.head_dim * m.head_dim
    if isinstance(m, CountedMixer):
        return m.state_bytes // 4
    if isinstance(m, ParallelMixers):
        return sum(_state_elements(part, hidden) for part in m.parts)
    return 0


def widest_value(shape: Shape) -> int | None:
    """Elements that every V row takes where layers differ and flash attention is off; None where all are alike."""
    widths = {
        kind.mixer.n_kv_heads * (kind.mixer.v_head_dim or kind.mixer.head_dim)
        for kind in shape.kinds
        if isinstance(kind.mixer, Attention) and not kind.mixer.kv_shared
    }
    return max(widths) if len(widths) > 1 else None


def layer_cache_bytes(layer: Layer, settings: CacheSettings, hidden: int, table: Quantizations) -> tuple[int, int]:
    """(KV cache, recurrent state) of one layer in bytes."""
    return kv_bytes(layer.mixer, settings, table), recurrent_bytes(layer.mixer, settings.sequences, hidden)
