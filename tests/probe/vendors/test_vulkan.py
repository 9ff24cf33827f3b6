"""Vulkan's heaps, asked where nothing else found a GPU."""

from __future__ import annotations

from fitcheck.probe import probe
from fitcheck.probe.capture import CaptureHost
from fitcheck.probe.vulkan import probe_vulkan
from fitcheck.types import Backend

TEXT = """
Devices:
========
GPU0:
VkPhysicalDeviceProperties:
---------------------------
\tapiVersion        = 1.4.318
\tvendorID          = 0x1002
\tdeviceID          = 0x15bf
\tdeviceType        = PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU
\tdeviceName        = AMD Radeon 780M (RADV PHOENIX)
VkPhysicalDeviceMemoryProperties:
=================================
memoryHeaps: count = 2
\tmemoryHeaps[0]:
\t\tsize   = 11408506880 (0x2a8000000) (10.62 GiB)
\t\tbudget = 10000000000 (0x2540be400) (9.31 GiB)
\t\tflags:
\t\t\tNone
\tmemoryHeaps[1]:
\t\tsize   = 22817013760 (0x550000000) (21.25 GiB)
\t\tflags: count = 1
\t\t\tMEMORY_HEAP_DEVICE_LOCAL_BIT
memoryTypes: count = 11
GPU1:
VkPhysicalDeviceProperties:
---------------------------
\tvendorID          = 0x10005
\tdeviceID          = 0x0000
\tdeviceType        = PHYSICAL_DEVICE_TYPE_CPU
\tdeviceName        = llvmpipe (LLVM 17.0.6, 256 bits)
VkPhysicalDeviceMemoryProperties:
=================================
memoryHeaps: count = 1
\tmemoryHeaps[0]:
\t\tsize   = 33000000000 (0x7aef40a00) (30.73 GiB)
\t\tflags: count = 1
\t\t\tMEMORY_HEAP_DEVICE_LOCAL_BIT
"""


def test_heaps_are_summed_on_a_chip_and_software_is_left_out() -> None:
    (card,) = probe_vulkan(CaptureHost({}, os_name="linux", commands={"vulkaninfo": TEXT})).accelerators
    assert (card.catalog_name, card.unified, card.backends) == ("AMD Radeon 780M", True, (Backend.VULKAN,))
    assert card.pool.total_bytes == 11408506880 + 22817013760


def test_a_discrete_card_has_its_local_heap_only() -> None:
    text = TEXT.replace("INTEGRATED_GPU", "DISCRETE_GPU").replace("0x15bf", "0x73bf")
    text = text.replace("AMD Radeon 780M (RADV PHOENIX)", "AMD Radeon RX 6900 XT (RADV NAVI21)")
    (card,) = probe_vulkan(CaptureHost({}, os_name="linux", commands={"vulkaninfo": text})).accelerators
    assert card.pool.total_bytes == 22817013760 and not card.unified


def test_it_is_asked_only_where_no_other_part_found_a_gpu_that_works() -> None:
    device = "/sys/class/drm/card0/device"
    files = {
        f"{device}/uevent": b"DRIVER=amdgpu\nPCI_ID=1002:73BF\nPCI_SLOT_NAME=0000:03:00.0\n",
        f"{device}/mem_info_vram_total": b"17163091968\n",
    }
    machine = probe(CaptureHost(files, os_name="linux", commands={"vulkaninfo": TEXT}))
    assert [card.catalog_name for card in machine.accelerators] == ["AMD Radeon RX 6900 XT"]
    alone = probe(CaptureHost({}, os_name="linux", commands={"vulkaninfo": TEXT}))
    assert [card.catalog_name for card in alone.accelerators] == ["AMD Radeon 780M"]


def test_a_recorded_json_is_read() -> None:
    document = """{"capabilities": {"device": {
        "VkPhysicalDeviceProperties": {"deviceName": "Intel(R) Arc(TM) A380 Graphics", "deviceType": 2,
            "vendorID": 32902, "deviceID": 22181},
        "VkPhysicalDeviceMemoryProperties": {"memoryHeaps": [
            {"size": 6442450944, "flags": 1}, {"size": 8000000000, "flags": 0}]}
    }}}"""
    (card,) = probe_vulkan(
        CaptureHost({}, os_name="linux", attachments={"vulkaninfo.json": document.encode()})
    ).accelerators
    assert (card.catalog_name, card.pool.total_bytes) == ("Intel Arc A380", 6442450944)


def test_garbage_is_survived() -> None:
    for text in ("", "GPU0:", "GPU0:\n\tmemoryHeaps[0]:\n\t\tsize = x", TEXT.replace("size", "size = "), "\x00" * 100):
        probe_vulkan(CaptureHost({}, os_name="linux", commands={"vulkaninfo": text}))
