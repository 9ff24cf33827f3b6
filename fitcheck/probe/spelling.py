"""What people call hardware: text cut into parts, and each part the one card or processor that it names.

Never a guess: a name that several cards share is an error that lists them, and a part of a name is no name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

from msgspec import Struct

from fitcheck.errors import FitcheckError
from fitcheck.probe.hardware import (
    CpuRow,
    CpuTable,
    GpuRow,
    Processor,
    find_cpu,
    load_cpus,
    load_gpus,
    processor_of,
    processor_with_gpu,
)
from fitcheck.probe.shorthand import (
    MemorySpeed,
    apple_chip,
    in_brackets,
    lengthened,
    model_of,
    processor_spellings,
    with_modules_added_up,
    without_enumerations,
    without_memory_speed,
    without_remarks,
)
from fitcheck.types import Vendor

_MOST_CARDS = 64


class Part(Struct, frozen=True):
    """One part of the text: as written, without the memory written beside it, and how often it is there. ``ram``: the
    speed of RAM written beside it; ``of_system``: the memory is called RAM."""

    text: str
    name: str
    count: int = 1
    memory_gib: float | None = None
    cpu_only: bool = False
    ram: MemorySpeed = MemorySpeed()
    of_system: bool = False

    @property
    def says_memory(self) -> bool:
        """Whether it tells something about RAM."""
        return bool(self.memory_gib or self.ram.rate_mts or self.ram.channels)


class Named(Struct, frozen=True):
    """What a text names: cards and processors, each with its part of the text, RAM written as a part of its own, and
    how fast RAM is said to be."""

    cards: tuple[tuple[GpuRow, Part], ...]
    processors: tuple[tuple[Processor, Part], ...]
    ram_gib: float | None = None
    ram: MemorySpeed = MemorySpeed()


_COUNT = re.compile(
    r"(?:(\d{1,2})\s*[x×*]|[x×*]\s*(\d{1,2})\s(?!elite|plus))\s*(.*)|(.*(?:\S\s+|\d))[x×*]\s*(\d{1,2})", re.IGNORECASE
)
_SERIES = re.compile(r"(?:nvidia|geforce|rtx|gtx|tesla|quadro|amd|radeon|rx|instinct|intel|arc)\b", re.IGNORECASE)
_COUNT_WORDS = {
    "single": "1",
    "two": "2",
    "dual": "2",
    "three": "3",
    "triple": "3",
    "four": "4",
    "quad": "4",
    "eight": "8",
}
_MEMORY = re.compile(
    r"(?<![\w.-])(?:(\d{1,4}(?:\.\d)?)\s*([gt])i?b|(\d{1,3})\s*(g))(?:\s*(?:of\s+)?(?:unified\s+|system\s+)?"
    r"(?:d?ram|vram|memory|hbm\d?e?)|\s+unified)?(?![\w-])",
    re.IGNORECASE,
)
#: What a bare "G" may follow: other numbers before it are models (5600G, 778G).
_SIZES_GIB = {
    *range(1, 25), 28, 32, 36, 40, 44, 48, 64, 72, 80, 94, 96, 128, 141, 144, 180, 192, 256, 288, 384, 512, 768,
}  # fmt: skip
_SYSTEM_MEMORY = re.compile(r"(?<![a-z])(?:d?ram\b|(?:lp)?ddr\d)", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s+[+/]\s+|\s*[,;&]\s*")
_JOINTS = (re.compile(r"\s+(?:w/|with|and|plus)\s*(?<=[\s/])", re.IGNORECASE), re.compile(r"\+"))
_MAC = r"(?:apple\s+)?(?:macbook(?:\s+(?:pro|air|neo))?|mb[pa]|mac\s+(?:studio|mini|pro)|imac)"
#: What a Mac is called around the name of its chip.
_PRODUCT = re.compile(
    rf"^{_MAC}\s*(?:\d\d\s*(?:\"|-?inch)?)?\s+(?=(?:apple\s+)?m\d)|(?<=\w)\s+{_MAC}$|^apple\s+silicon\s+(?=m\d)"
    r"|(?<=\bm\d)\s+20\d\d$",
    re.IGNORECASE,
)


def _parts(text: str, known: Callable[[str], bool], is_row: Callable[[str], bool]) -> list[Part]:
    """The text cut into parts. One that names a row as the table does is taken whole. Words and the plus that join
    parts also stand inside names (``Max+ 395``, ``with Max-Q Design``): there a piece is cut only if every half means
    something."""

    def cut(piece: str, joints: tuple[re.Pattern[str], ...]) -> list[Part]:
        if not joints:
            return [_part(piece, is_row)]
        halves = [half for half in joints[0].split(piece) if half.strip()]
        parts = [part for half in halves for part in cut(half, joints[1:])]
        meant = all(known(part.name) if part.name else part.says_memory for part in parts)
        return parts if len(halves) > 1 and meant else cut(piece, joints[1:])

    pieces = _SEPARATOR.split(without_enumerations(in_brackets(text)))
    return [part for piece in pieces if piece.strip() for part in cut(piece, _JOINTS)]


def _part(text: str, is_row: Callable[[str], bool]) -> Part:
    text = text.strip()
    cpu_only = text.lower().endswith("(cpu)")
    text = text[:-5].strip() if cpu_only else text
    count = 1
    first, _, rest = text.partition(" ")
    if rest and first.lower() in _COUNT_WORDS:
        text = f"{_COUNT_WORDS[first.lower()]}x {rest}"
    elif first.isdecimal() and _SERIES.match(rest):
        text = f"{first}x {rest}"
    match = None if is_row(text) else _COUNT.fullmatch(text)
    if match is not None:
        count, text = int(match[1] or match[2] or match[5]), (match[3] or match[4] or "").strip()
        if not 1 <= count <= _MOST_CARDS:
            raise FitcheckError("unknown_hardware", f"cannot pretend {count} cards", f"at most {_MOST_CARDS}")
    whole = text
    text, ram = without_memory_speed(without_remarks(text))
    if _SYSTEM_MEMORY.search(whole):
        text = with_modules_added_up(text)
    memory, memory_gib = _MEMORY.search(text), None
    if memory is not None and (memory[3] is None or int(memory[3]) in _SIZES_GIB):
        memory_gib = float(memory[1] or memory[3]) * (1024 if (memory[2] or "").lower() == "t" else 1)
        text = f"{text[: memory.start()]} {text[memory.end() :]}"
    whole, text = (_PRODUCT.sub("", " ".join(name.split())) for name in (whole, text))
    of_system = memory_gib is not None and _SYSTEM_MEMORY.search(whole) is not None
    return Part(whole, text, count, memory_gib, cpu_only, ram, of_system)


_WORD = re.compile(r"sxm\d?|hbm\d?e?|[a-z]+|\d+|\+")
_DROPPED_WORDS = {
    "r", "tm", "nvidia", "amd", "ati", "intel", "apple", "geforce", "radeon", "instinct", "tesla", "gpu", "graphics",
    "generation", "card", "founders", "edition", "series", "core",
}  # fmt: skip
_MAKERS = {
    "nvidia": Vendor.NVIDIA, "geforce": Vendor.NVIDIA, "tesla": Vendor.NVIDIA, "amd": Vendor.AMD, "ati": Vendor.AMD,
    "radeon": Vendor.AMD, "instinct": Vendor.AMD, "ryzen": Vendor.AMD, "epyc": Vendor.AMD, "intel": Vendor.INTEL,
    "core": Vendor.INTEL, "xeon": Vendor.INTEL, "apple": Vendor.APPLE,
}  # fmt: skip
_SAME_WORDS = {"mobile": "laptop", "notebook": "laptop", "g": "gb", "gib": "gb"}
_WEAK = re.compile(r"^(?:(?:rtx|gtx|gt|rx|arc|quadro)(?=[a-z]?\d)|rx(?=vega)|(?:arc)?pro(?=[a-z]{1,2}\d)|aipro(?=\d))")


def _fold(text: str) -> str:
    """A spelling reduced to what tells cards apart: ``NVIDIA GeForce RTX 4090 Mobile`` -> ``rtx4090laptop``."""
    words = [
        "sxm" if word.startswith("sxm") else _SAME_WORDS.get(word, word)
        for word in _WORD.findall(text.lower())
        if word not in _DROPPED_WORDS and not word.startswith("hbm")
    ]
    return "".join(sorted(words, key="laptop".__eq__))  # "laptop RTX 4060" is said as well


def _spellings(row: GpuRow) -> tuple[str, ...]:
    """The names that mean this row; a driver's name that a rarer variant shares is not one of them."""
    names = [row.name, *row.aliases]
    if not row.rare:
        laptop = row.form == "laptop" and "Laptop" in row.name
        names += [name if not laptop or "Laptop" in name else f"{name} Laptop" for name in row.driver_names]
    return tuple(names)


