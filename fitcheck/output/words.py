"""Numbers and verdicts as words and spans, the same in every view."""

from __future__ import annotations

from fitcheck.output.document import BAD, GOOD, WARN, Line, Span, line
from fitcheck.types import Accelerator, Fit, Machine, PlacementKind, Report, Request, Speed, Task, Verdict
from fitcheck.units import format_bytes, format_speed, format_tokens

_STYLES = {Verdict.FITS: GOOD, Verdict.TIGHT: WARN, Verdict.NO: BAD}


def verdict(value: Verdict) -> Span:
    """The verdict's own word; its colour only repeats it."""
    return Span(value.value, _STYLES[value])


def speed_for(speed: Speed | None, request: Request | None) -> str:
    """``31–44`` tokens/s written, of an embedding model those read; ``~31–44`` where an input is assumed."""
    if speed is None:
        return "unknown"
    reads = request is not None and request.task is Task.EMBEDDING
    rate = speed.prefill_per_s if reads and speed.prefill_per_s else speed.decode_per_s
    mark = "~" if speed.assumed or (reads and speed.rough_prefill) else ""
    return mark + format_speed(rate.low, rate.high)


def where(fit: Fit) -> str:
    """``gpu``, ``2 gpus``, ``90% gpu``, ``cpu``."""
    placement = fit.placement
    if placement.kind is PlacementKind.SPLIT:
        return f"{100 * placement.share_on_gpu:.0f}% gpu"
    cards = sum(use.device.startswith("gpu") for use in placement.devices)
    return f"{cards} gpus" if placement.kind is PlacementKind.GPU and cards > 1 else placement.kind.value


def devices(fit: Fit) -> str:
    """The names of what carries the model; of a model on the GPU, not the processor that only looks up its words."""
    uses = [use for use in fit.placement.devices if use.device != "cpu" or fit.placement.kind is not PlacementKind.GPU]
    return " + ".join(_grouped([short_name(use.name) for use in uses]))


def room_for(fit: Fit) -> str:
    """``13k ctx``: the longest context that still fits."""
    return f"{format_tokens(fit.max_context_tokens)} ctx" if fit.max_context_tokens else "-"


def quality(fit: Fit) -> str:
    """A public index; ``~`` where it is estimated."""
    if fit.quality is None:
        return "-"
    return f"{'~' if fit.quality.estimated else ''}{fit.quality.score:.0f}"


def machine_line(machine: Machine) -> str:
    """``Ryzen 7 7700 · 32 GiB RAM, 26.9 free · RTX 4070 12 GiB, 11.2 free · Linux``."""
    cards = [_card(card) for card in machine.accelerators if card.usable]
    parts = [short_name(machine.cpu.name), _ram(machine), *_grouped(cards)]
    system = {"darwin": "macOS", "linux": "Linux", "windows": "Windows"}.get(machine.os, machine.os)
    return " · ".join(part for part in ([*parts, system] if not machine.pretended else ["pretended", *parts]) if part)


def short_name(name: str) -> str:
    """A product's name without its maker and trade marks: ``RTX 4070``."""
    plain = name.replace("(R)", "").replace("(TM)", "")
    for maker in ("NVIDIA GeForce ", "NVIDIA ", "AMD Radeon ", "AMD "):
        plain = plain.removeprefix(maker)
    return plain


def _ram(machine: Machine) -> str:
    if not machine.ram.total_bytes:
        return "RAM unknown"
    total, usable = _whole(machine.ram.total_bytes), machine.ram.usable_bytes
    free = _gib(usable) if total.endswith("GiB") else format_bytes(usable)
    return f"{total} RAM" + (f", {free} free" if usable < machine.ram.total_bytes else "")


def _card(card: Accelerator) -> str:
    if card.unified:
        return f"{short_name(card.name)} (shares the RAM)"
    usable = card.pool.usable_bytes
    free = f", {_gib(usable)} free" if usable < card.pool.total_bytes else ""
    return f"{short_name(card.name)} {_whole(card.pool.total_bytes)}{free}"


def _grouped(names: list[str]) -> list[str]:
    """Equal cards once: ``2x RTX 3090 24 GiB``."""
    counts = {name: names.count(name) for name in names}
    return [name if count == 1 else f"{count}x {name}" for name, count in counts.items()]


def _whole(count: int) -> str:
    return format_bytes(count).replace(".0 ", " ")


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"


def next_steps(report: Report) -> tuple[Line, ...]:
    """What to do next, one step to a line; the last lines of every answer."""
    return tuple(
        line(("Next: " if number == 0 else "      ") + step, indent=8) for number, step in enumerate(report.next_steps)
    )
