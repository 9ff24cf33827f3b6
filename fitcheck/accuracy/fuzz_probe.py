"""Break captures in every way that a driver, a kernel or a stranger could, and probe them.

    python -m fitcheck.accuracy.fuzz_probe --cases 20000 --captures tests/captures

Each case takes the evidence of a real capture, leaves out, cuts, floods or garbles parts of it, and asks the probe. It
must answer with a ``Machine``: no exception, no control character in any text, no number that is not one, in time.
Needs hypothesis (the ``dev`` extra).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fitcheck.probe import probe
from fitcheck.probe.capture import CaptureHost
from fitcheck.types import Machine

MOST_WORK_S = 2.0  # of processor time: a machine that runs other programs meanwhile is no defect
_PATIENCE_S = 60.0

#: Files that no seed needs to have for the probe to look at them.
_PATHS = (
    "/proc/cpuinfo", "/proc/meminfo", "/proc/self/cgroup", "/proc/self/mountinfo", "/proc/self/status",
    "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
    "/sys/fs/cgroup/cpu.max", "/sys/devices/system/cpu/online", "/sys/devices/system/cpu/cpu0/cpu_capacity",
    "/sys/devices/system/cpu/cpu0/topology/core_cpus_list", "/sys/devices/cpu_atom/cpus",
    "/sys/devices/system/node/node0/cpulist", "/run/udev/data/+dmi:id", "/proc/spl/kstat/zfs/arcstats",
    "/proc/device-tree/model", "/proc/device-tree/compatible", "/etc/os-release", "/proc/sys/kernel/osrelease",
    "/sys/bus/pci/devices/0000:01:00.0/vendor", "/sys/bus/pci/devices/0000:01:00.0/class",
    "/sys/bus/pci/devices/0000:01:00.0/device", "/sys/bus/pci/devices/0000:01:00.0/uevent",
    "/proc/driver/nvidia/gpus/0/numa_status", "/sys/class/drm/card0/device/vendor",
    "/sys/class/drm/card0/device/device", "/sys/class/drm/card0/device/mem_info_vram_total",
    "/sys/class/drm/card0/device/mem_info_gtt_total", "/sys/class/drm/card0/device/uevent",
    "/sys/class/kfd/kfd/topology/nodes/1/properties", "/sys/class/kfd/kfd/topology/nodes/1/mem_banks/0/properties",
)  # fmt: skip
_ATTACHED = (
    "query-gpu.csv", "nvidia-smi-q-x.xml", "nvidia-smi-L.txt", "nvidia-smi.txt", "rocm-smi.json", "lscpu.txt",
    "sysctl.txt", "winreg.json", "detect.json", "fastfetch-gpu.json", "SPDisplaysDataType.json", "clinfo.json",
    "system_profiler-SPHardwareDataType.txt", "gpuinfo.txt", "ggml-metal.log", "df.txt", "lspci-vmmnD.txt",
    "additional-properties.json", "wmic-cpu.txt", "cpuid.txt", "dump.json", "sample.json", "dmesg.txt", "kstat.txt",
)  # fmt: skip
_QUERIES = (
    "nvml", "disk ~", "memory", "cores", "modules", "bandwidth 1 33554432 524288", "sysctl", "metal", "smbios", "dxgi",
    "processors", r"registry HARDWARE\DESCRIPTION\System\CentralProcessor\0",
)  # fmt: skip

_POISON = (
    b"\x00", b"\xff\xfe", b"\x1b[31m", b"\x1b]0;title\x07", b"99999999999999999999999999", b"-1", b"1e309", b"nan",
    b"\xe2\x80\xae", b"%s%n", b"../../etc/passwd", b"0x", b"<!ENTITY x 'y'>", b"\n\n\n", b"=", b":", b",", b"A" * 3000,
)  # fmt: skip

Evidence = dict[str, Any]


def load_seeds(folder: Path) -> tuple[Evidence, ...]:
    """The captures of a folder as plain evidence: files, attachments, queries, variables, system."""
    seeds = []
    for capture in sorted(path for path in folder.iterdir() if path.is_dir()):
        seed: Evidence = {"files": {}, "attachments": {}, "queries": {}, "variables": {}, "os": None}
        for path in sorted(capture.rglob("*"))[:200]:
            name = path.relative_to(capture).as_posix()
            if path.is_file() and name == "capture.json":
                _add_recording(seed, json.loads(path.read_bytes()))
            elif path.is_file():
                data = path.read_bytes()[:20_000]
                seed["files" if name.startswith(("proc/", "sys/", "etc/")) else "attachments"][name] = data
        seed["files"] = {name if name.startswith("/") else f"/{name}": data for name, data in seed["files"].items()}
        seeds.append(seed)
    return tuple(seeds)


def _add_recording(seed: Evidence, document: Evidence) -> None:
    for path, text in document.get("files", {}).items():
        seed["files"][path] = ("\n".join(text) if isinstance(text, list) else text).encode()
    seed["queries"].update(document.get("queries", {}))
    seed["variables"].update(document.get("environ", {}))
    seed["os"] = document.get("os")


def broken_captures(seeds: tuple[Evidence, ...]) -> st.SearchStrategy[CaptureHost]:
    """Captures that were real once."""
    garbage = st.one_of(st.binary(max_size=200), st.sampled_from(_POISON), st.text(max_size=60).map(str.encode))
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.sampled_from(_POISON).map(repr)
    )
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner), max_leaves=8
    )

    @st.composite
    def build(draw: st.DrawFn) -> CaptureHost:
        seed = draw(st.sampled_from(seeds))
        files, attachments = dict(seed["files"]), dict(seed["attachments"])
        for group in (files, attachments):
            for name in draw(st.lists(st.sampled_from(sorted(group)), max_size=4)) if group else ():
                group[name] = _mangle(draw, group[name], garbage)
            for name in draw(st.lists(st.sampled_from(sorted(group)), max_size=3)) if group else ():
                group.pop(name, None)
        files.update(draw(st.dictionaries(st.sampled_from(_PATHS), garbage, max_size=4)))
        attachments.update(draw(st.dictionaries(st.sampled_from(_ATTACHED), garbage, max_size=2)))
        queries = _mangle_json(draw, seed["queries"], values)
        queries.update(draw(st.dictionaries(st.sampled_from(_QUERIES), values, max_size=2)))
        return CaptureHost(
            files,
            os_name=draw(st.sampled_from((seed["os"], seed["os"], None, "linux", "windows", "darwin", "freebsd", ""))),
            queries=queries,
            variables={
                **seed["variables"],
                **draw(st.dictionaries(st.just("CUDA_VISIBLE_DEVICES"), st.text(max_size=9))),
            },
            attachments=attachments,
        )

    return build()


def _mangle(draw: st.DrawFn, data: bytes, garbage: st.SearchStrategy[bytes]) -> bytes:
    """Cut the data, put garbage into it, or repeat it."""
    place = draw(st.integers(0, len(data)))
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + draw(garbage) + data[place:]
    if kind == 2:
        return data[:place] + draw(garbage) + data[place + draw(st.integers(0, 40)) :]
    return data * draw(st.integers(0, 5))


def _mangle_json(draw: st.DrawFn, value: Any, values: st.SearchStrategy[Any]) -> Any:
    """The same document with some values replaced by others of any type."""
    if isinstance(value, dict):
        return {
            key: draw(values) if draw(st.integers(0, 19)) == 0 else _mangle_json(draw, item, values)
            for key, item in value.items()
        }
    return [_mangle_json(draw, item, values) for item in value] if isinstance(value, list) else value


def check(host: CaptureHost) -> Machine:
    """Probe and hold the answer to the rules. Raises AssertionError with the rule that broke."""
    start = time.process_time()
    machine = probe(host, deadline_s=_PATIENCE_S, bandwidth=False)
    assert time.process_time() - start < MOST_WORK_S, "works for longer than the deadline of a part"
    for text in _texts(machine):
        assert text.isprintable(), f"not printable: {text!r}"
        assert len(text) <= 400, f"too long: {text[:80]!r}"
    for number in _numbers(machine):
        assert math.isfinite(number), "not finite"
        assert number >= 0, f"negative: {number}"
    failed = [problem.message for problem in machine.problems if " probe " in problem.message]
    assert not failed, failed
    assert msgspec.json.decode(msgspec.json.encode(machine), type=Machine) == machine
    return machine


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield str(value.value) if hasattr(value, "value") else value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _texts(getattr(value, name))


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _numbers(getattr(value, name))


def fuzz(folder: Path, cases: int) -> int:
    """Probe that many broken captures; the number really probed. Raises AssertionError at the first that misbehaves."""
    seeds = load_seeds(folder)
    probed = 0

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(broken_captures(seeds))
    def one(host: CaptureHost) -> None:
        nonlocal probed
        check(host)
        probed += 1

    run: Callable[[], None] = one
    run()
    return probed


def main() -> None:
    """Parse the command line and fuzz."""
    parser = argparse.ArgumentParser(description="Probe broken captures; nothing may break, escape or hang.")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--captures", type=Path, default=Path("tests/captures"))
    options = parser.parse_args()
    start = time.monotonic()
    probed = fuzz(options.captures, options.cases)
    sys.stdout.write(f"{probed} broken captures probed in {time.monotonic() - start:.0f} s, none misbehaved\n")


if __name__ == "__main__":
    main()
