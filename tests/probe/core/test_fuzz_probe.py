"""Broken captures: a short run; FITCHECK_FUZZ_CASES asks for a longer one (20000 is that of the report)."""

from __future__ import annotations

import os
from pathlib import Path

from fitcheck.accuracy.fuzz_probe import fuzz

CAPTURES = Path(__file__).parents[2] / "captures"


def test_broken_captures_neither_stop_nor_escape_nor_delay_the_probe() -> None:
    cases = int(os.environ.get("FITCHECK_FUZZ_CASES", "200"))
    assert fuzz(CAPTURES, cases) >= cases
