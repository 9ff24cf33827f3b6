"""The door to this machine: what is absent, refused or stuck is None, and the reason is kept."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from fitcheck.probe.host import QUERY_MODULES, LiveHost, normal_arch

needs_posix = pytest.mark.skipif(os.name != "posix", reason="makes shell scripts")


def _tool(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@needs_posix
def test_a_tool_that_works_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, "some-smi", 'echo "got $1 in $LC_ALL"', monkeypatch)
    assert LiveHost().run(("some-smi", "-L")) == "got -L in C\n"


@needs_posix
def test_a_tool_that_fails_leaves_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, "some-smi", "echo Driver/library version mismatch; exit 18", monkeypatch)
    host = LiveHost()
    assert host.run(("some-smi",)) is None
    assert host.denied["some-smi"] == "exit 18: Driver/library version mismatch"


@needs_posix
def test_a_tool_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, "some-smi", "exec sleep 20", monkeypatch)
    host = LiveHost()
    start = time.monotonic()
    assert host.run(("some-smi",), timeout_s=0.2) is None
    assert time.monotonic() - start < 10
    assert "0.2 s" in host.denied["some-smi"]


def test_a_tool_that_is_not_installed_starts_no_process() -> None:
    host = LiveHost()
    assert host.run(("no-such-tool-anywhere",)) is None
    assert host.denied == {}


def test_files_are_bounded_and_garbage_is_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\x00abc" * 100_000)
    host = LiveHost()
    assert len(host.read_bytes(str(path), limit=1000) or b"") == 1000
    assert (host.read_text(str(path), limit=5) or "") == "\ufffd\0abc"


@pytest.mark.parametrize("path", ["/no/such/file", "/dev/null/x", "bad\0name"])
def test_what_is_not_there_is_none(path: str) -> None:
    host = LiveHost()
    assert host.read_text(path) is None
    assert host.list_dir(path) == ()
    assert not host.exists(path)


def test_a_folder_read_as_a_file_is_refused_with_a_reason(tmp_path: Path) -> None:
    host = LiveHost()
    assert host.read_text(str(tmp_path)) is None
    assert list(host.denied) == [str(tmp_path)]


def test_unknown_questions_are_refused() -> None:
    host = LiveHost()
    assert host.query("no-such-query") is None
    assert "no-such-query" in host.denied


@pytest.mark.parametrize("name", sorted(QUERY_MODULES))
def test_every_question_has_somebody_to_answer(name: str) -> None:
    from importlib import import_module

    assert callable(getattr(import_module(f"fitcheck.probe.{QUERY_MODULES[name]}"), f"query_{name}"))


def test_one_spelling_per_architecture() -> None:
    assert [normal_arch(name) for name in ("AMD64", "aarch64", "x86_64\n", "riscv64")] == [
        "x86_64",
        "arm64",
        "x86_64",
        "riscv64",
    ]
    assert LiveHost().os in ("linux", "darwin", "windows") or sys.platform not in ("linux", "darwin", "win32")
