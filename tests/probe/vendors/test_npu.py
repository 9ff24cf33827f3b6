"""Neural processors are named and never counted."""

from __future__ import annotations

import pytest

from fitcheck.probe import probe
from fitcheck.probe.capture import CaptureHost


def pci(vendor: str, device: str, kind: str) -> dict[str, bytes]:
    folder = "/sys/bus/pci/devices/0000:00:0b.0"
    return {f"{folder}/{name}": f"0x{text}\n".encode() for name, text in
            (("vendor", vendor), ("device", device), ("class", kind))}  # fmt: skip


@pytest.mark.parametrize(
    ("vendor", "device", "kind", "name"),
    [
        ("8086", "643e", "120000", "Intel NPU (Lunar Lake)"),
        ("1022", "17f0", "118000", "AMD XDNA 2 NPU"),
        ("1e60", "2864", "120000", "Hailo-8"),
        ("abcd", "0001", "120000", "neural processor abcd:0001"),
    ],
)
def test_a_neural_processor_is_evidence_and_no_accelerator(vendor: str, device: str, kind: str, name: str) -> None:
    machine = probe(CaptureHost(pci(vendor, device, kind), os_name="linux"))
    assert machine.accelerators == ()
    assert any(item.what == "npu" and item.value.startswith(name) for item in machine.evidence)


def test_other_devices_are_not_mentioned() -> None:
    machine = probe(CaptureHost(pci("8086", "15f3", "020000"), os_name="linux"))
    assert not any(item.what == "npu" for item in machine.evidence)