def _processor(text: str, cpus: CpuTable) -> Processor | None:
    """The processor that a spelling means: a brand string, one without a part of it ("i9-14900K", "Xeon 8480"), or a
    model number that one platform only has ("7950X")."""
    whole = find_cpu(text, cpus)
    if whole is not None and (whole.row.cores or whole.row.aliases or whole.row.gpus):
        return whole
    for spelling in processor_spellings(text):
        found = find_cpu(spelling, cpus)
        if found is not None and found.known and found.row.cores:
            return found
    platforms = _platforms_with(text, cpus)
    return processor_of(platforms[0], model_of(text), text) if len(platforms) == 1 else whole


def _platforms_with(text: str, cpus: CpuTable) -> list[CpuRow]:
    """The platforms that have a model of this number, of the maker whose family is named."""
    model, makers = model_of(text), {_MAKERS[word] for word in _WORD.findall(text.lower()) if word in _MAKERS}
    return [row for row in cpus.platforms if model in row.cores and (not makers or row.vendor in makers)]


class _GpuNames:
    """Every spelling of every row, folded when first needed."""

    def __init__(self, rows: tuple[GpuRow, ...]) -> None:
        self.rows = rows
        self.full = {name.lower(): row for row in rows for name in (row.name, f"{row.vendor.value} {row.name}")}

    @cached_property
    def folded(self) -> dict[str, list[GpuRow]]:
        """Rows by folded spelling."""
        folded: dict[str, list[GpuRow]] = {}
        for row in self.rows:
            for spelling in {_fold(name) for name in _spellings(row)}:
                folded.setdefault(spelling, []).append(row)
        return folded

    @cached_property
    def short(self) -> dict[str, list[GpuRow]]:
        """Rows by folded spelling without the letters of their series: "4090"."""
        short: dict[str, dict[str, GpuRow]] = {}
        for spelling, rows in self.folded.items():
            short.setdefault(_WEAK.sub("", spelling), {}).update({row.name: row for row in rows})
        return {spelling: list(rows.values()) for spelling, rows in short.items()}

    def is_row(self, text: str) -> bool:
        """Whether a text is the full name of a row."""
        return " ".join(text.lower().split()) in self.full

    def find(self, text: str) -> list[GpuRow]:
        """Rows that a text may mean: by full name, by what tells cards apart, then without the series' letters."""
        whole = self.full.get(" ".join(text.lower().split()))
        if whole is not None:
            return [whole]
        wanted = _fold(text)
        spellings = (wanted, *lengthened(wanted), f"{wanted}laptop")  # what is sold in laptops alone may not say so
        found = next(filter(None, map(self._spelled, spellings)), [])
        makers = {_MAKERS[word] for word in _WORD.findall(text.lower()) if word in _MAKERS}
        return [row for row in found if not makers or row.vendor in makers]

    def _spelled(self, folded: str) -> list[GpuRow]:
        found = self.folded.get(folded, []) if folded else []
        if not found and re.search(r"\d{3}|[a-z]\d", folded):
            found = self.short.get(folded, [])
        return found


