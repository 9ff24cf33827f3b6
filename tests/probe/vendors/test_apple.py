"""Apple: chips by their cores and memory, limits by Metal, by the user and by rule; Intel Macs; Linux on Macs."""

from __future__ import annotations

import json

import pytest

from fitcheck.probe import probe
from fitcheck.probe.capture import CaptureHost
from fitcheck.probe.macs import NEWEST_MACOS, working_set_bytes
from fitcheck.types import Backend, Machine, Vendor

GIB = 1024**3
MIB = 1024**2
SYSCTL = {
    "hw.memsize": str(128 * GIB),
    "hw.model": "Mac16,5",
    "hw.physicalcpu": "16",
    "hw.logicalcpu": "16",
    "hw.perflevel0.physicalcpu": "12",
    "hw.perflevel1.physicalcpu": "4",
    "machdep.cpu.brand_string": "Apple M4 Max",
    "kern.osproductversion": "26.1",
    "hw.optional.neon": "1",
    "hw.optional.arm.FEAT_DotProd": "1",
    "hw.optional.arm.FEAT_I8MM": "1",
    "hw.optional.arm.FEAT_BF16": "1",
    "hw.optional.arm.FEAT_SME": "1",
}


def mac(sysctl: dict[str, str], **more: object) -> Machine:
    text = "".join(f"{name}: {value}\n" for name, value in sysctl.items())
    attachments = {"sysctl.txt": text.encode(), **more.pop("attachments", {})}  # type: ignore[dict-item]
    return probe(CaptureHost({}, os_name="darwin", arch="arm64", attachments=attachments, **more))  # type: ignore[arg-type]


def displays(**values: str) -> dict[str, bytes]:
    return {"SPDisplaysDataType.json": json.dumps({"SPDisplaysDataType": [values]}).encode()}


def gbs(machine: Machine) -> float:
    (card,) = machine.accelerators
    assert card.pool.bandwidth is not None
    return card.pool.bandwidth.per_s / 1e9


def test_a_mac_is_read_from_sysctl() -> None:
    machine = mac(SYSCTL, queries={"memory": {"total": 128 * GIB, "available": 100 * GIB}})
    cpu, (card,) = machine.cpu, machine.accelerators
    assert (cpu.name, cpu.physical_cores, cpu.performance_cores, cpu.threads) == ("Apple M4 Max", 16, 12, 12)
    assert cpu.features == ("asimd", "asimddp", "i8mm", "bf16", "sme")
    assert (card.name, card.unified, card.backends, card.architecture) == ("Apple M4 Max", True, (Backend.METAL,), "M4")
    assert (machine.ram.total_bytes, machine.ram.free_bytes) == (128 * GIB, 100 * GIB)
    assert card.pool.usable_bytes == 100 * GIB  # Metal's limit is higher than what is free
    assert machine.os_version == "macOS 26.1" and machine.ram.bandwidth == card.pool.bandwidth


def test_gpu_cores_decide_between_bandwidths() -> None:
    for cores, expected in (("32", 410), ("40", 546)):
        shown = displays(sppci_model="Apple M4 Max", sppci_cores=cores, spdisplays_vendor="sppci_vendor_Apple")
        assert gbs(mac(SYSCTL, attachments=shown)) == expected


def test_the_registrys_count_of_cores_is_read() -> None:
    text = '+-o AGXAcceleratorG16X\n    "gpu-core-count" = 32\n'
    assert gbs(mac(SYSCTL, commands={"ioreg -rc AGXAccelerator -d1": text})) == 410


def test_without_gpu_cores_the_other_cores_and_the_memory_decide() -> None:
    small = SYSCTL | {"hw.physicalcpu": "14", "hw.perflevel0.physicalcpu": "10", "hw.memsize": str(36 * GIB)}
    assert gbs(mac(small)) == 410
    assert gbs(mac(SYSCTL)) == 546


