"""``--on``: a machine from the names of its parts, without looking at the real one.

``"RTX 4090"``, ``"2x RTX 3090"``, ``"RTX 4090 laptop"``, ``"M4 Max 128GB"``, ``"Ryzen 7 7700 + RTX 4070"``,
``"Raspberry Pi 5 8GB"``, ``"cpu"``. What the text leaves open is assumed, and every assumption is an ``Evidence`` whose
source says so. A name that several parts share is an error that lists them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

from msgspec import Struct, structs

from fitcheck.errors import FitcheckError
from fitcheck.probe.hardware import (
    GIB,
    MIB,
    CpuTable,
    GpuRow,
    Processor,
    find_cpu,
    load_cpus,
    load_gpus,
    processor_of,
    processor_with_gpu,
)
from fitcheck.probe.macs import NEWEST_MACOS, working_set_bytes
from fitcheck.probe.memory_speed import for_one_process, platform_bandwidth
from fitcheck.types import (
    Accelerator,
    Cpu,
    Evidence,
    Machine,
    Origin,
    Pool,
    Rate,
    Vendor,
)

_LONGEST_TEXT = 300
_MOST_CARDS = 64
_ASSUMED = "assumed"

#: What a pretended card or board sits in where the text does not say: the commonest processor of its kind.
_HOSTS = {
    "desktop": "Ryzen 7 7700",
    "laptop": "Core i7-13700H",
    "workstation": "Xeon w5-3435X",
    "datacenter": "EPYC 9354",
}
#: Installed RAM per memory channel, GiB, where neither the text nor the platform says.
_CHANNEL_GIB = {"desktop": 16, "laptop": 8, "mini": 16, "workstation": 16, "server": 32}

#: Share of the installed memory that the system sees; firmware and graphics keep the rest.
_VISIBLE_SHARE = {"sbc": 0.985, "soc": 1.0, "embedded": 0.96}
_PC_SHARE = 0.975
_GB10_SHARE = 0.935  # 119.7 of 128 GiB
_CHIP_GPU_SHARE = 0.75  # carve-out and GTT of an APU set for models; drivers' defaults are one half


class _Part(Struct, frozen=True):
    """One part of the text: as written, without the memory written beside it, and how often it is there."""

    text: str
    name: str
    count: int = 1
    memory_gib: float | None = None
    cpu_only: bool = False


def pretend(
    text: str,
    ram_bytes: int | None = None,
    vram_bytes: int | None = None,
    bandwidth_per_s: float | None = None,
    tables: Tables | None = None,
) -> Machine:
    """The machine that ``text`` names. ``ram_bytes`` and ``vram_bytes`` (of each card) replace what is named or
    assumed, ``bandwidth_per_s`` that of the cards, or of the RAM where there is no card. ``tables`` are for who
    pretends many machines.

    Raises FitcheckError: ``unknown_hardware``, ``ambiguous_hardware`` (its hint lists the candidates).
    """
    if not text.strip() or len(text) > _LONGEST_TEXT or not text.isprintable():
        raise FitcheckError("unknown_hardware", "no hardware is named", 'write it like --on "RTX 4090"')
    if text.strip().lower() == "cpu":
        text = _HOSTS["desktop"]
    tables = tables or Tables()
    gpus, cpus = tables.gpus, tables.cpus
    cards: list[tuple[GpuRow, _Part]] = []
    processors: list[tuple[Processor, _Part]] = []
    ram_gib: float | None = None
    for part in _parts(text, lambda name: bool(gpus.find(name)) or _processor(name, cpus) is not None):
        if not part.name:
            ram_gib = part.memory_gib
            continue
        processor = _processor(part.name, cpus)
        row = None if part.cpu_only and processor else _gpu(part, gpus)
        if row is not None:
            cards.append((row, part))
        elif processor is not None:
            processors.append((processor, part))
        else:
            raise _unknown(part.name, gpus)
    if not cards and not processors:
        raise FitcheckError("unknown_hardware", "no hardware is named", 'write it like --on "RTX 4090"')
    return _machine(text, cards, processors, ram_gib, cpus, ram_bytes, vram_bytes, bandwidth_per_s)


# --------------------------------------------------------------------------------------------------------------------
# What people type

_COUNT = re.compile(r"(?:(\d{1,2})\s*[x×*]|[x×*]\s*(\d{1,2})\s)\s*(.*)|(.*\S)\s+[x×*]\s*(\d{1,2})", re.IGNORECASE)
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
    r"(?:d?ram|vram|memory|lpddr\dx?|ddr\d|hbm\d?e?)(?:-\d+)?)?(?![\w-])",
    re.IGNORECASE,
)
#: What a bare "G" may follow: other numbers before it are models (5600G, 778G).
_SIZES_GIB = {
    *range(1, 25),
    28,
    32,
    36,
    40,
    44,
    48,
    64,
    72,
    80,
    94,
    96,
    128,
    141,
    144,
    180,
    192,
    256,
    288,
    384,
    512,
    768,
}
_SEPARATOR = re.compile(r"\s+\+\s+|\s*[,;&]\s*")
_WORD_OR_PLUS = re.compile(r"\+|\s+(?:with|and|plus)\s+", re.IGNORECASE)
_PRODUCT = re.compile(
    r"^(?:apple\s+)?(?:macbook(?:\s+(?:pro|air|neo))?|mac\s+(?:studio|mini|pro)|imac)\s*(?:\d\d\s*(?:\"|-?inch))?\s+"
    r"(?=(?:apple\s+)?m\d)",
    re.IGNORECASE,
)


def _parts(text: str, known: Callable[[str], bool]) -> list[_Part]:
    """The text cut into parts. Where a part holds a plus or a word that also stands inside names (``Max+ 395``,
    ``with Max-Q Design``), it is cut only if every half means something."""
    parts: list[_Part] = []
    for piece in _SEPARATOR.split(text):
        halves = [_part(half) for half in _WORD_OR_PLUS.split(piece) if half.strip()]
        if len(halves) < 2 or not all(known(half.name) if half.name else half.memory_gib for half in halves):
            halves = [_part(piece)] if piece.strip() else []
        parts += halves
    return parts


def _part(text: str) -> _Part:
    text = text.strip()
    cpu_only = text.lower().endswith("(cpu)")
    text = text[:-5].strip() if cpu_only else text
    count = 1
    first, _, rest = text.partition(" ")
    if rest and first.lower() in _COUNT_WORDS:
        text = f"{_COUNT_WORDS[first.lower()]}x {rest}"
    match = _COUNT.fullmatch(text)
    if match is not None:
        count, text = int(match[1] or match[2] or match[5]), (match[3] or match[4] or "").strip()
        if not 1 <= count <= _MOST_CARDS:
            raise FitcheckError("unknown_hardware", f"cannot pretend {count} cards", f"at most {_MOST_CARDS}")
    whole, memory = text, _MEMORY.search(text)
    memory_gib = None
    if memory is not None and (memory[3] is None or int(memory[3]) in _SIZES_GIB):
        memory_gib = float(memory[1] or memory[3]) * (1024 if (memory[2] or "").lower() == "t" else 1)
        text = f"{text[: memory.start()]} {text[memory.end() :]}"
    return _Part(
        _PRODUCT.sub("", " ".join(whole.split())), _PRODUCT.sub("", " ".join(text.split())), count, memory_gib, cpu_only
    )


_WORD = re.compile(r"sxm\d?|hbm\d?e?|[a-z]+|\d+|\+")
_DROPPED_WORDS = {
    "r", "tm", "nvidia", "amd", "ati", "intel", "apple", "geforce", "radeon", "instinct", "tesla", "gpu", "graphics",
    "generation", "card", "founders", "edition", "series", "core",
}  # fmt: skip
_MAKERS = {
    "nvidia": Vendor.NVIDIA, "geforce": Vendor.NVIDIA, "tesla": Vendor.NVIDIA, "amd": Vendor.AMD, "ati": Vendor.AMD,
    "radeon": Vendor.AMD, "instinct": Vendor.AMD, "intel": Vendor.INTEL, "apple": Vendor.APPLE,
}  # fmt: skip
_SAME_WORDS = {"mobile": "laptop", "notebook": "laptop", "g": "gb", "gib": "gb"}
_WEAK = re.compile(r"^(?:rtx|gtx|gt|rx|arc|quadro)(?=[a-z]?\d)")


def _fold(text: str) -> str:
    """A spelling reduced to what tells cards apart: ``NVIDIA GeForce RTX 4090 Mobile`` -> ``rtx4090laptop``."""
    words = _WORD.findall(text.lower())
    return "".join(
        "sxm" if word.startswith("sxm") else _SAME_WORDS.get(word, word)
        for word in words
        if word not in _DROPPED_WORDS and not word.startswith("hbm")
    )


def _spellings(row: GpuRow) -> tuple[str, ...]:
    """The names that mean this row; a driver's name that a rarer variant shares is not one of them."""
    names = [row.name, *row.aliases]
    if not row.rare:
        laptop = row.form == "laptop" and "Laptop" in row.name
        names += [name if not laptop or "Laptop" in name else f"{name} Laptop" for name in row.driver_names]
    return tuple(names)


