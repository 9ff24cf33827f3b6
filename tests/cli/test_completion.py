"""What the shell offers when a line is completed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LINES = {
    "fitcheck ch": ["check"],
    "fitcheck scan --li": ["--licence", "--limit"],
    "fitcheck scan --for ": ["chat", "coding", "reasoning", "vision", "embedding"],
    "fitcheck check gpt2-": ["gpt2-large", "gpt2-medium", "gpt2-xl"],
    "fitcheck catalog sh": ["show"],
}


@pytest.mark.parametrize(("line", "offered"), LINES.items(), ids=LINES)
def test_commands_options_choices_and_models_are_completed(line: str, offered: list[str]) -> None:
    words = line.split()
    place = len(words) - (not line.endswith(" "))
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(place), "_FITCHECK_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "fitcheck"], env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (offered, "")
