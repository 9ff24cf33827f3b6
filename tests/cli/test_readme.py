"""What README shows is what the program prints. ``FITCHECK_WRITE_README=1`` writes the examples anew."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
CONSOLE = re.compile(r"```console\n\$ (.+)\n((?:.*\n)*?)```")

pty = pytest.importorskip("pty")


def on_a_terminal(command: list[str]) -> str:
    """What a process prints on a terminal of 80 columns."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(COLUMNS="80", NO_COLOR="1", TERM="xterm", LC_ALL="C.UTF-8", PYTHONUTF8="1")
        os.execv(command[0], command)
    chunks = []
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.waitpid(pid, 0)
    return b"".join(chunks).decode().replace("\r\n", "\n")


def masked(text: str) -> str:
    """Free disk space and times may differ from machine to machine; pretended hardware may not."""
    return re.sub(r"[\d.]+ GiB free|loads in [\d.–]+ s", "…", text)


def examples() -> list[str]:
    return [match[1] for match in CONSOLE.finditer(README.read_text())]


@pytest.mark.parametrize("command", examples())
def test_an_example_of_the_readme_prints_what_it_shows(command: str) -> None:
    words = shlex.split(command)
    assert words[0] == "fitcheck"
    printed = on_a_terminal([sys.executable, "-m", *words])
    shown = {match[1]: match[2] for match in CONSOLE.finditer(README.read_text())}[command]
    if os.environ.get("FITCHECK_WRITE_README"):
        README.write_text(README.read_text().replace(f"$ {command}\n{shown}```", f"$ {command}\n{printed}```"))
        return
    assert masked(shown) == masked(printed)


def test_the_python_example_runs() -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert code is not None
    done = subprocess.run([sys.executable, "-c", code[1]], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert re.fullmatch(r"(fits|tight) \w+ (gpu|split)\n", done.stdout)


def test_the_configuration_example_is_valid(tmp_path: Path) -> None:
    from fitcheck.configuration import load

    text = re.search(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    assert text is not None
    path = tmp_path / "fitcheck.toml"
    path.write_text(text[1])
    assert [len(wanted.names) for wanted in load(path)] == [3, 1]


def test_the_readme_names_every_command() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "fitcheck", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = re.findall(r"^  (\w+)  +\S", listed.split("Commands:")[1], re.MULTILINE)
    assert len(commands) >= 7
    assert not [command for command in commands if f"`fitcheck {command}" not in README.read_text()]
