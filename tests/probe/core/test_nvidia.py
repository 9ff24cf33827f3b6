"""NVIDIA cards are seen as a program started here would see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitcheck.probe.capture import CaptureHost, replay
from fitcheck.probe.nvidia import probe_nvidia
from fitcheck.probe.nvidia.smi import pci_id, read_csv, read_list, read_table, read_xml
from fitcheck.types import Machine, Origin
from fitcheck.units import GIB, MIB

CAPTURES = Path(__file__).parents[2] / "captures"


def hints(machine: Machine) -> str:
    return " ".join(f"{problem.message} {problem.hint}" for problem in machine.problems if problem.part == "nvidia")


def test_bandwidth_is_twice_the_clock_times_the_bus() -> None:
    card = replay(CAPTURES / "desktop-hybrid-rtx4090").accelerators[0]
    assert card.pool.bandwidth is not None
    assert card.pool.bandwidth.per_s == pytest.approx(1008e9, rel=0.001)
    assert card.pool.bandwidth.origin is Origin.REPORTED
    assert (card.pool.total_bytes, card.pool.usable_bytes) == (24564 * MIB, 25000000000)
    assert (card.catalog_name, card.compute_capability) == ("NVIDIA GeForce RTX 4090", "8.9")
    assert card.link is not None
    assert (card.link.kind, card.link.generation, card.link.width) == ("pcie", 4, 16)


def test_a_chip_that_hides_its_memory_uses_that_of_the_system() -> None:
    machine = replay(CAPTURES / "dgx-spark")
    card = machine.accelerators[0]
    assert card.unified
    assert card.pool.total_bytes == machine.ram.total_bytes
    assert card.pool.bandwidth is not None
    assert card.pool.bandwidth.per_s == pytest.approx(273e9, rel=0.01)
    assert machine.ram.bandwidth is not None
    assert machine.ram.bandwidth.per_s == card.pool.bandwidth.per_s


def test_a_jetson_is_told_apart_by_board_and_memory() -> None:
    machine = replay(CAPTURES / "jetson-orin-nx")
    card = machine.accelerators[0]
    assert (card.name, card.unified, card.driver) == ("Jetson Orin NX 16GB", True, "L4T 36")
    assert card.pool.usable_bytes == machine.ram.usable_bytes


def test_one_mig_instance_can_be_used() -> None:
    machine = replay(CAPTURES / "nvidia-mig")
    usable = [card for card in machine.accelerators if card.usable]
    assert [card.partition for card in usable] == ["3g.40gb"]
    assert usable[0].pool.total_bytes == 42412802048
    assert usable[0].pool.bandwidth is not None
    assert usable[0].pool.bandwidth.per_s == pytest.approx(2039e9 / 2, rel=0.01)  # four of eight memory slices
    assert "MIG-00000000-0000-0000-0000-000000000002" in hints(machine)


def test_a_virtual_gpu_has_its_slice_of_memory_and_its_profile() -> None:
    card = replay(CAPTURES / "nvidia-vgpu").accelerators[0]
    assert (card.partition, card.pool.total_bytes, card.catalog_name) == ("24Q", 24 * GIB, "NVIDIA A40")


def test_cards_hidden_by_the_environment_are_shown_and_not_counted() -> None:
    machine = replay(CAPTURES / "nvidia-two-cards")
    assert [(card.name, card.usable) for card in machine.accelerators] == [
        ("NVIDIA GeForce RTX 4090", True),  # number 0 is the fastest card, not the first on the bus
        ("NVIDIA GeForce RTX 3060", False),
    ]
    assert "CUDA_VISIBLE_DEVICES=0" in hints(machine)


@pytest.mark.parametrize(
    ("value", "order", "expected"),
    [
        ("", None, set()),
        ("-1", None, set()),
        ("1,0", None, {"NVIDIA GeForce RTX 3060", "NVIDIA GeForce RTX 4090"}),
        ("0", "PCI_BUS_ID", {"NVIDIA GeForce RTX 3060"}),
        ("0,7,1", "PCI_BUS_ID", {"NVIDIA GeForce RTX 3060"}),  # everything after an unknown number is ignored
        ("GPU-2222", None, {"NVIDIA GeForce RTX 4090"}),
        ("GPU-", None, set()),  # fits both
    ],
)
def test_cuda_visible_devices(value: str, order: str | None, expected: set[str]) -> None:
    host = CaptureHost.open(CAPTURES / "nvidia-two-cards")
    reply = host.query("nvml")
    variables = {"CUDA_VISIBLE_DEVICES": value, **({"CUDA_DEVICE_ORDER": order} if order else {})}
    found = probe_nvidia(CaptureHost({}, queries={"nvml": reply}, variables=variables))
    assert {card.name for card in found.accelerators if card.usable} == expected


@pytest.mark.parametrize(
    ("slug", "words"),
    [
        ("nvidia-nouveau", "install NVIDIA's own driver"),
        ("nvidia-vfio", "vfio-pci"),
        ("nvidia-container-without-card", "--gpus all"),
        ("nvidia-driver-mismatch", "restart the machine"),
    ],
)
def test_a_card_without_a_working_driver_is_shown_with_the_next_step(slug: str, words: str) -> None:
    machine = replay(CAPTURES / slug)
    card = machine.accelerators[0]
    assert not card.usable
    assert card.pool.usable_bytes == 0
    assert card.name.startswith("NVIDIA GeForce RTX")
    assert words in hints(machine)


def test_wsl2_takes_the_bus_from_the_table_where_the_driver_does_not_tell_clocks() -> None:
    machine = replay(CAPTURES / "wsl2-nvidia")
    assert machine.environment == "wsl2"
    card = machine.accelerators[0]
    assert card.pool.bandwidth is not None
    assert (card.pool.bandwidth.per_s, card.pool.bandwidth.origin) == (256e9, Origin.CATALOG)
    assert card.form == "laptop"


def test_an_unknown_card_works_by_what_its_driver_says() -> None:
    reply = {"cards": [{"name": "NVIDIA Quux 9000", "total_bytes": 32 * GIB, "bus_bits": 512, "memory_mhz": 10000}]}
    found = probe_nvidia(CaptureHost({}, queries={"nvml": reply}))
    card = found.accelerators[0]
    assert card.catalog_name is None
    assert card.pool.bandwidth is not None
    assert card.pool.bandwidth.per_s == 1280e9
    assert "not in the table" in found.problems[0].message


def test_old_drivers_answer_the_short_question() -> None:
    card = replay(CAPTURES / "nvidia-old-driver").accelerators[0]
    assert (card.name, card.pool.total_bytes) == ("GeForce GTX 1070", 8119 * MIB)
    assert card.pool.bandwidth is not None
    assert card.pool.bandwidth.per_s == pytest.approx(256.3e9, rel=0.01)


@pytest.mark.parametrize("field", ["[N/A]", "[Not Supported]", "[GPU is lost]", "ERR!", "", "Requested functionality"])
def test_fields_that_are_no_numbers_are_unknown(field: str) -> None:
    card = read_csv(f"name, memory.total [MiB]\nNVIDIA X, {field}\n")[0]
    assert card.total_bytes is None


def test_csv_that_is_an_error_message_has_no_cards() -> None:
    assert read_csv('Field "compute_cap" is not a valid field to query.\n\n') == ()


XML = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log><driver_version>550.1</driver_version>
<gpu id="00000000:01:00.0"><product_name>NVIDIA A100-SXM4-80GB</product_name>
<mig_mode><current_mig>Enabled</current_mig></mig_mode>
<mig_devices><mig_device><device_attributes><shared><multiprocessor_count>14</multiprocessor_count></shared>
</device_attributes><fb_memory_usage><total>9728 MiB</total><free>9715 MiB</free></fb_memory_usage></mig_device>
</mig_devices><pci><pci_device_id>20B210DE</pci_device_id></pci>
<fb_memory_usage><total>81920 MiB</total><free>81000 MiB</free></fb_memory_usage>
<max_clocks><mem_clock>1593 MHz</mem_clock></max_clocks></gpu></nvidia_smi_log>"""


