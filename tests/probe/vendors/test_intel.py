"""Intel: Arc cards and processors' GPUs as the drivers xe and i915 show them."""

from __future__ import annotations

import ctypes
import json
import struct

import pytest

from fitcheck.probe.capture import CaptureHost
from fitcheck.probe.host import LiveHost
from fitcheck.probe.intel import probe_intel
from fitcheck.probe.intel_calls import Ioctl, local_regions
from fitcheck.types import Accelerator, Backend

GIB = 1024**3
DEVICE = "/sys/class/drm/card1/device"
MEMINFO = b"MemTotal: 32000000 kB\nMemFree: 20000000 kB\nMemAvailable: 28000000 kB\n"


def files_of(pci_id: str, driver: str = "xe", **attributes: str) -> dict[str, bytes]:
    uevent = f"DRIVER={driver}\nPCI_ID={pci_id.upper()}\nPCI_SLOT_NAME=0000:03:00.0\n".encode()
    return {f"{DEVICE}/uevent": uevent} | {f"{DEVICE}/{name}": text.encode() for name, text in attributes.items()}


def card_of(files: dict[str, bytes], **more: object) -> Accelerator:
    (card,) = probe_intel(CaptureHost(files, os_name="linux", **more)).accelerators  # type: ignore[arg-type]
    return card


def test_a_card_gets_its_memory_from_the_table_where_the_kernel_is_silent() -> None:
    card = card_of(files_of("8086:e20b"))
    assert (card.name, card.unified, card.pool.total_bytes) == ("Intel Arc B580", False, 12 * GIB)
    assert card.pool.bandwidth is not None and card.pool.bandwidth.per_s == 456e9
    assert card.backends == (Backend.VULKAN, Backend.SYCL)


def test_newer_kernels_tell_the_memory_per_tile() -> None:
    files = files_of("8086:e20b")
    for tile in (0, 1):
        files[f"{DEVICE}/tile{tile}/physical_vram_size_bytes"] = b"6000000000\n"
    assert card_of(files).pool.total_bytes == 12_000_000_000


def test_i915_tells_the_memory_of_the_card() -> None:
    files = files_of("8086:56a0", driver="i915") | {"/sys/class/drm/card1/lmem_total_bytes": b"17095983104\n"}
    card = card_of(files)
    assert (card.name, card.pool.total_bytes) == ("Intel Arc A770", 17095983104)


def test_the_8_gib_version_is_told_apart_by_its_memory() -> None:
    files = files_of("8086:56a0", driver="i915") | {"/sys/class/drm/card1/lmem_total_bytes": b"8547991552\n"}
    card = card_of(files)
    assert card.name == "Intel Arc A770 8GB"
    assert card.pool.bandwidth is not None and card.pool.bandwidth.per_s == 512e9


def test_the_internal_bridge_of_arc_cards_is_not_taken_for_their_link() -> None:
    card = card_of(files_of("8086:56a0", max_link_speed="2.5 GT/s PCIe", max_link_width="1"))
    assert card.link is not None and (card.link.generation, card.link.width) == (4, 16)


def test_a_processors_gpu_uses_a_part_of_the_ram() -> None:
    card = card_of(files_of("8086:64a0") | {"/proc/meminfo": MEMINFO})
    assert (card.name, card.unified) == ("Intel Arc 140V", True)
    assert card.pool.total_bytes == 32000000 * 1024 * 3 // 4
    assert card.pool.usable_bytes <= 28000000 * 1024


def test_an_old_gpu_on_the_processor_is_named_and_not_counted() -> None:
    card = card_of(files_of("8086:9b41", driver="i915") | {"/proc/meminfo": MEMINFO})
    assert (card.name, card.usable, card.backends, card.pool.usable_bytes) == ("Intel UHD Graphics", False, (), 0)


def test_an_unknown_card_asks_clinfo() -> None:
    document = {"devices": [{"online": [{"CL_DEVICE_GLOBAL_MEM_SIZE": 16225243136}]}]}
    files = files_of("8086:fffe") | {f"{DEVICE}/tile0/physical_vram_size_bytes": b"garbage"}
    card = card_of(files | {"/proc/meminfo": MEMINFO}, commands={"clinfo --json": json.dumps(document)})
    assert card.catalog_name is None and card.usable


