"""Shorthand of benchmark posts, brought into the words of the tables: "76c", "DDR5-6000", "12ch", "4080S".

Each function takes a text and gives it back without, or in place of, the shorthand. None decides what a name means.
"""

from __future__ import annotations

import re

from msgspec import Struct


class MemorySpeed(Struct, frozen=True):
    """What a text says about RAM: megatransfers per second and channels, None where it does not."""

    rate_mts: int | None = None
    channels: int | None = None


_CHANNEL_WORDS = {"single": 1, "dual": 2, "quad": 4, "six": 6, "hexa": 6, "octa": 8, "eight": 8, "twelve": 12}
_CHANNELS = re.compile(
    rf"(?<![\w-])(?:(\d{{1,2}})(?:[ -]?ch(?:annels?)?|x(?=\s*ddr))|({'|'.join(_CHANNEL_WORDS)})[ -]channels?)(?![\w-])",
    re.IGNORECASE,
)
_DDR = re.compile(
    r"(?<![\w-])(?:lp)?ddr[2-6]x?(?:[ @-]*(\d{4,5}))?(?:\s*(?:mt/?s|mhz))?(?![\w-])(?:\s+(?:d?ram|memory)\b)?",
    re.IGNORECASE,
)
_RATE = re.compile(r"(?<![\w-])@?\s*(\d{4,5})\s*(?:mt/?s|mhz)(?![\w-])", re.IGNORECASE)


def without_memory_speed(text: str) -> tuple[str, MemorySpeed]:
    """``"EPYC 9454 12ch DDR5-4800"`` -> (``"EPYC 9454"``, 4800 MT/s on 12 channels)."""
    channels = rate = None
    match = _CHANNELS.search(text)
    if match is not None:
        channels = int(match[1]) if match[1] else _CHANNEL_WORDS[match[2].lower()]
        text = _cut(text, match)
    for pattern in (_DDR, _RATE):
        match = pattern.search(text)
        if match is not None:
            rate = rate or (int(match[1]) if match[1] else None)
            text = _cut(text, match)
    return text, MemorySpeed(rate, channels)


def _cut(text: str, match: re.Match[str]) -> str:
    return " ".join(f"{text[: match.start()]} {text[match.end() :]}".split())


_APPLE_CHIP = re.compile(r"(?:apple\s+)?(m[1-9])(?:\s*(pro|max|ultra))?(?!\w)", re.IGNORECASE)
_CORES = re.compile(
    r"(?<![\w.])(?:(\d{1,2})\s*/\s*(\d{1,2})"  # 12/38: of the processor, of the GPU
    r"|(\d{1,2})[ -]?(?:c|cores?)(?:[ -](cpu|gpu))?|(\d{1,2})[ -](cpu|gpu)(?:[ -]?cores?)?)(?!\w)",
    re.IGNORECASE,
)
_AROUND_CORES = re.compile(r"[()]|\band\b", re.IGNORECASE)


def apple_chip(text: str) -> tuple[str, int | None, int | None] | None:
    """``"M2 Ultra 24/76"`` -> (``"Apple M2 Ultra"``, 24 cores of the processor, 76 of the GPU); a count that may be
    either is the GPU's. None where the text says anything else, or no count at all."""
    processor = gpu = None
    rest = text
    for match in _CORES.finditer(text):
        whose = (match[4] or match[6] or "").lower()
        if match[1]:
            processor, gpu = int(match[1]), int(match[2])
        elif whose == "cpu":
            processor = int(match[3] or match[5])
        else:
            gpu = int(match[3] or match[5])
        rest = rest.replace(match[0], " ", 1)
    chip = _APPLE_CHIP.fullmatch(" ".join(_AROUND_CORES.sub(" ", rest).split()))
    if chip is None or (processor is None and gpu is None):
        return None
    return " ".join(["Apple", chip[1].upper(), *([chip[2].title()] if chip[2] else [])]), processor, gpu


