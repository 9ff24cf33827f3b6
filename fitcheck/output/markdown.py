"""Draw a document as GitHub Markdown, for issues and step summaries."""

from __future__ import annotations

from fitcheck.output.document import Bars, Document, Line, Table, clean

_ESCAPES = str.maketrans({character: "\\" + character for character in "\\`*_[]<>|#~"})


def draw(document: Document) -> str:
    """The document as Markdown. Outside text is escaped: a model's name cannot open a link or an element."""
    parts: list[str] = []
    for block in document.blocks:
        if isinstance(block, Line):
            parts.append(escape(block.text).strip())
        elif isinstance(block, Table):
            parts.append(_table(block))
        elif isinstance(block, Bars):
            parts.append("\n".join(f"- {escape(bar.label)}: {escape(bar.value.text)}" for bar in block.rows))
    return "\n\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Text whose characters mean nothing to Markdown or HTML."""
    return clean(text).replace("&", "&amp;").translate(_ESCAPES)


def _table(table: Table) -> str:
    rows = [
        "| " + " | ".join(column.title.lower() for column in table.columns) + " |",
        "|" + "|".join("--:" if column.right else "---" for column in table.columns) + "|",
    ]
    rows += ["| " + " | ".join(escape(cell.text) for cell in row) + " |" for row in table.rows]
    return "\n".join(rows)
