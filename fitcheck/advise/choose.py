"""Which quantisation of a model to run: the one rule that scan, check, explain and plan share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.advise.command import command, common_quant
from fitcheck.advise.suit import COMFORT_PER_S, floor_per_s, reads_in_time
from fitcheck.errors import FitcheckError
from fitcheck.estimate.fit import Estimator
from fitcheck.estimate.reach import is_too_large, is_too_slow
from fitcheck.types import Fit, Machine, Model, PlacementKind, Request, Task, Verdict

#: A smaller one costs a fifth of the answers' quality: it is taken only when somebody asks for it.
LEAST_QUANT = "Q3_K_M"
#: How much more memory than there is a model may need to be worth a second look with less context.
WITHIN_REACH = 1.3
#: Below this many parameters three bits cost too much as well.
SMALL_PARAMS = 7_000_000_000


class Choice(Struct, frozen=True):
    """A quantisation of a model. ``fits``: memory and placement are as asked; ``passes``: fast enough as well.
    ``low_per_s``: decode speed at the low end, tokens/s; ``need_share``: needed / available memory."""

    model: Model
    quant: str
    fits: bool
    passes: bool
    low_per_s: float = 0.0
    need_share: float = 0.0


class _Numbers(Struct, frozen=True):
    """What is remembered of a quick estimate. ``roomy``: fits with the margin of the verdict. ``reads``: prompts as
    fast as is asked for."""

    fits: bool
    roomy: bool = False
    reads: bool = True
    kind: PlacementKind | None = None
    low_per_s: float = 0.0
    need_share: float = float("inf")


class Chooser:
    """Chooses for many models on one machine; remembers what it has computed."""

    def __init__(self, machine: Machine, request: Request, estimator: Estimator) -> None:
        self.machine = machine
        self.request = request
        self.estimator = estimator
        self._known: dict[tuple[str, str], _Numbers] = {}
        self._offered: dict[str, Sequence[str]] = {}
        self._in_reach: dict[tuple[str, float], bool] = {}

    def choose(self, model: Model, task: Task | None = None) -> Choice:
        """The best quantisation that fits with a margin, where the common one would be placed, and comfortably fast;
        else the common one when it is fast enough for the task; else the best smaller one that is. Something is always
        chosen, the smallest when nothing fits."""
        quants = self._quants(model)
        floor = self._floor(model, task or self.request.task)
        middle = quants.index(common_quant(quants))
        common, larger, smaller = quants[middle], quants[:middle], quants[middle + 1 :]
        found = self._numbers(model, common)

        def roomy(other: _Numbers) -> bool:
            fast_enough = other.low_per_s >= max(floor, COMFORT_PER_S) and other.reads
            return other.roomy and other.kind is found.kind and fast_enough

        def fast(other: _Numbers) -> bool:
            return other.fits and other.low_per_s >= floor and other.reads

        if fast(found):
            quant = self._first(model, larger, roomy) or common
        elif found.fits:
            quant = self._first(model, smaller, fast) or common
        else:
            quant = self._first(model, smaller, fast) or self._first(model, smaller, _fits) or quants[-1]
        return self._choice(model, quant, floor)

    def passes(self, model: Model, task: Task | None = None) -> bool:
        """Whether there is a choice that passes, at the price of one estimate: the smallest file does, or none."""
        if not self.is_within_reach(model, task):
            return False
        smallest = self.smallest(model)
        fast = smallest.low_per_s >= self._floor(model, task or self.request.task)
        return smallest.fits and fast and self._numbers(model, smallest.quant).reads

    def is_within_reach(self, model: Model, task: Task | None = None) -> bool:
        """False, at a glance, for a model that is far too large or too slow for this machine."""
        floor = self._floor(model, task or self.request.task)
        key = (model.id, floor)
        found = self._in_reach.get(key)
        if found is None:
            found = self._in_reach[key] = model.tensors is not None or self._may_pass(model, floor)
        return found

    def smallest(self, model: Model) -> Choice:
        """The smallest file that would be chosen, whether it passes or not."""
        return self._choice(model, self._quants(model)[-1], 0.0)

    def estimate(self, choice: Choice, most_context: bool = True) -> Fit:
        """The full fit of a choice; without the most context where many are listed."""
        request = replace(self.request, quant=choice.quant)
        fit = self.estimator.estimate(choice.model, self.machine, request, most_context)
        return replace(fit, command=command(choice.model, fit))

    def _may_pass(self, model: Model, floor: float) -> bool:
        each = self.estimator.least_bytes_per_weight(model, self._quants(model)[-1])
        too_large = is_too_large(model, each, self.machine, WITHIN_REACH)
        return not (too_large or is_too_slow(model, each, self.machine, floor))

    def _quants(self, model: Model) -> Sequence[str]:
        found = self._offered.get(model.id)
        if found is None:
            found = self._offered[model.id] = self._worth_having(model)
        return found

    def _worth_having(self, model: Model) -> Sequence[str]:
        if self.request.quant:
            return (self.request.quant,)
        quants = self.estimator.quants(model, self.request)
        least = LEAST_QUANT if model.params >= SMALL_PARAMS else common_quant(quants)
        return quants[: quants.index(least) + 1] if least in quants else quants

    def _floor(self, model: Model, task: Task) -> float:
        asked = self.request.min_decode_per_s
        return floor_per_s(model, task) if asked is None else asked

    def _choice(self, model: Model, quant: str, floor: float) -> Choice:
        found = self._numbers(model, quant)
        passes = found.fits and found.low_per_s >= floor and found.reads
        return Choice(model, quant, found.fits, passes, found.low_per_s, found.need_share)

    def _first(self, model: Model, quants: Sequence[str], good: Callable[[_Numbers], bool]) -> str | None:
        """The first of ``quants`` (large to small) that is good. What is good stays so for smaller files: a bisection,
        after a look at the first, which on a large machine nearly always is."""
        if not quants:
            return None
        if good(self._numbers(model, quants[0])):
            return quants[0]
        if not good(self._numbers(model, quants[-1])):
            return None
        low, high = 1, len(quants) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if good(self._numbers(model, quants[middle])) else (middle + 1, high)
        return quants[low]

    def _numbers(self, model: Model, quant: str) -> _Numbers:
        key = (model.id, quant)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._compute(model, quant)
        return known

    def _compute(self, model: Model, quant: str) -> _Numbers:
        try:
            quick = self.estimator.quick(model, quant, self.machine, self.request)
        except FitcheckError:
            if self.request.quant:
                raise
            return _Numbers(False)  # a quantisation that this model cannot have is not a choice
        fits = quick.verdict is not Verdict.NO and quick.kind in self.request.allow
        low = quick.decode_per_s.low if quick.decode_per_s else 0.0
        roomy = fits and quick.verdict is Verdict.FITS
        return _Numbers(
            fits, roomy, self._reads(model, quant, fits), quick.kind, low, quick.need_bytes / max(quick.have_bytes, 1)
        )

    def _reads(self, model: Model, quant: str, fits: bool) -> bool:
        """Whether prompts are read as fast as is asked for, which takes a whole estimate to tell."""
        request = self.request
        if not fits or (request.min_prefill_per_s is None and request.max_first_token_s is None):
            return True
        asked = replace(request, quant=quant)
        speed = self.estimator.estimate(model, self.machine, asked, most_context=False).speed
        return reads_in_time(speed, request)


def _fits(found: _Numbers) -> bool:
    return found.fits
