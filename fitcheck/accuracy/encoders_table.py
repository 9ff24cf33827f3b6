"""Plan the encoders of the catalog's models and write ``fitcheck/data/encoders.json``.

Run ``python -m fitcheck.accuracy.encoders_table`` after a change of the catalog's encoders or of their graphs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from fitcheck import catalog, facts
from fitcheck.accuracy.buffers_table import ENGINE
from fitcheck.estimate.encoders import EncoderTable, Plan, Row, column, plan
from fitcheck.estimate.runtimes import LLAMA_CPP, Runtimes
from fitcheck.types import Backend, MediaEncoder

TARGET = Path(__file__).parent.parent / "data" / "encoders.json"
BACKENDS = (None, Backend.CUDA, Backend.METAL)


def row_of(encoders: tuple[MediaEncoder, ...], runtimes: Runtimes) -> Row | None:
    """The plans of the encoders of one file, None where one has no graph."""
    heads = runtimes.row(LLAMA_CPP).flash_heads
    plans: dict[str, Plan] = {}
    for backend in BACKENDS:
        planned = plan(encoders, backend, None, heads.get(backend.value) if backend else None)
        if planned is None:
            return None
        plans[column(backend)] = planned
    return Row(encoders, plans)


def build() -> EncoderTable:
    """The table of the catalog's encoders, in the order of the catalog."""
    runtimes = facts.load().runtimes
    files = dict.fromkeys(model.encoders for model in catalog.load().models if model.encoders)
    rows = [row_of(encoders, runtimes) for encoders in files]
    return EncoderTable(ENGINE, tuple(row for row in rows if row))


def text_of(table: EncoderTable) -> bytes:
    """The table as the repository keeps it: one line per file."""
    rows = [b"  " + msgspec.json.encode(row) for row in table.rows]
    return b'{\n "engine": "%s",\n "rows": [\n%s\n ]\n}\n' % (table.engine.encode(), b",\n".join(rows))


def main() -> int:
    """Write the table."""
    table = build()
    TARGET.write_bytes(text_of(table))
    print(f"{len(table.rows)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
