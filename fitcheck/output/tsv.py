"""Draw a document for a program: tables tab-separated, names in full, no colour; prose as it stands."""

from __future__ import annotations

from fitcheck.output.document import Block, Document, Line, Table, clean


def draw(document: Document) -> str:
    """The document as text. With ``table_only`` nothing but its first table, so that ``cut`` and ``awk`` work."""
    if document.table_only:
        lines = next((_rows(block) for block in document.blocks if isinstance(block, Table)), [])
    else:
        lines = [line for block in document.blocks for line in _lines(block)]
    return "".join(line + "\n" for line in lines)


def _lines(block: Block) -> list[str]:
    if isinstance(block, Table):
        return _rows(block)
    if isinstance(block, Line):
        return [clean(block.text).rstrip()]
    return [f"{clean(bar.label)}\t{clean(bar.value.text)}" for bar in block.rows]


def _rows(table: Table) -> list[str]:
    header = ["\t".join(column.title for column in table.columns)] if table.header else []
    return header + ["\t".join(clean(cell.text) for cell in row) for row in table.rows]