class Tables:
    """The tables of GPUs and processors, read and folded once."""

    def __init__(self) -> None:
        self.gpus, self.cpus = _GpuNames(load_gpus()), load_cpus()


def _gpu(part: Part, tables: Tables) -> GpuRow | None:
    """The one row that a part means, None if it names no GPU."""
    names = tables.gpus
    candidates = names.find(part.text)
    if not candidates:
        by_cores = _apple(part.name, tables)
        candidates = by_cores or names.find(part.name)
        if candidates and part.memory_gib is not None:
            others = () if by_cores else (row for row in names.rows if row not in candidates)
            family = [*candidates, *(row for row in others if _is_variant(row, candidates))]
            candidates = [
                row for row in family if has_size(row, part.memory_gib) or (part.of_system and not row.unified)
            ]
            if not candidates:
                raise _no_such_size(part, family)
    candidates = [row for row in candidates if not row.rare] or candidates
    if len(candidates) > 1:
        raise _ambiguous(part.text, candidates)
    return candidates[0] if candidates else None


def _apple(text: str, tables: Tables) -> list[GpuRow]:
    """The chips that a name with core counts means: by the GPU's, else by the processor's, which tell less."""
    told = apple_chip(text)
    if told is None:
        return []
    chip, processor_cores, gpu_cores = told
    rows = [row for row in tables.gpus.rows if row.name == chip or chip in row.driver_names]
    by_gpu = [row for row in rows if gpu_cores is not None and row.cores == gpu_cores]
    if by_gpu:
        return by_gpu
    count = processor_cores or gpu_cores
    processors = ((row, processor_with_gpu(row, tables.cpus)) for row in rows)
    return [row for row, processor in processors if processor is not None and processor.physical_cores == count]


