"""AMD: sysfs and KFD trees as kernels write them, and what ROCm's tools print."""

from __future__ import annotations

import json

import pytest

from fitcheck.probe.amd import probe_amd
from fitcheck.probe.capture import CaptureHost
from fitcheck.types import Accelerator, Backend, Origin

GIB = 1024**3
MEMINFO = b"MemTotal: 65000000 kB\nMemFree: 50000000 kB\nMemAvailable: 60000000 kB\n"


def card_files(number: int, pci_id: str, address: str, **attributes: str) -> dict[str, bytes]:
    device = f"/sys/class/drm/card{number}/device"
    files = {f"{device}/{name}": f"{value}\n".encode() for name, value in attributes.items() if name != "driver"}
    driver = attributes.get("driver", "amdgpu")
    files[f"{device}/uevent"] = f"DRIVER={driver}\nPCI_ID={pci_id.upper()}\nPCI_SLOT_NAME={address}\n".encode()
    return files


def node_files(number: int, memory: int, width: int, clock: int, **properties: int) -> dict[str, bytes]:
    folder = f"/sys/class/kfd/kfd/topology/nodes/{number}"
    values = {"simd_per_cu": 4, "vendor_id": 0x1002, "domain": 0, **properties}
    return {
        f"{folder}/properties": "".join(f"{name} {value}\n" for name, value in values.items()).encode(),
        f"{folder}/mem_banks/0/properties": (
            f"heap_type 1\nsize_in_bytes {memory}\nflags 0\nwidth {width}\nmem_clk_max {clock}\n".encode()
        ),
    }


def cards_of(files: dict[str, bytes], **more: object) -> tuple[Accelerator, ...]:
    return probe_amd(CaptureHost(files, os_name="linux", **more)).accelerators  # type: ignore[arg-type]


def rate_of(card: Accelerator) -> tuple[float, Origin]:
    assert card.pool.bandwidth is not None
    return card.pool.bandwidth.per_s / 1e9, card.pool.bandwidth.origin


def test_a_card_is_read_from_sysfs() -> None:
    files = card_files(
        1,
        "1002:73bf",
        "0000:0b:00.0",
        revision="0xc0",
        mem_info_vram_total="17163091968",
        mem_info_vram_used="668274688",
        pp_dpm_mclk="0: 96Mhz \n1: 1000Mhz *",
        max_link_speed="16.0 GT/s PCIe",
        max_link_width="16",
    )
    (card,) = cards_of(files)
    assert (card.name, card.gfx_target, card.unified, card.usable) == ("AMD Radeon RX 6900 XT", "gfx1030", False, True)
    assert (card.pool.total_bytes, card.pool.usable_bytes) == (17163091968, 17163091968 - 668274688)
    assert rate_of(card) == (512.0, Origin.REPORTED)
    assert card.backends == (Backend.ROCM, Backend.VULKAN)
    assert card.link is not None and (card.link.generation, card.link.width) == (4, 16)


@pytest.mark.parametrize(
    ("revision", "vram_gib", "name"),
    [("c8", 24, "XTX"), ("cc", 20, "XT"), ("ce", 16, "GRE"), (None, 24, "XTX"), (None, 20, "XT"), (None, 16, "GRE")],
)
def test_revision_or_memory_tell_apart_cards_of_one_chip(revision: str | None, vram_gib: int, name: str) -> None:
    attributes = {"mem_info_vram_total": str(vram_gib * GIB - 2**24)}
    if revision:
        attributes["revision"] = f"0x{revision}"
    (card,) = cards_of(card_files(0, "1002:744c", "0000:03:00.0", **attributes))
    assert card.name == f"AMD Radeon RX 7900 {name}"


def test_libdrms_names_come_first() -> None:
    files = card_files(0, "1002:744c", "0000:03:00.0", revision="0xc8", mem_info_vram_total=str(24 * GIB))
    files["/usr/share/libdrm/amdgpu.ids"] = b"# comment\n1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n"
    assert cards_of(files)[0].name == "AMD Radeon RX 7900 XTX"


