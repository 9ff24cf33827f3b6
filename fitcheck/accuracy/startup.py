"""How long a cold command takes, whole process: ``python -m fitcheck.accuracy.startup``.

Each command runs several times in turn with the others, so that a busy machine slows all of them alike; medians are
printed beside those of a bare interpreter and of the command-line library alone, and of llmfit where it is installed.
A checkout is compiled first, as an installation is.
"""

from __future__ import annotations

import compileall
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 10
LIMITS = {"scan --json": (0.20, 60.0), "scan, a GPU": (0.30, 60.0), "check": (0.15, 60.0)}  # seconds, MB


def commands() -> dict[str, list[str]]:
    """What is measured, by name."""
    python = sys.executable
    found = {
        "python -c pass": [python, "-c", "pass"],
        "import typer": [python, "-c", "import typer"],
        "import fitcheck": [python, "-c", "import fitcheck"],
        "scan --json": [python, "-m", "fitcheck", "scan", "--json"],
        "scan": [python, "-m", "fitcheck", "scan"],
        "scan, a GPU": [python, "-m", "fitcheck", "scan", "--json", "--on", "RTX 4090"],
        "check": [python, "-m", "fitcheck", "check", "smollm2-135m-instruct"],
    }
    llmfit = shutil.which("llmfit")
    return found | ({"llmfit fit -n 10": [llmfit, "fit", "-n", "10"]} if llmfit else {})


def measure(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak memory in MB of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = 0  # waited for above
    scale = 1 if sys.platform == "darwin" else 1024
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * scale / 1e6


def main() -> int:
    """Print the table; 1 where a limit is exceeded."""
    if not hasattr(os, "wait4"):
        print("start-up is measured on Linux and macOS")
        return 0
    compileall.compile_dir(Path(__file__).parents[1], quiet=2)
    table = commands()
    samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in table}
    for _ in range(RUNS):
        for name, command in table.items():
            samples[name].append(measure(command))
    print(f"{'command':18} {'wall s':>8} {'cpu s':>8} {'MB':>6}   median of {RUNS}")
    exceeded = False
    for name, rows in samples.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        most_s, most_mb = LIMITS.get(name, (float("inf"), float("inf")))
        over = wall > most_s or memory > most_mb
        exceeded = exceeded or over
        print(
            f"{name:18} {wall:8.3f} {cpu:8.3f} {memory:6.0f}"
            + (f"   over {most_s} s, {most_mb:.0f} MB" if over else "")
        )
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
