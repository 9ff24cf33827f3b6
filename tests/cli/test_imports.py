"""What each command loads: start-up time is a feature, and an import is how it is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GPU = ["--on", str(HERE / "machine_gpu.json")]
HEAVY = (
    "typer",
    "rich",
    "huggingface_hub",
    "httpx",
    "requests",
    "pynvml",
    "cpuinfo",
    "numpy",
    "asyncio",
    "ssl",
    "http",
    "email",
    "sqlite3",
    "xml",
    "tomllib",
    "tomli",
    "importlib.metadata",
    "multiprocessing",
    "concurrent.futures",
    "unittest",
    "pydantic",
    "jsonschema",
    "yaml",
)


def loaded_by(*arguments: str) -> set[str]:
    code = "import sys; from fitcheck.__main__ import main; main(); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


COMMANDS = {
    "scan": ["scan", *GPU],
    "scan as JSON": ["scan", "--json", *GPU],
    "check": ["check", "qwen3-0.6b", *GPU],
    "explain": ["explain", "qwen3-14b", *GPU],
    "machine": ["machine", *GPU],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_command_loads_what_it_does_not_need(command: list[str]) -> None:
    loaded = loaded_by(*command)
    assert "fitcheck.cli" in loaded
    assert not loaded & set(HEAVY)


def test_help_and_version_load_the_command_line_library_and_nothing_of_the_answers() -> None:
    loaded = loaded_by("--version")
    assert "typer" in loaded
    assert not any(name.startswith(("fitcheck.estimate", "fitcheck.probe", "fitcheck.catalog")) for name in loaded)


def test_commands_do_not_load_each_other() -> None:
    loaded = loaded_by("check", "qwen3-0.6b", *GPU)
    assert "fitcheck.commands.check" in loaded
    assert (
        not {"fitcheck.commands.plan", "fitcheck.commands.explain", "fitcheck.catalog.hub", "fitcheck.catalog.gguf"}
        & loaded
    )
    assert not {name for name in loaded if name.startswith("fitcheck.estimate.graph.")}


def test_a_machine_that_is_named_is_not_probed() -> None:
    loaded = loaded_by("scan", *GPU)
    assert not {"fitcheck.probe.host", "psutil", "fitcheck.probe.bandwidth"} & loaded


def test_the_package_itself_loads_nothing() -> None:
    code = "import sys; before = set(sys.modules); import fitcheck; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"fitcheck", "types"}
