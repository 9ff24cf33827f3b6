"""Neural processors: named, because people ask, and not counted, because the engines do not compute on them."""

from __future__ import annotations

from fitcheck.probe.host import Found, Host, to_int
from fitcheck.types import Evidence

_PCI = "/sys/bus/pci/devices"
_PROCESSING_ACCELERATOR = "0x1200"

#: Neural processors by PCI id; AMD's are listed as signal processors, so only the id tells.
_NAMES = {
    "8086:7d1d": "Intel NPU (Meteor Lake)",
    "8086:ad1d": "Intel NPU (Arrow Lake)",
    "8086:643e": "Intel NPU (Lunar Lake)",
    "8086:b03e": "Intel NPU (Panther Lake)",
    "1022:1502": "AMD XDNA NPU (Phoenix, Hawk Point)",
    "1022:17f0": "AMD XDNA 2 NPU (Strix, Krackan)",
    "1e60:2864": "Hailo-8",
    "1e60:45c4": "Hailo-10H",
    "1ac1:089a": "Coral Edge TPU",
    "1da3:1000": "Intel Gaudi",
    "1da3:1020": "Intel Gaudi 2",
    "1da3:1060": "Intel Gaudi 3",
}


def probe_npu(host: Host) -> Found:
    """What sits on the PCI bus and is no GPU: as evidence only."""
    found = []
    for address in host.list_dir(_PCI)[:2048]:
        vendor, device = (_id(host, address, name) for name in ("vendor", "device"))
        kind = (host.read_text(f"{_PCI}/{address}/class", 64) or "").strip()
        name = _NAMES.get(f"{vendor}:{device}")
        if name or kind.startswith(_PROCESSING_ACCELERATOR):
            shown = name or f"neural processor {vendor}:{device}"
            found.append(Evidence("npu", f"{shown}, not counted: no engine computes on it", f"PCI {address}"))
    return Found(evidence=tuple(found))


def _id(host: Host, address: str, name: str) -> str:
    number = to_int((host.read_text(f"{_PCI}/{address}/{name}", 64) or "").strip(), 16)
    return f"{number or 0:04x}"
