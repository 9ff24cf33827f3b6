"""The most context that fits a placement."""

from __future__ import annotations

from collections.abc import Callable

from fitcheck.estimate.buffers import ComputeBuffers
from fitcheck.estimate.placement import Candidate, Ground, Split, candidate, no_buffers


def most_context(
    ground_at: Callable[[int], Ground], split: Split, step: int, planned: int, longest: int, margin: int
) -> int:
    """The most tokens per sequence, a multiple of ``step`` or ``longest`` itself, whose need leaves ``margin`` bytes on
    every device; 0 where none does. ``ground_at`` gives what a placement is chosen by at a context. Exact wherever the
    engine's graph is known.
    """

    def at_most(tokens: int) -> Candidate:
        return candidate(ground_at(tokens), split)

    if ground_at(longest).plan is None or at_most(longest).exact:
        return most_that_fits(lambda tokens: left_of(at_most(tokens)) - margin, step, longest)
    return _Planned(ground_at, split, step, margin).most(planned, longest)


class _Planned:
    """The search where the fast arithmetic has a bound of the buffers only, and a plan of them costs some 10 ms.

    What the bound has too much changes nearly in a straight line with the context, so two plans tell where the next is
    wanted. Buffers never shrink as the context grows: less left than one more step of caches needs ends it.
    """

    def __init__(self, ground_at: Callable[[int], Ground], split: Split, step: int, margin: int) -> None:
        self._ground_at = ground_at
        self._split = split
        self._step = step
        self._margin = margin
        self._spares: list[tuple[int, int]] = []  # (tokens, bytes that the bound had too much), the last two plans

    def most(self, planned: int, longest: int) -> int:
        """As ``most_context``."""
        step = self._step
        low, high = 0, -(-longest // step) + 1  # in steps, the last one perhaps shorter: low fits, high does not
        if planned:
            self._plan(planned)
        while high - low > 1:
            forecast = most_that_fits(lambda tokens: self._bound(tokens) + self._spare(tokens), step, longest)
            guess = min(max(-(-forecast // step), low + 1), high - 1)
            tokens = min(guess * step, longest)
            lefts = self._plan(tokens)
            if min(lefts) < 0:
                high = guess
            elif tokens == longest or self._is_last(tokens, lefts):
                return tokens
            else:
                low = guess
        return low * step

    def _plan(self, tokens: int) -> tuple[int, ...]:
        """What is left on each device, by the engine's plan."""
        ground = self._ground_at(tokens)
        lefts = self._lefts(tokens, ground.plan(self._split) if ground.plan else None)
        self._spares = [*self._spares[-1:], (tokens, min(lefts) - self._bound(tokens))]
        return lefts

    def _spare(self, tokens: int) -> int:
        """What the bound will have too much, as the last two plans let expect."""
        if not self._spares:
            return 0
        (first, there), (last, here) = self._spares[0], self._spares[-1]
        return here + (tokens - last) * (here - there) // (last - first) if last != first else here

    def _bound(self, tokens: int) -> int:
        return left_of(candidate(self._ground_at(tokens), self._split)) - self._margin

    def _lefts(self, tokens: int, compute: ComputeBuffers | None) -> tuple[int, ...]:
        found = candidate(self._ground_at(tokens), self._split, compute)
        return tuple(use.left - self._margin for use in found.uses)

    def _is_last(self, tokens: int, lefts: tuple[int, ...]) -> bool:
        """Whether the caches of one more step alone are more than what is left on some device."""
        bare = no_buffers(self._split)
        now, then = self._lefts(tokens, bare), self._lefts(tokens + self._step, bare)
        return any(left < a - b for left, a, b in zip(lefts, now, then, strict=True))


def left_of(found: Candidate) -> int:
    """What is left on the fullest device."""
    return min(use.left for use in found.uses)


def most_that_fits(left: Callable[[int], int], step: int, longest: int) -> int:
    """The largest multiple of ``step`` up to ``longest`` (which itself counts) with ``left(n) >= 0``; 0 if none has.

    ``left`` falls as n grows, nearly in a straight line, so the search walks along the line that it has seen.
    """
    if left(longest) >= 0:
        return longest
    low, high = 0, -(-longest // step)  # in steps: low fits (or is nothing), high does not
    left_low, left_high = left(step), left(longest)
    if left_low < 0:
        return 0
    low = 1
    while high - low > 1:
        guess = low + int((high - low) * left_low / (left_low - left_high))
        guess = min(max(guess, low + 1), high - 1)
        found = left(guess * step)
        if found >= 0:
            low, left_low = guess, found
            if guess + 1 < high and left((guess + 1) * step) < 0:
                return low * step
        else:
            high, left_high = guess, found
            if guess - 1 > low and left((guess - 1) * step) >= 0:
                return (guess - 1) * step
    return low * step
