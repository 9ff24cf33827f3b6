"""Which hardware would run a model: the smallest of each kind, and what this machine lacks in its own terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.advise.choose import Chooser
from fitcheck.advise.command import COMMON_QUANT, common_quant
from fitcheck.estimate.fit import Estimator
from fitcheck.types import Fit, Hardware, Machine, Model, Request
from fitcheck.units import GIB, format_bytes

_RAM_STEPS_GIB = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_MOST_CARDS = 8


class Candidate(Struct, frozen=True):
    """A machine that could be bought: its kind, what to call it (as ``--on`` takes it), and its memory."""

    kind: str
    what: str
    memory_bytes: int
    bandwidth_per_s: float


def planned(model: Model, request: Request, estimator: Estimator) -> Request:
    """The request with its quantisation settled: the one asked for, else the common one where the model has it."""
    if request.quant:
        return request
    return replace(request, quant=common_quant(estimator.quants(model, request)))


def smallest(
    model: Model,
    candidates: Iterable[Candidate],
    request: Request,
    estimator: Estimator,
    pretended: Callable[[str], Machine | None],
) -> Hardware | None:
    """The candidate with the least memory, then the least bandwidth, on which the model passes. ``request`` is
    ``planned``; ``pretended`` gives the machine of a name, None for one that means several things. Pure."""
    weights = estimator.weights(model, request.quant or COMMON_QUANT).total
    large_enough = (candidate for candidate in candidates if candidate.memory_bytes >= weights)
    for candidate in sorted(large_enough, key=lambda c: (c.memory_bytes, c.bandwidth_per_s, c.what)):
        machine = pretended(candidate.what)
        fit = passing(model, machine, request, estimator) if machine else None
        if fit is not None:
            return Hardware(candidate.kind, candidate.what, fit)
    return None


def passing(model: Model, machine: Machine, request: Request, estimator: Estimator) -> Fit | None:
    """The fit of the model on a machine, None where it does not meet the request."""
    chooser = Chooser(machine, request, estimator)
    choice = chooser.choose(model)
    return chooser.estimate(choice, most_context=False) if choice.passes else None


def lacking(model: Model, machine: Machine, request: Request, estimator: Estimator) -> Iterator[Hardware]:
    """What would have to be added to this machine: the least RAM that does it, the fewest cards of its own kind."""
    for changed, what in _upgrades(machine):
        for option, text in zip(changed, what, strict=True):
            fit = passing(model, option, request, estimator)
            if fit is not None:
                yield Hardware("this_machine", text, fit)
                break


def _upgrades(machine: Machine) -> Iterator[tuple[Sequence[Machine], Sequence[str]]]:
    own = machine.ram.total_bytes
    if not any(card.unified and card.usable for card in machine.accelerators):
        more = [step * GIB for step in _RAM_STEPS_GIB if step * GIB > own]
        yield [_with_ram(machine, size) for size in more], [f"{format_bytes(size)} RAM instead" for size in more]
    cards = [card for card in machine.accelerators if card.usable and not card.unified]
    if cards:
        counts = range(1, _MOST_CARDS - len(cards) + 1)
        name = cards[-1].name
        yield [_with_cards(machine, n) for n in counts], [f"{n} more {name}" for n in counts]


def _with_ram(machine: Machine, total_bytes: int) -> Machine:
    """The machine with more RAM of the same speed; what is in use today stays in use."""
    ram = machine.ram
    added = total_bytes - ram.total_bytes
    free = None if ram.free_bytes is None else ram.free_bytes + added
    more = replace(ram, total_bytes=total_bytes, free_bytes=free, usable_bytes=ram.usable_bytes + added)
    return replace(machine, ram=more, pretended=True)


def _with_cards(machine: Machine, count: int) -> Machine:
    """The machine with ``count`` more of its last card, all of their memory free."""
    last = machine.accelerators[-1]
    first_index = 1 + max(card.index for card in machine.accelerators)
    pool = replace(last.pool, free_bytes=last.pool.total_bytes)
    added = tuple(replace(last, index=first_index + n, pool=pool, uuid=None) for n in range(count))
    return replace(machine, accelerators=machine.accelerators + added, pretended=True)
