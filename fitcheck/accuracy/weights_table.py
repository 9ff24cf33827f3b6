"""Build ``data/weights.msgpack.zlib``: the catalog's models in the quantisations that a scan looks at.

With it a scan sums no tensors. ``python -m fitcheck.accuracy.weights_table`` writes the file; a test keeps it fresh.
"""

from __future__ import annotations

import sys
import zlib

import msgspec

from fitcheck import catalog, facts
from fitcheck.estimate.fit import quants_of
from fitcheck.estimate.quantize import store
from fitcheck.estimate.stored import StoredModel, WeightsTable
from fitcheck.types import Model


def build() -> WeightsTable:
    """The table of this catalog and these mixes."""
    known = facts.load()
    models = {model.id: _row(model, known) for model in catalog.load().models if model.shape is not None}
    return WeightsTable(models)


def _row(model: Model, known: facts.Facts) -> StoredModel:
    quants = quants_of(model, None, known.runtimes)
    stored = {quant: msgspec.Raw(msgspec.msgpack.encode(store(model, quant, known.quantizations))) for quant in quants}
    layers = model.shape.layers if model.shape else ""
    return StoredModel(model.params, layers, model.context_tokens, stored)


def main() -> int:
    """Write the table."""
    (facts.DATA / facts.WEIGHTS).write_bytes(zlib.compress(msgspec.msgpack.encode(build()), 9))
    return 0


if __name__ == "__main__":
    sys.exit(main())