@pytest.mark.parametrize(
    ("gib", "macos", "limit_gib", "tolerance"),
    [(16, 15, 10.667, 0.01), (24, 15, 16, 0.01), (36, 14, 24, 0.01), (64, 15, 48, 0.01), (128, 15, 96, 0.01),
     (16, 26, 11.84, 0.01), (128, 26, 107.52, 0.01)],
)  # fmt: skip
def test_the_rule_reproduces_limits_that_were_seen(gib: int, macos: int, limit_gib: float, tolerance: float) -> None:
    assert working_set_bytes(gib * GIB, macos) / GIB == pytest.approx(limit_gib, rel=tolerance)


def test_more_memory_never_lowers_the_limit() -> None:
    for macos in (15, NEWEST_MACOS):
        limits = [working_set_bytes(gib * GIB, macos) for gib in range(8, 513, 4)]
        assert limits == sorted(limits)


def test_metals_own_limit_and_the_users_come_before_the_rule() -> None:
    told = {"metal": {"name": "Apple M4 Max", "working_set_bytes": 90 * GIB}}
    assert mac(SYSCTL, queries=told).accelerators[0].pool.usable_bytes == 90 * GIB
    wired = SYSCTL | {"iogpu.wired_limit_mb": str(120 * 1024)}
    assert mac(wired, queries=told).accelerators[0].pool.usable_bytes == 120 * GIB


def test_under_rosetta_the_model_names_the_chip() -> None:
    machine = mac(SYSCTL | {"machdep.cpu.brand_string": "VirtualApple @ 2.50GHz processor"})
    assert machine.cpu.name == "Apple M4 Max" and gbs(machine) == 546


def test_an_unknown_chip_still_has_its_memory() -> None:
    machine = mac(SYSCTL | {"machdep.cpu.brand_string": "Apple M9 Ultra", "hw.model": "Mac99,9"})
    assert machine.ram.total_bytes == 128 * GIB and machine.cpu.physical_cores == 16


def test_an_intel_mac_computes_on_its_processor() -> None:
    values = {
        "hw.memsize": str(16 * GIB),
        "machdep.cpu.brand_string": "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz",
        "machdep.cpu.core_count": "6",
        "machdep.cpu.thread_count": "12",
        "machdep.cpu.features": "FPU SSE4.2 AVX1.0 FMA F16C",
        "machdep.cpu.leaf7_features": "AVX2 BMI2",
    }
    shown = displays(sppci_model="AMD Radeon Pro 5300M", spdisplays_vram="4 GB", spdisplays_vendor="sppci_vendor_amd")
    machine = mac(values, attachments=shown)
    (card,) = machine.accelerators
    assert (machine.cpu.physical_cores, machine.cpu.logical_cpus) == (6, 12)
    assert set(machine.cpu.features) == {"sse4_2", "avx", "fma", "f16c", "avx2"}
    assert (card.vendor, card.usable, card.pool.total_bytes) == (Vendor.AMD, False, 4 * GIB)


def test_a_mac_under_linux_serves_vulkan() -> None:
    host = CaptureHost(
        {
            "/proc/device-tree/compatible": b"apple,j314s\0apple,t6000\0apple,arm-platform\0",
            "/proc/meminfo": b"MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n",
            "/proc/cpuinfo": b"CPU implementer : 0x61\nCPU part : 0x025\n",
        },
        os_name="linux",
    )
    (card,) = probe(host).accelerators
    assert (card.name, card.backends, card.unified) == ("Apple M1 Pro", (Backend.VULKAN,), True)


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b'{"SPDisplaysDataType": 3}', b"\xff\0", b'{"SPDisplaysDataType": [[1]]}']
)
def test_garbage_is_survived(garbage: bytes) -> None:
    machine = mac(SYSCTL, attachments={"SPDisplaysDataType.json": garbage, "ggml-metal.log": garbage})
    assert machine.accelerators
