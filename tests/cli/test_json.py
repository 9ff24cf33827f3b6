"""JSON of every command: valid by the committed schema, complete, and a machine that answers again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fitcheck

HERE = Path(__file__).parent
GPU = ["--on", str(HERE / "machine_gpu.json")]
SCHEMA = json.loads((Path(fitcheck.__file__).parent / "data" / "report.schema.json").read_text())

COMMANDS = {
    "scan": ["scan", *GPU],
    "scan of everything": ["scan", "--all", *GPU],
    "check yes": ["check", "qwen3-0.6b", *GPU],
    "check no": ["check", "deepseek-v3", *GPU],
    "explain": ["explain", "qwen3-14b", *GPU],
    "plan": ["plan", "qwen3-14b", *GPU],
    "machine": ["machine", *GPU],
    "this machine": ["machine"],
    "catalog list": ["catalog", "list", "qwen3"],
    "catalog show": ["catalog", "show", "qwen3-14b"],
    "unknown model": ["explain", "no-such-model-anywhere"],
    "bad option": ["scan", "--bogus"],
}


def answer(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "fitcheck", *arguments, "--json"], capture_output=True, check=False)
    report = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    return report


def mistakes(value: Any, schema: dict[str, Any], path: str = "$") -> list[str]:
    """What is wrong with ``value`` by the parts of JSON Schema that msgspec writes."""
    if "$ref" in schema:
        return mistakes(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], path)
    if "anyOf" in schema:
        return (
            [] if any(not mistakes(value, option, path) for option in schema["anyOf"]) else [f"{path}: no variant fits"]
        )
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path}: {value!r} is not one of {schema['enum']}"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}
    kind = schema.get("type")
    if kind == "boolean":
        return [] if isinstance(value, bool) else [f"{path}: not a boolean"]
    if kind and (not isinstance(value, kinds[kind]) or isinstance(value, bool)):
        return [f"{path}: {value!r} is not of type {kind}"]
    found: list[str] = []
    if isinstance(value, dict):
        found += [f"{path}: {name} is missing" for name in schema.get("required", []) if name not in value]
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, entry in value.items():
            if name not in known and not isinstance(others, dict):
                found.append(f"{path}: {name} is not known")
                continue
            found += mistakes(entry, known.get(name, others), f"{path}.{name}")
    if isinstance(value, list):
        for number, entry in enumerate(value):
            found += mistakes(entry, schema.get("items") or {}, f"{path}[{number}]")
    return found


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_json_is_valid_by_the_committed_schema(command: list[str]) -> None:
    assert mistakes(answer(*command), SCHEMA) == []


def test_the_validator_notices_mistakes() -> None:
    report = answer("machine", *GPU)
    for broken in (
        {**report, "exit_code": "0"},
        {**report, "machine": {**report["machine"], "cpu": {}}},
        {**report, "answer": 3},
        {name: value for name, value in report.items() if name != "command"},
    ):
        assert mistakes(broken, SCHEMA)


def test_a_scan_can_be_asked_again_from_its_json(tmp_path: Path) -> None:
    first = answer("scan", *GPU)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(first))
    again = answer("scan", "--on", str(path))
    assert first["fits"]
    assert again["fits"] == first["fits"]
    assert again["best"] == first["best"]


def test_rates_and_sizes_are_numbers_and_words_are_lower_case() -> None:
    fit = answer("scan", *GPU)["fits"][0]
    assert isinstance(fit["need_bytes"], int)
    assert fit["verdict"] in ("fits", "tight")
    assert isinstance(fit["speed"]["decode_per_s"]["low"], float)