def _processor(text: str, cpus: CpuTable) -> Processor | None:
    """The processor that a spelling means: a brand string, one without its family ("i9-14900K"), or a model number
    that one platform only has ("7950X")."""
    found = find_cpu(text, cpus) or find_cpu(f"Core {text}", cpus)
    if found is not None and (found.row.cores or found.row.aliases or found.row.gpus):
        return found
    model = text.strip().lower()
    platforms = [row for row in cpus.platforms if model in row.cores]
    return processor_of(platforms[0], model, text) if len(platforms) == 1 else found


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

    def find(self, text: str) -> list[GpuRow]:
        """Rows that a text may mean: by full name, by what tells cards apart, then without the series' letters."""
        whole = self.full.get(" ".join(text.lower().split()))
        if whole is not None:
            return [whole]
        wanted = _fold(text)
        found = self.folded.get(wanted, []) if wanted else []
        if not found and re.search(r"\d{3}|[a-z]\d", wanted):
            found = self.short.get(wanted, [])
        makers = {_MAKERS[word] for word in _WORD.findall(text.lower()) if word in _MAKERS}
        return [row for row in found if not makers or row.vendor in makers]


class Tables:
    """The tables of GPUs and processors, read and folded once."""

    def __init__(self) -> None:
        self.gpus, self.cpus = _GpuNames(load_gpus()), load_cpus()