_ENUMERATION = re.compile(r"\(([^()]*\b(?:cores?|m[1-9])\b[^()]*)\)", re.IGNORECASE)


def without_enumerations(text: str) -> str:
    """``"M4 Max (16-core CPU, 40-core GPU)"``, ``"Mac Studio (M3 Ultra, 512GB)"`` without the brackets and the comma,
    which separates no parts."""
    return _ENUMERATION.sub(lambda match: f" {match[1].replace(',', ' ')} ", text)


_PCI_NAME = re.compile(r"[^\[\]]*\[([^\[\]/]{3,})\](?:\s*\(rev [0-9a-f]{1,4}\))?", re.IGNORECASE)


def in_brackets(text: str) -> str:
    """``"NVIDIA Corporation GA102 [GeForce RTX 3090] (rev a1)"``, as ``lspci`` writes it, without the name of the
    chip."""
    match = _PCI_NAME.fullmatch(text.strip())
    return match[1] if match is not None else text


_REMARK = re.compile(
    r"\s*\((?:radv|aco|llvm|dg2|bmg|mlx|rocm|cuda|vulkan|metal|sycl|nvlink|e-?gpu|i-?gpu|single|stock)\b[^()]*\)"
    r"|(?<=\w) (?:nvlink|sli|e-?gpu)$"
    r"|\s*\(?@?\s*\b\d{2,3}\s?w\b\)?|(?<=\d) fe$|(?<=ti) fe$|(?<=super) fe$",
    re.IGNORECASE,
)


def without_remarks(text: str) -> str:
    """A name without what says nothing about the hardware: drivers and backends in brackets, power limits, "FE"."""
    return _REMARK.sub("", text)


_MODULES = re.compile(r"(?<![\w.])(\d{1,2})\s*[x×]\s*(\d{1,3})\s*(?=gi?b\b)", re.IGNORECASE)


def with_modules_added_up(text: str) -> str:
    """``"8x32GB"`` of RAM -> ``"256GB"``."""
    return _MODULES.sub(lambda match: str(int(match[1]) * int(match[2])), text)


#: Ends of folded names that people shorten: a 4080S is a 4080 SUPER, a 4090M the laptop's.
_ENDINGS = ((re.compile(r"(?:(?<=\d)|(?<=ti))s$"), "super"), (re.compile(r"(?<=\d)m$"), "laptop"))


def lengthened(folded: str) -> tuple[str, ...]:
    """Folded spellings that a shortened one may stand for."""
    return tuple(ending.sub(long, folded) for ending, long in _ENDINGS if ending.search(folded))


_FAMILIES = ("Core", "Ryzen", "Ryzen AI 9", "Xeon Platinum", "Xeon Gold", "Xeon Silver", "Xeon")
_FAMILY_WORD = re.compile(
    r"^(?:amd|intel)?\s*(?:ryzen|core|xeon(?:\s+6)?|epyc|threadripper)\s+(?:pro\s+)?", re.IGNORECASE
)
_SHORT_WORDS = (
    (re.compile(r"^tr\b", re.IGNORECASE), "Threadripper"),
    (re.compile(r"\b(e[357])[ -]?(\d{4}[a-z]{0,2})\s*(v\d)\b", re.IGNORECASE), r"\1-\2 \3"),
)


def processor_spellings(text: str) -> tuple[str, ...]:
    """A processor's name in full, for who leaves a part of it out: "Threadripper 3970X", "Xeon 8480", "HX 370"."""
    for short, long in _SHORT_WORDS:
        text = short.sub(long, text.strip())
    names = dict.fromkeys((text, _FAMILY_WORD.sub("", text)))
    return (text, *(f"{family} {name}" for name in names for family in _FAMILIES))


def model_of(text: str) -> str:
    """The model number alone, in small letters: "Ryzen 7950X" -> "7950x"."""
    return _FAMILY_WORD.sub("", text.strip()).lower()
