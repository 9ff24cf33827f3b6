"""What a context costs: the KV cache and the recurrent state of each layer, in bytes.

Source: ``src/llama-kv-cache*.cpp``, ``src/llama-memory-*.cpp`` and ``src/llama-hparams.cpp`` of llama.cpp 0c1e570.
Cells are counted per stream: one when the cache is unified, else one per sequence.
"""

from __future__ import annotations

from msgspec import Struct

from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.quantize import CUDA_ROW_STEP, GPU_STEP
from fitcheck.estimate.tensors import OVERLAPPED_RATIO, PLAIN, Layout
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
    NoMixer,
    ParallelMixers,
    Shape,
    ShortConvolution,
)

CELL_STEP = 256  # contexts and windows are padded to it


class CacheSettings(Struct, frozen=True):
    """What the engine knows about the context when it allocates caches.

    ``context_tokens`` is the total over all sequences as the user asks for it. ``padded_v``: elements that V rows take
    when flash attention is off and layers differ (None: each its own). ``step``: cells are rounded up to it.
    """

    context_tokens: int
    sequences: int = 1
    unified: bool = False
    swa_full: bool = False
    ubatch_tokens: int = 512
    type_k: str = "f16"
    type_v: str = "f16"
    padded_v: int | None = None
    step: int = CELL_STEP

    @property
    def streams(self) -> int:
        """How many caches lie side by side."""
        return 1 if self.unified else self.sequences

    @property
    def cells(self) -> int:
        """Cells of a full-attention cache, per stream."""
        return padded(padded(self.context_tokens, self.step) // self.streams, self.step)

    def window_cells(self, window: int) -> int:
        """Cells of a sliding-window cache, per stream."""
        if self.swa_full:
            return self.cells
        sequences = self.sequences if self.unified else 1
        return padded(min(self.cells, window * sequences + self.ubatch_tokens), self.step)


def padded(cells: int, step: int = CELL_STEP) -> int:
    """The next multiple of ``step``."""
    return -(-cells // step) * step


class _Cache:
    """Bytes of one layer's KV cache, on the host or on a CUDA device (which pads the last row)."""

    def __init__(self, settings: CacheSettings, table: Quantizations, layout: Layout, on_cuda: bool) -> None:
        self._settings = settings
        self._table = table
        self._layout = layout
        self._on_cuda = on_cuda

    def bytes(self, mixer: Mixer) -> int:
        """KV bytes of a layer with this mixer, all sequences."""
        if isinstance(mixer, Attention):
            return self._attention(mixer)
        if isinstance(mixer, LatentAttention):
            return self._latent(mixer)
        if isinstance(mixer, CompressedAttention):
            return self._compressed(mixer)
        if isinstance(mixer, NoMixer):
            return self._values(self._settings.padded_v, self._settings.cells) if self._settings.padded_v else 0
        if isinstance(mixer, CountedMixer):
            settings = self._settings
            per_element = self._table.kv_row_bytes(settings.type_k, CUDA_ROW_STEP) / (2 * CUDA_ROW_STEP)
            tokens = settings.cells * settings.streams
            return round(mixer.kv_bytes_per_token * per_element * tokens) + mixer.window_bytes
        if isinstance(mixer, ParallelMixers):
            return sum(self.bytes(part) for part in mixer.parts)
        return 0

    def _rows(self, kv_type: str, elements: int, cells: int, streams: int) -> int:
        size = self._table.kv_row_bytes(kv_type, elements) * cells * streams
        rest = elements % CUDA_ROW_STEP
        if not self._on_cuda:
            return size
        if rest and self._table.is_quantised(kv_type):
            size += self._table.kv_row_bytes(kv_type, CUDA_ROW_STEP - rest)
        return padded(size, GPU_STEP)

    def _attention(self, a: Attention) -> int:
        if a.kv_shared or a.kv_fixed:
            return 0
        settings = self._settings
        cells = settings.window_cells(a.window) if a.window and self._layout.windows else settings.cells
        k = a.n_kv_heads * a.head_dim
        v = settings.padded_v or a.n_kv_heads * (a.v_head_dim or a.head_dim)
        size = self._keys(k, cells) + self._values(v, cells)
        if a.extra_params and self._layout.indexer_cache:
            index_k, index_v = self._layout.indexer_cache
            size += self._keys(index_k, settings.cells)
            size += self._values(index_v, settings.cells) if index_v else 0
        return size

    def _latent(self, a: LatentAttention) -> int:
        cells = self._settings.window_cells(a.window) if a.window else self._settings.cells
        if not a.absorbed:
            keys = self._keys(a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim), cells)
            return keys + self._values(a.n_heads * a.v_head_dim, cells)
        size = self._keys(a.kv_lora_rank + a.qk_rope_head_dim, cells)
        if a.indexer is not None:
            size += self._keys(self._layout.indexer_keys * a.indexer.head_dim, cells)
        return size

    def _keys(self, elements: int, cells: int) -> int:
        return self._rows(self._settings.type_k, elements, cells, self._settings.streams)

    def _values(self, elements: int, cells: int) -> int:
        return self._rows(self._settings.type_v, elements, cells, self._settings.streams)

    def _compressed(self, a: CompressedAttention) -> int:
        """Keys only, and always one stream per sequence: the engine does not unify them."""
        settings = self._settings
        streams, kv_type = settings.sequences, settings.type_k
        window = settings.cells if settings.swa_full else min(settings.cells, a.window + settings.ubatch_tokens)
        size = self._rows(kv_type, a.head_dim, padded(window), streams)
        if a.compress_ratio:
            cells = padded(max(1, -(-settings.cells // a.compress_ratio)))
            size += self._rows(kv_type, a.head_dim, cells, streams)
            if a.indexer is not None:
                size += self._rows(kv_type, a.indexer.head_dim, cells, streams)
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
    if isinstance(m, CompressedAttention):
        return _compressor_state(m)
    if isinstance(m, CountedMixer):
        return m.state_bytes // 4
    if isinstance(m, ParallelMixers):
        return sum(_state_elements(part, hidden) for part in m.parts)
    return 0


def _compressor_state(a: CompressedAttention) -> int:
    """Keys and scores of the window that is being compressed; overlapping windows keep two, of double width."""
    if not a.compress_ratio:
        return 0
    overlap = 2 if a.compress_ratio == OVERLAPPED_RATIO else 1
    widths = a.head_dim + (a.indexer.head_dim if a.indexer else 0)
    return 2 * (overlap * a.compress_ratio) * (overlap * widths)


def widest_value(shape: Shape) -> int | None:
    """Elements that every V row takes where layers differ and flash attention is off; None where all are alike.

    A layer without attention is one that differs, unless the model is a hybrid, whose cache leaves such layers out.
    """
    widths = {
        kind.mixer.n_kv_heads * (kind.mixer.v_head_dim or kind.mixer.head_dim)
        for kind in shape.kinds
        if isinstance(kind.mixer, Attention)
    }
    hybrid = any(_state_elements(kind.mixer, shape.hidden_size) for kind in shape.kinds)
    gaps = not hybrid and any(isinstance(kind.mixer, NoMixer) for kind in shape.kinds)
    return max(widths) if len(widths) > 1 or (gaps and widths) else None


def layer_cache_bytes(
    layer: Layer, settings: CacheSettings, hidden: int, table: Quantizations, layout: Layout = PLAIN
) -> tuple[int, int, int]:
    """(KV cache on the host, KV cache on a CUDA device, recurrent state) of one layer in bytes."""
    if not layout.cache:
        return 0, 0, 0
    host = _Cache(settings, table, layout, on_cuda=False).bytes(layer.mixer)
    quantised = table.is_quantised(settings.type_k) or table.is_quantised(settings.type_v)
    gpu = _Cache(settings, table, layout, on_cuda=True).bytes(layer.mixer) if quantised else host
    state = recurrent_bytes(layer.mixer, settings.sequences, hidden)
    if layer.ngrams:
        state += 4 * settings.sequences * layer.ngrams.history * layer.ngrams.streams * hidden
    return host, gpu, state