def test_an_apu_joins_carve_out_and_gtt_up_to_the_free_ram() -> None:
    files = card_files(
        1,
        "1002:1586",
        "0000:c5:00.0",
        revision="0xc1",
        mem_info_vram_total=str(GIB // 2),
        mem_info_vram_used=str(GIB // 4),
        mem_info_gtt_total=str(64 * GIB),
        pp_dpm_mclk="0: 400Mhz \n1: 1000Mhz *",
    ) | {"/proc/meminfo": MEMINFO}
    (card,) = cards_of(files)
    assert (card.name, card.unified) == ("AMD Radeon 8060S", True)
    assert card.pool.total_bytes == 64 * GIB + GIB // 2
    assert card.pool.usable_bytes == GIB // 4 + 60000000 * 1024
    assert rate_of(card) == (256.0, Origin.REPORTED)


def test_ddr5_modules_beside_an_apu_are_not_taken_for_soldered_memory() -> None:
    files = card_files(
        0, "1002:15bf", "0000:c5:00.0", mem_info_vram_total=str(4 * GIB), pp_dpm_mclk="0: 1000Mhz \n1: 2800Mhz *"
    ) | {"/proc/meminfo": MEMINFO}
    assert rate_of(cards_of(files)[0]) == (pytest.approx(89.6), Origin.REPORTED)


def test_compute_units_tell_apart_the_gpus_of_one_chip() -> None:
    kfd = node_files(
        1,
        31433977856,
        128,
        1000,
        simd_count=24,
        simd_per_cu=2,
        gfx_target_version=110500,
        device_id=0x150E,
        location_id=0x400,
    )
    (card,) = cards_of(card_files(1, "1002:150e", "0000:04:00.0", mem_info_vram_total=str(GIB // 2)) | kfd)
    assert (card.name, card.cores, card.gfx_target) == ("AMD Radeon 880M", 12, "gfx1150")


def test_partitions_are_devices_with_their_share() -> None:
    files: dict[str, bytes] = {}
    for number in range(4):
        files |= node_files(
            number + 2,
            48 * GIB,
            8192,
            1300,
            simd_count=80,
            gfx_target_version=90402,
            device_id=0x74A2,
            location_id=2560 + number,
        )
    cards = cards_of(files)
    assert len(cards) == 4
    assert {card.partition for card in cards} == {"1/4"}
    assert {card.pool.total_bytes for card in cards} == {48 * GIB}
    assert sum(rate_of(card)[0] for card in cards) == pytest.approx(5325, rel=0.001)


def test_partitions_of_a_card_bear_their_mode_and_share_what_is_in_use() -> None:
    files = card_files(
        1,
        "1002:74a1",
        "0000:0a:00.0",
        mem_info_vram_total=str(192 * GIB),
        mem_info_vram_used=str(8 * GIB),
        current_compute_partition="CPX",
        current_memory_partition="NPS4",
    )
    for number in range(8):
        files |= node_files(
            number + 2,
            24 * GIB,
            8192,
            1300,
            simd_count=152,
            gfx_target_version=90402,
            device_id=0x74A1,
            location_id=(0x0A << 8) + number,
        )
    cards = cards_of(files)
    assert [(card.catalog_name, card.partition, card.cores) for card in cards] == [
        ("AMD Instinct MI300X", "CPX/NPS4", 38)
    ] * 8
    assert {(card.pool.total_bytes, card.pool.free_bytes) for card in cards} == {(24 * GIB, 23 * GIB)}
    assert sum(rate_of(card)[0] for card in cards) == pytest.approx(5325, rel=0.001)


def test_two_cards_at_two_addresses_are_not_partitions() -> None:
    files = {}
    for number, bus in ((1, 0x19), (2, 0x1A)):
        files |= node_files(number, 16 * GIB, 2048, 945, simd_count=256, device_id=0x6860, location_id=bus << 8)
    cards = cards_of(files)
    assert [(card.partition, card.cores) for card in cards] == [(None, 64), (None, 64)]
    assert rate_of(cards[0])[0] == pytest.approx(484, rel=0.001)


def test_an_unknown_card_works_from_what_the_kernel_says() -> None:
    kfd = node_files(
        1,
        32 * GIB,
        256,
        1500,
        simd_count=128,
        simd_per_cu=2,
        gfx_target_version=120001,
        device_id=0xFFFE,
        location_id=0x300,
    )
    files = card_files(0, "1002:fffe", "0000:03:00.0", mem_info_vram_total=str(32 * GIB)) | kfd
    found = probe_amd(CaptureHost(files, os_name="linux"))
    (card,) = found.accelerators
    assert card.catalog_name is None and card.usable and card.pool.total_bytes == 32 * GIB
    assert rate_of(card) == (768.0, Origin.REPORTED)
    assert card.backends[0] is Backend.ROCM
    assert any("not in the table" in problem.message for problem in found.problems)


def test_a_card_under_the_radeon_driver_is_shown_and_not_counted() -> None:
    found = probe_amd(CaptureHost(card_files(0, "1002:6818", "0000:01:00.0", driver="radeon"), os_name="linux"))
    assert [card.usable for card in found.accelerators] == [False]
    assert "amdgpu.si_support=1" in found.problems[0].hint


def test_a_card_that_is_not_passed_into_the_container_is_not_counted() -> None:
    files = card_files(0, "1002:73bf", "0000:0b:00.0", mem_info_vram_total=str(16 * GIB))
    outside = probe_amd(CaptureHost(files, os_name="linux", present=["/dev/null"]))
    assert not outside.accelerators[0].usable and "--device /dev/dri" in outside.problems[0].hint
    inside = probe_amd(CaptureHost(files, os_name="linux", present=["/dev/null", "/dev/dri/renderD128"]))
    assert inside.accelerators[0].usable


def test_a_card_of_a_virtual_machine_is_not_counted() -> None:
    (card,) = cards_of(card_files(0, "1002:73bf", "0000:0b:00.0", driver="vfio-pci"))
    assert not card.usable


def test_a_two_unit_gpu_beside_the_processor_is_not_counted() -> None:
    (card,) = cards_of(card_files(0, "1002:164e", "0000:10:00.0", mem_info_vram_total=str(GIB // 2)))
    assert (card.catalog_name, card.usable, card.backends) == ("AMD Radeon 610M", False, ())


ROCM_SMI = {
    "card0": {
        "Device ID": "0x73df",
        "Device Rev": "0xc1",
        "VRAM Total Memory (B)": "12868124672",
        "VRAM Total Used Memory (B)": "1572757504",
        "Card Series": "Navi 22 [Radeon RX 6700/6700 XT / 6800M]",
    },
    "system": {"Driver version": "6.3.6"},
}


def test_rocm_smi_is_read_where_the_kernel_is_silent() -> None:
    text = "WARNING: AMD GPU device(s) is/are in a low-power state.\n" + json.dumps(ROCM_SMI)
    command = "rocm-smi --showproductname --showmeminfo vram gtt --json"
    (card,) = cards_of({}, commands={command: text})
    assert card.catalog_name == "AMD Radeon RX 6700 XT"
    assert card.pool.usable_bytes == 12868124672 - 1572757504


def test_a_list_in_brackets_names_the_candidates() -> None:
    values = dict(ROCM_SMI["card0"])
    del values["Device Rev"]
    command = "rocm-smi --showproductname --showmeminfo vram gtt --json"
    (card,) = cards_of({}, commands={command: json.dumps({"card0": values})})
    assert card.catalog_name == "AMD Radeon RX 6700 XT"


def test_refused_access_to_kfd_names_the_groups() -> None:
    host = CaptureHost(
        card_files(0, "1002:73bf", "0000:0b:00.0", mem_info_vram_total=str(16 * GIB)),
        os_name="linux",
        present=["/dev/kfd"],
        denied={"/dev/kfd": "permission denied"},
    )
    assert any("render,video" in problem.hint for problem in probe_amd(host).problems)


def test_the_users_override_of_the_target_is_shown() -> None:
    host = CaptureHost(
        card_files(0, "1002:73bf", "0000:0b:00.0"), os_name="linux", variables={"HSA_OVERRIDE_GFX_VERSION": "10.3.0"}
    )
    assert any(item.value == "10.3.0" for item in probe_amd(host).evidence)


@pytest.mark.parametrize("garbage", [b"", b"\0\0", b"-5\n", b"999999999999999999999999\n", b"\xff\xfe\n", b"0x\n"])
def test_garbage_in_every_file_is_survived(garbage: bytes) -> None:
    kfd = node_files(1, 1, 1, 1, simd_count=4, device_id=1, location_id=1)
    names = ("mem_info_vram_total", "mem_info_vram_used", "pp_dpm_mclk", "revision", "max_link_speed", "max_link_width")
    files = card_files(0, "1002:744c", "0000:03:00.0", **dict.fromkeys(names, "")) | kfd
    for broken in files:
        assert cards_of(files | {broken: garbage}) is not None