def _gpu(part: _Part, names: _GpuNames) -> GpuRow | None:
    """The one row that a part means, None if it names no GPU."""
    candidates = names.find(part.text)
    if not candidates and part.memory_gib is not None:
        candidates = names.find(part.name)
        variants = [row for row in names.rows if row not in candidates and _is_variant(row, candidates)]
        fitting = [row for row in (*candidates, *variants) if _has_size(row, part.memory_gib)]
        if candidates and not fitting:
            raise _no_such_size(part, [*candidates, *variants])
        candidates = fitting
    candidates = [row for row in candidates if not row.rare] or candidates
    if len(candidates) > 1:
        raise _ambiguous(part.text, candidates)
    return candidates[0] if candidates else None


def _is_variant(row: GpuRow, others: list[GpuRow]) -> bool:
    """Whether a driver prints the same name for this row and one of the others."""
    names = row.driver_names or (row.name,)
    return any(name in (other.driver_names or (other.name,)) for other in others for name in names)


def _has_size(row: GpuRow, memory_gib: float) -> bool:
    if row.memory_gib is None:
        return not row.memory_options_gib or memory_gib in row.memory_options_gib
    return abs(row.memory_gib - memory_gib) < 0.51


def _no_such_size(part: _Part, family: list[GpuRow]) -> FitcheckError:
    sizes = ", ".join(dict.fromkeys(_sizes(row).removesuffix(", ") for row in family))
    hint = f'add RAM as a part of its own ("{part.name} + {part.memory_gib:g}GB"), or give --vram'
    return FitcheckError("unknown_hardware", f"{part.name!r} is sold with {sizes}, not {part.memory_gib:g} GB", hint)


def _ambiguous(text: str, candidates: list[GpuRow]) -> FitcheckError:
    lines = [f"{row.name} ({_sizes(row)}{row.bandwidth_gbs:.0f} GB/s)" for row in candidates[:12]]
    return FitcheckError(
        "ambiguous_hardware", f"{text!r} may be {len(candidates)} things: {'; '.join(lines)}", "write the full name"
    )


