"""Mixes that a publisher makes up model by model: the nearest mix of llama.cpp at the size of the published file.

Which tensors got which type is not known without the file, so what comes of it is never exact; the bytes of the whole
are, where the catalog has the file.
"""

from __future__ import annotations

from msgspec.structs import replace

from fitcheck.estimate.quantizations import Quantizations
from fitcheck.estimate.quantize import weights_of
from fitcheck.estimate.stored import Bytes, Stored, StoredLayer
from fitcheck.types import Model, PublishedFile, Weights

_PREDICTION = "mtp"
_BESIDE_THE_TEXT = ((), (_PREDICTION,))  # parts of a file whose size still says what the text model takes


def sized(like: Stored, model: Model, quant: str, table: Quantizations) -> Stored:
    """``like``, the model in the nearest mix, with its layers at the size that ``quant`` has; unchanged where ``quant``
    is a mix that is known in full."""
    mix = table.publisher_mixes.get(quant)
    if mix is None or mix.layers is None:
        return like
    file = published(model, quant, mix.publisher)
    share = mix.layers if file is None else _share(file, weights_of(like), model)
    return replace(like, kinds=tuple(_scaled(kind, share) for kind in like.kinds), exact=False)


def _share(file: PublishedFile, like: Weights, model: Model) -> float:
    """How many bytes the layers of a published file take for one of ``like``'s."""
    size = float(file.bytes)
    if _PREDICTION in file.parts and not like.unloaded:  # layers that ``like`` does not have, quantised like the others
        size *= model.params / (model.params + model.tower_params.get(_PREDICTION, 0))
    missing = size - (like.total if file.tensors_only else like.file_bytes)
    return 1 + missing / max(1, sum(layer.total for layer in like.each_layer()))


def published(model: Model, quant: str, publisher: str) -> PublishedFile | None:
    """The publisher's file of the model in ``quant``, the one with exact bytes first; None where the catalog has
    none."""
    files = [
        file
        for file in model.files
        if file.quant == quant
        and file.parts in _BESIDE_THE_TEXT
        and file.repo.partition("/")[0].casefold() in ("", publisher)
    ]
    return max(files, key=lambda file: (file.exact, bool(file.repo)), default=None)


def describe(model: Model, quant: str, table: Quantizations) -> str:
    """How the bytes of a publisher's mix were found, for people; empty for every other quantisation."""
    mix = table.publisher_mixes.get(quant)
    if mix is None or mix.layers is None:
        return ""
    chosen = f"{quant}: {mix.publisher} chooses types model by model"
    file = published(model, quant, mix.publisher)
    if file is None:
        return f"{chosen}; the file's size is not known here, {mix.layers:g} times {mix.like} is usual"
    return f"{chosen}; {file.bytes / 1e9:.4g} GB as published, spread over the layers like {mix.like}"


def _scaled(layer: StoredLayer, share: float) -> StoredLayer:
    mixer, ffn, experts = (_times(part, share) for part in (layer.mixer, layer.ffn, layer.experts))
    return StoredLayer(layer.kind, mixer, ffn, experts)


def _times(part: Bytes, share: float) -> Bytes:
    return Bytes(int(part.file * share), int(part.host * share), int(part.gpu * share))
