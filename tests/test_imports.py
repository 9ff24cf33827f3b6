"""Data flows in one direction: probe and catalog at one end, output at the other, pure arithmetic between."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "fitcheck"

# package -> fitcheck packages it may import from (besides types, units, errors and itself)
ALLOWED = {
    "probe": set(),
    "catalog": {"estimate"},  # the file-type mixes and tensor arithmetic, to check published file sizes
    "estimate": set(),
    "advise": {"estimate"},
    "output": set(),
}
BASE = {"types", "units", "errors"}
IMPURE = {"psutil", "pynvml", "rich", "subprocess", "socket", "time", "datetime", "typer", "huggingface_hub"}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            if node.module == "fitcheck":
                found |= {f"fitcheck.{alias.name}" for alias in node.names}
    return found


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_follow_the_flow_of_data(package: str) -> None:
    for path in modules(package):
        for name in imports_of(path):
            if not name.startswith("fitcheck."):
                continue
            part = name.split(".")[1]
            assert part in BASE | ALLOWED[package] | {package}, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", ["estimate", "advise"])
def test_the_middle_is_pure(package: str) -> None:
    for path in modules(package):
        impure = {name.split(".")[0] for name in imports_of(path)} & IMPURE
        assert not impure, f"{path.relative_to(ROOT)} imports {impure}"