def _sizes(row: GpuRow) -> str:
    sizes = row.memory_options_gib if row.memory_gib is None else (row.memory_gib,)
    return f"{'/'.join(f'{size:g}' for size in sizes)} GB, " if sizes else ""


def _unknown(text: str, names: _GpuNames) -> FitcheckError:
    from difflib import get_close_matches

    near = get_close_matches(_fold(text), names.folded, n=3, cutoff=0.75)
    likely = dict.fromkeys(names.folded[spelling][0].name for spelling in near)
    hint = f"did you mean {', '.join(likely)}?" if likely else 'write it like "RTX 4090" or "EPYC 9654"'
    return FitcheckError("unknown_hardware", f"no GPU or processor is called {text!r}", hint)


# --------------------------------------------------------------------------------------------------------------------
# From parts to a machine


def _machine(
    text: str,
    cards: list[tuple[GpuRow, _Part]],
    processors: list[tuple[Processor, _Part]],
    ram_gib: float | None,
    cpus: CpuTable,
    ram_bytes: int | None,
    vram_bytes: int | None,
    bandwidth_per_s: float | None,
) -> Machine:
    evidence = [Evidence("machine", text.strip(), "--on")]
    chip = next((row for row, _ in cards if row.unified), None)
    if processors:
        processor, sockets = processors[0][0], processors[0][1].count
    else:
        processor, sockets = _host_of(cards, cpus), 1
        if chip is None:
            evidence.append(Evidence("cpu", processor.name, _ASSUMED))
    named_gib = ram_gib or next((part.memory_gib for _, part in processors if part.memory_gib), None)
    if chip is not None:
        named_gib = next((part.memory_gib for row, part in cards if row.unified and part.memory_gib), named_gib)
    installed, source = (ram_bytes, "--ram") if ram_bytes else _installed(named_gib, processor, sockets, cards)
    if source == _ASSUMED:
        evidence.append(Evidence("ram.installed", f"{installed / GIB:.0f} GiB", _ASSUMED))
    ram = _ram(installed, processor, sockets, chip, exact=bool(ram_bytes))
    if bandwidth_per_s and not cards:
        ram = structs.replace(ram, bandwidth=Rate(bandwidth_per_s, Origin.USER, "--bandwidth"))
    accelerators: list[Accelerator] = []
    for row, part in cards:
        for _ in range(part.count):
            card = _accelerator(len(accelerators), row, part, ram, installed, vram_bytes)
            if bandwidth_per_s:
                pool = structs.replace(card.pool, bandwidth=Rate(bandwidth_per_s, Origin.USER, "--bandwidth"))
                card = structs.replace(card, pool=pool)
            accelerators.append(card)
    apple = processor.row.vendor is Vendor.APPLE
    return Machine(
        os="darwin" if apple else "linux",
        arch=processor.row.arch,
        cpu=_cpu(processor, sockets),
        ram=ram,
        accelerators=tuple(accelerators),
        os_version=f"macOS {NEWEST_MACOS}" if apple else None,
        pretended=True,
        evidence=tuple(evidence),
    )


def _host_of(cards: list[tuple[GpuRow, _Part]], cpus: CpuTable) -> Processor:
    """The processor that a chip's GPU shares the chip with, or the commonest one beside cards of this kind."""
    for row, _ in cards:
        own = processor_with_gpu(row, cpus) if row.unified else None
        if own is not None:
            return own
    forms = {row.form for row, _ in cards}
    form = next((form for form in ("datacenter", "workstation", "laptop") if form in forms), "desktop")
    host = find_cpu(_HOSTS[form], cpus)
    assert host is not None
    return host


