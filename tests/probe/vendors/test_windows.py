"""Windows: registry, DXGI, SMBIOS and core records, as the calls return them."""

from __future__ import annotations

import pytest

from fitcheck.probe import probe
from fitcheck.probe.capture import CaptureHost
from fitcheck.probe.memory_speed import speed_of_modules
from fitcheck.probe.windows_calls import efficiency_classes, memory_modules
from fitcheck.types import Backend, Machine, Vendor

GIB = 1024**3
PROCESSOR = r"registry HARDWARE\DESCRIPTION\System\CentralProcessor\0"
DISPLAY = r"registry SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318} *"
VERSION = r"registry SOFTWARE\Microsoft\Windows NT\CurrentVersion"
ARC = {
    "DriverDesc": "Intel(R) Arc(TM) B580 Graphics",
    "MatchingDeviceId": r"PCI\VEN_8086&DEV_E20B",
    "HardwareInformation.qwMemorySize": 12 * GIB - 2**26,
    "DriverVersion": "32.0.101.6559",
}
GONE = {"DriverDesc": "NVIDIA GeForce GTX 970", "MatchingDeviceId": r"PCI\VEN_10DE&DEV_13C2"}
QUERIES: dict[str, object] = {
    PROCESSOR: {"ProcessorNameString": "Intel(R) Core(TM) Ultra 7 265K          "},
    VERSION: {"CurrentBuildNumber": "26100", "ProductName": "Windows 10 Pro"},
    DISPLAY: [ARC, GONE],
    "dxgi": [
        {"name": "Intel(R) Arc(TM) B580 Graphics", "vendor_id": 0x8086, "device_id": 0xE20B,
         "dedicated_bytes": 12 * GIB - 2**27, "shared_bytes": 16 * GIB},
        {"name": "Microsoft Basic Render Driver", "vendor_id": 0x1414, "device_id": 0x8C, "software": True},
    ],
    "processors": {"physical": 20, "logical": 20, "performance": 8, "features": ["avx", "avx2"]},
    "memory": {"total": 32 * GIB - 2**28, "available": 20 * GIB},
}  # fmt: skip


def machine_of(**changes: object) -> Machine:
    queries = QUERIES | {name.replace("display", DISPLAY): value for name, value in changes.items()}
    return probe(CaptureHost({}, os_name="windows", arch="x86_64", queries=queries))


def test_a_machine_is_read_from_registry_and_dxgi() -> None:
    machine = machine_of()
    cpu, (card,) = machine.cpu, machine.accelerators
    assert (cpu.name, cpu.physical_cores, cpu.performance_cores) == ("Intel(R) Core(TM) Ultra 7 265K", 20, 8)
    assert (card.catalog_name, card.vendor, card.driver) == ("Intel Arc B580", Vendor.INTEL, "32.0.101.6559")
    assert card.pool.total_bytes == 12 * GIB - 2**26  # the registry's 64 bits, not DXGI's budget
    assert machine.ram.usable_bytes == 20 * GIB
    assert machine.os_version == "Windows 11, build 26100"


def test_keys_of_cards_that_were_taken_out_are_ignored() -> None:
    assert all("970" not in card.name for card in machine_of().accelerators)


def test_without_dxgi_the_registry_lists_the_cards() -> None:
    names = {card.name for card in machine_of(dxgi=None).accelerators}
    assert "Intel(R) Arc(TM) B580 Graphics" in names


def test_an_apus_carve_out_is_not_taken_for_a_card() -> None:
    adapter = {"name": "AMD Radeon(TM) 8060S Graphics", "vendor_id": 0x1002, "device_id": 0x1586, "revision": 0xC1,
               "dedicated_bytes": 8354103296, "shared_bytes": 12696061952}  # fmt: skip
    (card,) = machine_of(dxgi=[adapter], display=[]).accelerators
    assert (card.catalog_name, card.unified) == ("AMD Radeon 8060S", True)
    assert card.pool.total_bytes == 8354103296 + 12696061952
    assert card.backends == (Backend.ROCM, Backend.VULKAN)


def test_shared_memory_beside_a_card_does_not_count() -> None:
    (card,) = machine_of().accelerators
    assert card.pool.usable_bytes < 12 * GIB


def test_a_plain_gpu_of_a_processor_is_named_and_not_counted() -> None:
    adapter = {"name": "Intel(R) UHD Graphics 770", "vendor_id": 0x8086, "device_id": 0x4680,
               "dedicated_bytes": 2**27, "shared_bytes": 16 * GIB}  # fmt: skip
    (card,) = machine_of(dxgi=[adapter], display=[]).accelerators
    assert (card.usable, card.pool.usable_bytes) == (False, 0)


def smbios_module(locator: bytes, bank: bytes, rated: int, configured: int, size_mib: int = 16384) -> bytes:
    fields = bytearray(0x22)
    fields[0], fields[1] = 17, len(fields)
    fields[0x0A:0x0C] = (64).to_bytes(2, "little")
    fields[0x0C:0x0E] = size_mib.to_bytes(2, "little")
    fields[0x10], fields[0x11], fields[0x12] = 1, 2, 34
    fields[0x15:0x17], fields[0x20:0x22] = rated.to_bytes(2, "little"), configured.to_bytes(2, "little")
    return bytes(fields) + locator + b"\0" + bank + b"\0" + b"SERIAL123\0\0"


TABLE = (
    bytes((0, 4, 0, 0)) + b"BIOS\0\0"
    + smbios_module(b"DIMM 0", b"P0 CHANNEL A", 6000, 5600)
    + smbios_module(b"DIMM 1", b"P0 CHANNEL A", 0, 0, size_mib=0)
    + smbios_module(b"DIMM 0", b"P0 CHANNEL B", 6000, 5600)
    + bytes((127, 4, 0, 0, 0, 0))
)  # fmt: skip


def test_modules_are_read_from_the_firmwares_table_at_their_configured_speed() -> None:
    modules = memory_modules(TABLE)
    assert modules["MEMORY_DEVICE_0_CONFIGURED_SPEED_MTS"] == "5600"
    assert modules["MEMORY_DEVICE_1_PRESENT"] == "0"
    assert not any("SERIAL123" in value for value in modules.values())
    rate = speed_of_modules(modules, "SMBIOS")
    assert rate is not None and rate.per_s == 2 * 8 * 5600e6


def test_the_speed_of_memory_reaches_the_machine() -> None:
    rate = machine_of(smbios=memory_modules(TABLE)).ram.bandwidth
    assert rate is not None and rate.per_s == pytest.approx(89.6e9)


@pytest.mark.parametrize("cut", range(0, len(TABLE), 3))
def test_a_cut_table_is_survived(cut: int) -> None:
    memory_modules(TABLE[:cut])


def test_efficiency_classes_are_counted() -> None:
    def record(relation: int, efficiency: int) -> bytes:
        return relation.to_bytes(4, "little") + (48).to_bytes(4, "little") + bytes((1, efficiency)) + bytes(38)

    assert efficiency_classes(record(0, 1) + record(0, 1) + record(3, 9) + record(0, 0)) == [1, 1, 0]
    assert efficiency_classes(b"\0" * 20) == []


@pytest.mark.parametrize("garbage", [None, 3, "x", [], [3], {}, {"name": []}, [{"vendor_id": "x"}], [{"name": None}]])
@pytest.mark.parametrize("query", ["dxgi", "processors", "memory", "smbios", PROCESSOR, "display", VERSION])
def test_garbage_from_any_call_is_survived(query: str, garbage: object) -> None:
    machine = machine_of(**{query: garbage})
    assert machine.os == "windows"
