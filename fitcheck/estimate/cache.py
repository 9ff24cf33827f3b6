"""What a context costs: the KV cache and the recurrent state of each layer, in bytes.

Source: ``src/llama-kv-cache*.cpp``, ``src/llama-memory-*.cpp`` and ``src/llama-hparams.cpp`` of llama.cpp 0c1e570.
Cells are counted per stream: one when the cache is unified, else one per sequence.
"""

from __future__ import annotations

from typing import NamedTuple

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

    def cells_of(self, row: CacheRow, cells: int) -> int:
        """Cells of a row, per stream, where a full-attention cache has ``cells``."""
        if row.window is not None and not self.swa_full:
            sequences = self.sequences if self.unified and not row.per_sequence else 1
            cells = padded(min(cells, row.window * sequences + self.ubatch_tokens), self.step)
        return cells if row.ratio == 1 else padded(max(1, -(-cells // row.ratio)), self.step)


class CacheRow(NamedTuple):
    """What one cell of a layer's cache holds of K or of V.

    ``window``: so many tokens are kept (None: all); ``ratio``: tokens per cell; ``per_sequence``: the engine never
    unifies these caches; ``as_wide``: takes ``CacheSettings.padded_v`` elements where that is set.
    """

    elements: int
    is_value: bool = False
    window: int | None = None
    ratio: int = 1
    per_sequence: bool = False
    as_wide: bool = False


class CacheForm(NamedTuple):
    """What one kind of layer keeps, whatever the settings.

    ``state_bytes``: recurrent state per sequence; ``counted_per_token``, ``counted_bytes``: of a ``CountedMixer``, at
    f16 and whatever the context.
    """

    rows: tuple[CacheRow, ...] = ()
    state_bytes: int = 0
    counted_per_token: float = 0.0
    counted_bytes: int = 0


def cache_forms(shape: Shape, layout: Layout = PLAIN) -> tuple[CacheForm, ...]:
    """What each of ``Shape.kinds`` keeps under ``layout``."""
    return tuple([_cache_form(kind, shape.hidden_size, layout) for kind in shape.kinds])


def _cache_form(layer: Layer, hidden: int, layout: Layout) -> CacheForm:
    if not layout.cache:
        return CacheForm()
    state = recurrent_bytes(layer.mixer, hidden)
    if layer.ngrams:
        state += 4 * layer.ngrams.history * layer.ngrams.streams * hidden
    rows: list[CacheRow] = []
    per_token, counted = 0.0, 0
    for part in layer.mixer.parts if isinstance(layer.mixer, ParallelMixers) else (layer.mixer,):
        if isinstance(part, CountedMixer):
            per_token, counted = per_token + part.kv_bytes_per_token, counted + part.window_bytes
        else:
            rows += _rows(part, layout)
    return CacheForm(tuple(rows), state, per_token, counted)


def _rows(mixer: Mixer, layout: Layout) -> list[CacheRow]:
    if isinstance(mixer, Attention):
        return _attention(mixer, layout)
    if isinstance(mixer, LatentAttention):
        return _latent(mixer, layout)
    if isinstance(mixer, CompressedAttention):
        return _compressed(mixer)
    return [CacheRow(0, is_value=True, as_wide=True)] if isinstance(mixer, NoMixer) else []


def _attention(a: Attention, layout: Layout) -> list[CacheRow]:
    if a.kv_shared or a.kv_fixed:
        return []
    window = (a.window or None) if layout.windows else None
    values = a.n_kv_heads * (a.v_head_dim or a.head_dim)
    rows = [CacheRow(a.n_kv_heads * a.head_dim, window=window), CacheRow(values, True, window, as_wide=True)]
    if a.extra_params and layout.indexer_cache:
        index_k, index_v = layout.indexer_cache
        rows += [CacheRow(index_k), CacheRow(index_v, is_value=True)]
    return rows


def _latent(a: LatentAttention, layout: Layout) -> list[CacheRow]:
    window = a.window or None
    if not a.absorbed:
        keys = CacheRow(a.n_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim), window=window)
        return [keys, CacheRow(a.n_heads * a.v_head_dim, True, window)]
    rows = [CacheRow(a.kv_lora_rank + a.qk_rope_head_dim, window=window)]
    if a.indexer is not None:
        rows.append(CacheRow(layout.indexer_keys * a.indexer.head_dim, window=window))
    return rows


def _compressed(a: CompressedAttention) -> list[CacheRow]:
    """Keys only."""
    rows = [CacheRow(a.head_dim, window=a.window, per_sequence=True)]
    if a.compress_ratio:
        rows.append(CacheRow(a.head_dim, ratio=a.compress_ratio, per_sequence=True))
        if a.indexer is not None:
            rows.append(CacheRow(a.indexer.head_dim, ratio=a.compress_ratio, per_sequence=True))
    return rows


def cache_bytes(form: CacheForm, settings: CacheSettings, table: Quantizations) -> tuple[int, int]:
    """The KV cache of one layer in bytes, on the host and on a CUDA device, which pads the last row."""
    full, streams = settings.cells, settings.streams
    keys, values = table.kv_block(settings.type_k), table.kv_block(settings.type_v)
    host = gpu = 0
    for row in form.rows:
        elements, is_value, window, ratio, per_sequence, as_wide = row
        if as_wide and settings.padded_v:
            elements = settings.padded_v
        block = values if is_value else keys
        cells = full if window is None and ratio == 1 else settings.cells_of(row, full)
        size = block.row_bytes(elements) * cells * (settings.sequences if per_sequence else streams)
        host += size
        if block.elements > 1:
            rest = elements % CUDA_ROW_STEP
            size = padded(size + (block.row_bytes(CUDA_ROW_STEP - rest) if rest else 0), GPU_STEP)
        gpu += size
    if form.counted_per_token or form.counted_bytes:
        per_element = keys.row_bytes(CUDA_ROW_STEP) / (2 * CUDA_ROW_STEP)
        counted = round(form.counted_per_token * per_element * full * streams) + form.counted_bytes
        host, gpu = host + counted, gpu + counted
    return host, gpu


def padded(cells: int, step: int = CELL_STEP) -> int:
    """The next multiple of ``step``."""
    return -(-cells // step) * step


def recurrent_bytes(mixer: Mixer, hidden: int) -> int:
    """Bytes of one layer's recurrent state (32-bit floats), per sequence."""
    return 4 * _state_elements(mixer, hidden)


def _state_elements(m: Mixer, hidden: int) -> int:
    if isinstance(m, (Attention, LatentAttention)):
        return 0
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