def _installed(
    named_gib: float | None, processor: Processor, sockets: int, cards: list[tuple[GpuRow, _Part]]
) -> tuple[int, str]:
    """Installed RAM in bytes, and who says so. Beside cards at least as much as they have."""
    if named_gib:
        return int(named_gib * GIB), "--on"
    chip = next((row for row, _ in cards if row.unified), None)
    if chip is not None and chip.memory_options_gib:
        sizes = chip.memory_options_gib
        return int(sizes[len(sizes) // 2] * GIB), "--on" if len(sizes) == 1 else _ASSUMED
    platform = processor.row
    size = platform.ram_gib or _CHANNEL_GIB.get(platform.kind, 8) * platform.channels * sockets
    on_cards = sum((row.memory_gib or 0) * part.count for row, part in cards)
    while size < on_cards:
        size *= 2
    return int(size * GIB), _ASSUMED


def _ram(installed: int, processor: Processor, sockets: int, chip: GpuRow | None, exact: bool) -> Pool:
    """The RAM as the system would report it: firmware keeps a part, a running system uses some."""
    total = installed if exact else int(installed * _visible_share(processor, chip))
    free = total - max(GIB // 2, min(4 * GIB, total // 16))
    if chip is not None:
        bandwidth = Rate(chip.bandwidth_per_s, Origin.CATALOG, f"gpus.json: {chip.name}")
    else:
        bandwidth = for_one_process(platform_bandwidth(processor.row, sockets), _cpu(processor, sockets))
    return Pool(total, max(0, free), max(0, free), bandwidth)


def _visible_share(processor: Processor, chip: GpuRow | None) -> float:
    if chip is not None and chip.name == "NVIDIA GB10":
        return _GB10_SHARE
    return _VISIBLE_SHARE.get(processor.row.kind, _PC_SHARE)


def _cpu(processor: Processor, sockets: int) -> Cpu:
    row = processor.row
    physical = processor.physical_cores * sockets
    performance = processor.performance_cores * sockets if processor.efficiency_cores else None
    return Cpu(
        name=processor.name,
        physical_cores=physical,
        logical_cpus=processor.logical_cpus * sockets,
        performance_cores=performance,
        sockets=sockets,
        numa_nodes=sockets,
        features=row.features,
        threads=performance or physical,
    )


def _accelerator(
    index: int, row: GpuRow, part: _Part, ram: Pool, installed: int, vram_bytes: int | None
) -> Accelerator:
    pool = _shared_pool(row, ram, installed, vram_bytes) if row.unified else _own_pool(row, part, vram_bytes)
    return Accelerator(
        index=index,
        name=row.name,
        vendor=row.vendor,
        pool=pool,
        unified=row.unified,
        backends=row.backends,
        architecture=row.architecture,
        form=row.form,
        compute=row.compute,
        compute_capability=row.compute_capability,
        gfx_target=row.gfx_target,
        cores=row.cores,
        link=row.link,
        catalog_name=row.name,
    )


def _own_pool(row: GpuRow, part: _Part, vram_bytes: int | None) -> Pool:
    """A card's own memory as the driver reports it, of which the driver keeps a part."""
    total = vram_bytes or row.memory_bytes or int((part.memory_gib or 0) * GIB)
    if vram_bytes is None and part.memory_gib and row.memory_gib and not _has_size(row, part.memory_gib):
        total = int(part.memory_gib * GIB)
    free = max(0, total - driver_reserve_bytes(total))
    return Pool(total, free, free, Rate(row.bandwidth_per_s, Origin.CATALOG, f"gpus.json: {row.name}"))


def driver_reserve_bytes(total_bytes: int) -> int:
    """What a driver keeps of a card's memory before any program runs: seen 300 to 620 MiB on Linux since Turing."""
    return min(max(total_bytes // 50, 400 * MIB), 640 * MIB)


def _shared_pool(row: GpuRow, ram: Pool, installed: int, vram_bytes: int | None) -> Pool:
    """The part of the RAM that a chip's GPU may use: all of it under CUDA, a limit under Metal, and on other chips
    what firmware and driver set aside."""
    if vram_bytes is not None:
        usable = min(vram_bytes, ram.usable_bytes)
    elif row.vendor is Vendor.APPLE:
        usable = min(working_set_bytes(installed, NEWEST_MACOS), ram.usable_bytes)
    elif row.vendor is Vendor.NVIDIA:
        usable = ram.usable_bytes
    else:
        usable = min(int(installed * _CHIP_GPU_SHARE), ram.usable_bytes)
    return Pool(ram.total_bytes, ram.free_bytes, usable, ram.bandwidth)