def test_xml_tells_cards_and_their_instances() -> None:
    card = read_xml(XML)[0]
    assert (card.name, card.pci_id, card.memory_mhz, card.mig) == ("NVIDIA A100-SXM4-80GB", "10de:20b2", 1593, True)
    assert card.instances[0].total_bytes == 9728 * MIB


@pytest.mark.parametrize("text", [XML[:300], "<!ENTITY a 'b'>" + XML, "NVIDIA-SMI has failed", "<gpu>", "\x00<gpu>"])
def test_broken_xml_has_no_cards(text: str) -> None:
    assert read_xml(text) == ()


def test_instances_are_listed_by_card() -> None:
    listed = read_list(
        "GPU 0: NVIDIA H100 (UUID: GPU-0)\n  MIG 1g.10gb     Device  0: (UUID: MIG-0)\n"
        "GPU 1: NVIDIA H100 (UUID: GPU-1)\n"
    )
    assert [instance.profile for instance in listed[0]] == ["1g.10gb"]
    tabled = read_table("MIG devices:\n|  1    2   0   0  |      26MiB / 40448MiB    | 60      0 |\n")
    assert (tabled[1][0].total_bytes, tabled[1][0].multiprocessors) == (40448 * MIB, 60)


@pytest.mark.parametrize(
    ("device", "expected"), [("0x268410DE", "10de:2684"), ("248710DE", "10de:2487"), (0x20B210DE, "10de:20b2")]
)
def test_pci_ids(device: str | int, expected: str) -> None:
    assert pci_id(device) == expected


@pytest.mark.parametrize("device", ["[REDACTED]", "", None, "FFFFFFFFFF", 0])
def test_no_pci_id(device: str | int | None) -> None:
    assert pci_id(device) is None


def test_a_card_that_fell_off_the_bus_is_told() -> None:
    found = probe_nvidia(CaptureHost({}, queries={"nvml": {"cards": [{"index": 0, "error": "GPU is lost"}]}}))
    assert not any(card.usable for card in found.accelerators)
    assert "does not answer" in found.problems[0].message


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "modprobe"),
        ("Failed to initialize NVML: Driver/library version mismatch", "restart"),
        ("NVIDIA-SMI has failed for reasons of its own", "nvidia-smi"),
    ],
)
def test_what_the_tool_says_when_it_fails_becomes_a_hint(words: str, hint: str) -> None:
    files = {"/proc/driver/nvidia/version": b"NVRM version: 550"}
    by_capture = CaptureHost(files, attachments={"nvidia-smi.txt": words.encode()})
    by_status = CaptureHost(files, denied={"nvidia-smi": f"exit 9: {words}"})
    for host in (by_capture, by_status):
        assert hint in probe_nvidia(host).problems[0].hint


def test_wsl2_without_the_library_does_not_claim_a_card_of_nvidia() -> None:
    host = CaptureHost({"/dev/dxg": b""}, queries={"nvml": {"error": 12, "message": "not installed"}})
    found = probe_nvidia(host)
    assert found.accelerators == ()
    assert found.problems[0].hint.startswith("if the card is NVIDIA's")
