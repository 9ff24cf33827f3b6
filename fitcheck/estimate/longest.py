"""The most context that fits a placement."""

from __future__ import annotations

from collections.abc import Callable


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