def _is_variant(row: GpuRow, others: list[GpuRow]) -> bool:
    """Whether a driver prints the same name for this row and one of the others."""
    names = row.driver_names or (row.name,)
    return any(name in (other.driver_names or (other.name,)) for other in others for name in names)


def has_size(row: GpuRow, memory_gib: float) -> bool:
    """Whether a card, or a chip with unified memory, is sold with this much."""
    if row.memory_gib is None:
        return not row.memory_options_gib or memory_gib in row.memory_options_gib
    return abs(row.memory_gib - memory_gib) < 0.51


def _no_such_size(part: Part, family: list[GpuRow]) -> FitcheckError:
    sizes = ", ".join(dict.fromkeys(_sizes(row).removesuffix(", ") for row in family))
    hint = f'add RAM as a part of its own ("{part.name} + {part.memory_gib:g}GB"), or give --vram'
    return FitcheckError("unknown_hardware", f"{part.name!r} is sold with {sizes}, not {part.memory_gib:g} GB", hint)


def _ambiguous(text: str, candidates: list[GpuRow]) -> FitcheckError:
    lines = [f"{row.name} ({_sizes(row)}{row.bandwidth_gbs:.0f} GB/s)" for row in candidates[:12]]
    sizes = {row.memory_gib for row in candidates}
    by_size = len(sizes) == len(candidates) and None not in sizes
    names = [f"{text} {row.memory_gib:g}GB" if by_size else row.name for row in candidates[:3]]
    written = " or ".join(f'"{name}"' for name in names)
    message = f"{text!r} may be {len(candidates)} things: {'; '.join(lines)}"
    return FitcheckError("ambiguous_hardware", message, f"write {written}")


def _sizes(row: GpuRow) -> str:
    sizes = row.memory_options_gib if row.memory_gib is None else (row.memory_gib,)
    return f"{'/'.join(f'{size:g}' for size in sizes)} GB, " if sizes else ""


def _unknown(text: str, tables: Tables) -> FitcheckError:
    from difflib import get_close_matches

    names = tables.gpus
    platforms = [row.name for row in _platforms_with(text, tables.cpus)]
    if len(platforms) > 1:
        message = f"{text!r} may be {len(platforms)} things: {'; '.join(platforms)}"
        return FitcheckError("ambiguous_hardware", message, "write the full name")
    near = get_close_matches(_fold(text), names.folded, n=3, cutoff=0.75)
    likely = dict.fromkeys(names.folded[spelling][0].name for spelling in near)
    hint = f"did you mean {', '.join(likely)}?" if likely else 'write it like "RTX 4090" or "EPYC 9654"'
    return FitcheckError("unknown_hardware", f"no GPU or processor is called {text!r}", hint)


def read_names(text: str, tables: Tables) -> Named:
    """The cards and processors that a text names. Raises FitcheckError: ``unknown_hardware``, ``ambiguous_hardware``
    (its message lists the candidates)."""
    gpus, cpus = tables.gpus, tables.cpus
    cards: list[tuple[GpuRow, Part]] = []
    processors: list[tuple[Processor, Part]] = []
    ram_gib: float | None = None
    ram = MemorySpeed()
    parts = _parts(text, lambda name: bool(gpus.find(name)) or _processor(name, cpus) is not None, gpus.is_row)
    for part in parts:
        ram = MemorySpeed(part.ram.rate_mts or ram.rate_mts, part.ram.channels or ram.channels)
        if not part.name:
            ram_gib = part.memory_gib * part.count if part.memory_gib else ram_gib
            continue
        processor = _processor(part.name, cpus) if part.cpu_only else None
        row = None if processor else _gpu(part, tables)
        processor = processor or (None if row else _processor(part.name, cpus))
        if row is not None:
            if not row.unified or all(row is not other for other, _ in cards):  # a chip named twice is one chip
                cards.append((row, part))
            if part.of_system and not row.unified and row.memory_gib and not has_size(row, part.memory_gib or 0.0):
                ram_gib = part.memory_gib
        elif processor is not None:
            processors.append((processor, part))
        else:
            raise _unknown(part.name, tables)
    if not cards and not processors:
        raise FitcheckError("unknown_hardware", "no hardware is named", 'write it like --on "RTX 4090"')
    return Named(tuple(cards), tuple(processors), ram_gib, ram)