def test_a_card_on_the_bus_without_a_driver_is_not_counted() -> None:
    folder = "/sys/bus/pci/devices/0000:03:00.0"
    texts = {"vendor": "0x8086", "device": "0xe20b", "class": "0x030000", "uevent": "PCI_ID=8086:E20B"}
    found = probe_intel(
        CaptureHost({f"{folder}/{name}": text.encode() for name, text in texts.items()}, os_name="linux")
    )
    assert [card.usable for card in found.accelerators] == [False]
    assert "no kernel driver" in found.problems[0].message


def test_a_render_node_that_this_user_may_not_open_names_the_groups() -> None:
    node = "/dev/dri/renderD128"
    host = CaptureHost(files_of("8086:e20b"), os_name="linux", present=[node], denied={node: "permission denied"})
    (problem,) = probe_intel(host).problems
    assert node in problem.message and "render,video" in problem.hint


@pytest.mark.parametrize("garbage", [b"", b"\xff\0", b"-1", b"99999999999999999999999999"])
def test_garbage_is_survived(garbage: bytes) -> None:
    files = files_of("8086:e20b", **{"tile0/physical_vram_size_bytes": "1", "max_link_speed": "1", "revision": "1"})
    for broken in files:
        probe_intel(CaptureHost(files | {broken: garbage}, os_name="linux"))


def test_older_kernels_tell_the_memory_through_the_render_node() -> None:
    files = files_of("8086:56a0", driver="i915", **{"drm/renderD129/dev": "226:129"})
    queries = {"local_memory i915 /dev/dri/renderD129": {"bytes": 8547991552}}
    card = card_of(files, queries=queries)
    assert (card.name, card.pool.total_bytes) == ("Intel Arc A770 8GB", 8547991552)


def test_a_processors_gpu_is_not_asked_for_memory_of_its_own() -> None:
    files = files_of("8086:64a0", **{"drm/renderD128/dev": "226:128"}) | {"/proc/meminfo": MEMINFO}
    assert card_of(files, queries={"local_memory xe /dev/dri/renderD128": {"bytes": 12 * GIB}}).unified


REGIONS = ((0, 32 * GIB), (1, 6 * GIB), (1, 5 * GIB))  # class (1: the card's own), bytes


def kernel(driver: str, regions: tuple[tuple[int, int], ...] = REGIONS) -> Ioctl:
    """Answers as the driver does: the length of the list to who brings no room for it, then the list."""
    header = struct.pack("<IIII" if driver == "i915" else "<II", len(regions), *([0] * (3 if driver == "i915" else 1)))
    listed = header + b"".join(struct.pack("<HHIQ", kind, 0, 4096, size) + bytes(72) for kind, size in regions)

    def ioctl(request: int, argument: bytearray) -> None:
        if driver == "xe":
            assert request == 3223872576 and len(argument) == 40
            _, query, room, place = struct.unpack_from("<QIIQ", argument)
            assert query == 1
            struct.pack_into("<I", argument, 12, len(listed))
        else:
            assert request == 3222299769 and len(argument) == 16
            items, _, item = struct.unpack_from("<IIQ", argument)
            assert items == 1
            query, room, _, place = struct.unpack("<QiIQ", ctypes.string_at(item, 24))
            assert query == 4
            ctypes.memmove(item + 8, struct.pack("<i", len(listed)), 4)
        if room:
            ctypes.memmove(place, listed, min(room, len(listed)))

    return ioctl


@pytest.mark.parametrize("driver", ["xe", "i915"])
def test_only_the_cards_own_memory_counts(driver: str) -> None:
    assert list(local_regions(driver, kernel(driver))) == [6 * GIB, 5 * GIB]
    assert list(local_regions(driver, kernel(driver, ((0, GIB),)))) == []


@pytest.mark.parametrize("driver", ["xe", "i915"])
def test_a_driver_that_does_not_know_the_question_is_survived(driver: str) -> None:
    def refuses(request: int, argument: bytearray) -> None:
        raise OSError(22, "Invalid argument")

    assert list(local_regions(driver, lambda request, argument: None)) == []
    with pytest.raises(OSError, match="Invalid"):
        list(local_regions(driver, refuses))
    assert LiveHost().query("local_memory", driver, "/dev/null") is None
