"""What people and publishers call quantisations -> the names of ``data/quantizations.json``.

A repository's name ends in the format of its weights (``Qwen3-32B-AWQ``), a tag or a file's name in a GGUF mix
(``:UD-Q4_K_XL``, ``-q8_0``). Which endings there are is data.
"""

from __future__ import annotations

import re

from msgspec import Struct

from fitcheck.estimate.quantizations import Quantizations

MAX_LENGTH = 300
_GGUF = re.compile(
    r"[-:@._/]((?:ud-)?(?:i?q|tq)[1-8](?:_(?:k|[0-8]|xxs|xs|s|m|l|xl|nl))*|mxfp4(?:_moe)?|bf16|f16|fp16|f32)$"
)
_BLANKS = re.compile(r"[\s()\[\]]+")
_AFTER_THE_QUANT = re.compile(r"(?:-\d{5}-of-\d{5})?\.gguf$|[-_]gguf$")


class NamedQuant(Struct, frozen=True):
    """A quantisation that a name holds, and the engine that it was made for where the quantisation does not tell."""

    quant: str
    runtime: str | None = None


def named(text: str, table: Quantizations, publisher: str | None = None) -> NamedQuant | None:
    """The quantisation that a model's name ends in, None where it names none. ``publisher``: whose names are meant."""
    name = _AFTER_THE_QUANT.sub("", _BLANKS.sub("-", text[-MAX_LENGTH:].casefold()).strip("-"))
    ending = _ending(name, table)
    if ending is not None:
        return ending
    found = _GGUF.search(name)
    return NamedQuant(spelled(found[1], table, publisher)[0]) if found else None


def spelled(written: str, table: Quantizations, publisher: str | None = None) -> tuple[str, ...]:
    """What a quantisation may be called in the tables, the most usual first; itself, in capitals, where it is in
    none."""
    name = written[:MAX_LENGTH].strip().upper()
    own = tuple(key for key, mix in table.publisher_mixes.items() if name in mix.also)
    if any(table.publisher_mixes[key].publisher == publisher for key in own):
        return own
    if name in table.aliases:
        return table.aliases[name]
    if table.is_gguf(name) or name in table.formats:
        return (name,)
    ending = _ending(f"-{name.casefold()}", table)
    return own or ((ending.quant,) if ending else (name,))


def _ending(name: str, table: Quantizations) -> NamedQuant | None:
    """The format that the name of a repository ends in."""
    for ending in table.endings:
        if re.search(f"(?:{ending.pattern})$", name):
            return NamedQuant(ending.quant, ending.runtime)
    return None
