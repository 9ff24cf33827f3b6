"""--on: names become machines, ambiguous ones ask, and the real machine is never looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitcheck.errors import FitcheckError
from fitcheck.probe import probe
from fitcheck.probe.capture import CaptureHost
from fitcheck.probe.hardware import load_gpus
from fitcheck.probe.host import LiveHost
from fitcheck.probe.pretend import Tables, pretend
from fitcheck.types import Backend, Machine, Origin

GIB = 1024**3
TABLES = Tables()

#: What people type -> the row that it means; None: two cards share the name and fitcheck asks; "": no such thing.
SPELLINGS = {
    "RTX 4090": "NVIDIA GeForce RTX 4090", "rtx4090": "NVIDIA GeForce RTX 4090", "4090": "NVIDIA GeForce RTX 4090",
    "GeForce RTX 4090": "NVIDIA GeForce RTX 4090", "nvidia geforce rtx 4090": "NVIDIA GeForce RTX 4090",
    "RTX 4090 24GB": "NVIDIA GeForce RTX 4090", "NVIDIA RTX 4090": "NVIDIA GeForce RTX 4090",
    "RTX 4090 Founders Edition": "NVIDIA GeForce RTX 4090", "RTX-4090": "NVIDIA GeForce RTX 4090",
    "RTX 4090 laptop": "NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Mobile": "NVIDIA GeForce RTX 4090 Laptop GPU",
    "RTX 4090 Laptop GPU": "NVIDIA GeForce RTX 4090 Laptop GPU", "4070 laptop": "NVIDIA GeForce RTX 4070 Laptop GPU",
    "RTX 4090 48GB": "NVIDIA GeForce RTX 4090 48GB", "RTX 4090 Ti": "", "RTX 40900": "",
    "GTX 4090": "", "Radeon 4090": "", "GeForce 7900 XTX": "", "RTX": "", "potato": "",
    "3090": "NVIDIA GeForce RTX 3090", "RTX 3090 Ti": "NVIDIA GeForce RTX 3090 Ti",
    "3090ti": "NVIDIA GeForce RTX 3090 Ti", "RTX 3080": None, "RTX 3080 10GB": "NVIDIA GeForce RTX 3080",
    "RTX 3080 12GB": "NVIDIA GeForce RTX 3080 12GB", "rtx3080 12g": "NVIDIA GeForce RTX 3080 12GB",
    "NVIDIA GeForce RTX 3080": "NVIDIA GeForce RTX 3080", "RTX 3080 Ti": "NVIDIA GeForce RTX 3080 Ti",
    "RTX 3060": "NVIDIA GeForce RTX 3060", "RTX 3060 12GB": "NVIDIA GeForce RTX 3060",
    "RTX 3060 8GB": "NVIDIA GeForce RTX 3060 8GB", "RTX 3060 Ti": "NVIDIA GeForce RTX 3060 Ti",
    "RTX 4060 Ti": None, "RTX 4060 Ti 16GB": "NVIDIA GeForce RTX 4060 Ti 16GB",
    "4060ti 8gb": "NVIDIA GeForce RTX 4060 Ti", "RTX 4070": "NVIDIA GeForce RTX 4070",
    "4070 super": "NVIDIA GeForce RTX 4070 SUPER", "RTX 4070 Ti Super": "NVIDIA GeForce RTX 4070 Ti SUPER",
    "RTX 5060 Ti 8GB": "NVIDIA GeForce RTX 5060 Ti 8GB", "RTX 5070 Ti": "NVIDIA GeForce RTX 5070 Ti",
    "RTX 5090": "NVIDIA GeForce RTX 5090", "5090 laptop": "NVIDIA GeForce RTX 5090 Laptop GPU",
    "GTX 1060": None, "GTX 1060 3GB": "NVIDIA GeForce GTX 1060 3GB", "GTX 1080 Ti": "NVIDIA GeForce GTX 1080 Ti",
    "1080ti": "NVIDIA GeForce GTX 1080 Ti", "GTX 1650": None, "RTX 2070 laptop": "NVIDIA GeForce RTX 2070 Laptop",
    "RTX 2060": "NVIDIA GeForce RTX 2060", "RTX 2060 12GB": "NVIDIA GeForce RTX 2060 12GB",
    "Titan RTX": "NVIDIA TITAN RTX", "TITAN X": None, "Quadro RTX 6000": "Quadro RTX 6000", "RTX 6000": None,
    "RTX 6000 Ada": "NVIDIA RTX 6000 Ada Generation", "RTX A6000": "NVIDIA RTX A6000", "A6000": "NVIDIA RTX A6000",
    "RTX A1000": "NVIDIA RTX A1000", "A1000": "NVIDIA RTX A1000", "T400": "NVIDIA T400", "T4": "Tesla T4",
    "RTX PRO 6000": "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "P40": "Tesla P40",
    "Tesla P40": "Tesla P40", "P100": "Tesla P100-PCIE-16GB", "V100": None, "V100 32GB": "Tesla V100-SXM2-32GB",
    "A100": None, "A100 80GB": "NVIDIA A100-SXM4-80GB", "A100 40GB PCIe": "NVIDIA A100-PCIE-40GB",
    "A100-SXM4-80GB": "NVIDIA A100-SXM4-80GB", "H100": "NVIDIA H100 80GB HBM3", "H100 SXM": "NVIDIA H100 80GB HBM3",
    "H100 SXM5 80GB": "NVIDIA H100 80GB HBM3", "H100 PCIe": "NVIDIA H100 PCIe", "H100 NVL": "NVIDIA H100 NVL",
    "H200": "NVIDIA H200", "B200": "NVIDIA B200", "GH200": "NVIDIA GH200 480GB", "L40S": "NVIDIA L40S",
    "L4": "NVIDIA L4", "A10G": "NVIDIA A10G", "DGX Spark": "NVIDIA GB10", "GB10": "NVIDIA GB10",
    "Jetson AGX Orin 64GB": "Jetson AGX Orin 64GB", "Jetson Orin Nano 8GB": "Jetson Orin Nano 8GB",
    "Orin Nano Super": "Jetson Orin Nano Super 8GB", "Jetson Thor": "Jetson AGX Thor T5000",
    "RX 7900 XTX": "AMD Radeon RX 7900 XTX", "7900xtx": "AMD Radeon RX 7900 XTX",
    "Radeon RX 7900 XT": "AMD Radeon RX 7900 XT", "RX7900GRE": "AMD Radeon RX 7900 GRE",
    "9070 XT": "AMD Radeon RX 9070 XT",
    "RX 9060 XT": None, "RX 9060 XT 16GB": "AMD Radeon RX 9060 XT 16 GB", "RX 580": "AMD Radeon RX 580",
    "RX 580 4GB": "AMD Radeon RX 580 4GB", "Radeon VII": "AMD Radeon VII", "MI300X": "AMD Instinct MI300X",
    "MI50 32GB": "AMD Instinct MI50 32GB", "Instinct MI210": "AMD Instinct MI210", "W7900": "AMD Radeon PRO W7900",
    "Strix Halo": "AMD Radeon 8060S", "Ryzen AI Max+ 395 128GB": "AMD Radeon 8060S", "Radeon 8060S": "AMD Radeon 8060S",
    "Radeon 780M": "AMD Radeon 780M", "780M": "AMD Radeon 780M", "Steam Deck": "AMD Custom GPU 0405",
    "Arc B580": "Intel Arc B580", "B580": "Intel Arc B580", "Arc A770": "Intel Arc A770",
    "Arc A770 8GB": "Intel Arc A770 8GB", "Arc 140V": "Intel Arc 140V", "Arc Pro B60": "Intel Arc Pro B60",
    "M1": "Apple M1", "M2 Max": "Apple M2 Max", "M3 Ultra 512GB": "Apple M3 Ultra", "M4": "Apple M4", "M4 Max": None,
    "M4 Max 128GB": "Apple M4 Max", "M4 Max 36GB": "Apple M4 Max 32-core", "M4 Max 64 GB": "Apple M4 Max",
    "Apple M4 Max": "Apple M4 Max", "Apple M4 Max (32-core GPU)": "Apple M4 Max 32-core", "M3 Max": None,
    "Apple M1 (7-core GPU)": "Apple M1 7-core", "MacBook Pro M4 Max 128GB": "Apple M4 Max",
    "Mac Studio M3 Ultra 256GB": "Apple M3 Ultra", "Mac mini M4 16GB": "Apple M4", "M9": "", "M4 Mux": "",
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SPELLINGS.items())
def test_spellings_mean_what_people_mean_or_ask(text: str, expected: str | None) -> None:
    try:
        machine = pretend(text, tables=TABLES)
    except FitcheckError as error:
        assert {"ambiguous_hardware": None, "unknown_hardware": ""}[error.code] == expected, error.message
        assert expected is not None or "GB/s" in error.message
    else:
        assert [card.catalog_name for card in machine.accelerators] == [expected]


def test_a_hundred_spellings_are_held() -> None:
    assert len(SPELLINGS) >= 100


@pytest.mark.parametrize("name", [row.name for row in load_gpus()])
def test_every_row_is_pretended_by_its_own_name(name: str) -> None:
    assert pretend(name, tables=TABLES).accelerators[0].catalog_name == name


def test_the_candidates_of_an_ambiguous_name_are_listed() -> None:
    with pytest.raises(FitcheckError) as caught:
        pretend("RTX 3080")
    assert "10 GB, 760 GB/s" in caught.value.message and "12 GB, 912 GB/s" in caught.value.message


def test_an_unknown_name_gets_suggestions() -> None:
    with pytest.raises(FitcheckError) as caught:
        pretend("RTX 3090 Tie")
    assert "NVIDIA GeForce RTX 3090 Ti" in caught.value.hint


def test_a_size_that_was_never_sold_is_an_error_not_a_guess() -> None:
    with pytest.raises(FitcheckError, match="24 GB") as caught:
        pretend("RTX 3090 16GB")
    assert "--vram" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "cards", "cpu", "ram_gib"),
    [
        ("2x RTX 3090", 2, None, None),
        ("8xMI300X", 8, None, None),
        ("RTX 3090 x2", 2, None, None),
        ("dual RTX 3090", 2, None, None),
        ("RTX 4090 + RTX 3090", 2, None, None),
        ("Ryzen 7 7700 + RTX 4070", 1, "Ryzen 7 7700", None),
        ("Ryzen 7 7700 with RTX 4070 and 64GB", 1, "Ryzen 7 7700", 64),
        ("Core i9-14900K, RTX 4090, 96 GB DDR5", 1, "Core i9-14900K", 96),
        ("RTX4090+64GB", 1, None, 64),
        ("Xeon Platinum 8480+ + H100", 1, "Xeon Platinum 8480+", None),
        ("EPYC 9654", 0, "EPYC 9654", None),
        ("i9-14900K", 0, "Core i9-14900K", None),
        ("7950X", 0, "7950X", None),
        ("2x Intel Xeon E5-2690 v4", 0, "Intel Xeon E5-2690 v4", None),
        ("Raspberry Pi 5 8GB", 0, "Raspberry Pi 5", 8),
        ("Apple M2 Max (CPU)", 0, "Apple M2 Max", None),
        ("NVIDIA GeForce GTX 1070 with Max-Q Design", 1, None, None),
        ("AMD Ryzen 5 5600G", 0, "AMD Ryzen 5 5600G", None),
        ("cpu", 0, None, 32),
    ],
)
def test_parts_are_counted_and_joined(text: str, cards: int, cpu: str | None, ram_gib: float | None) -> None:
    machine = pretend(text)
    assert len(machine.accelerators) == cards
    assert [card.index for card in machine.accelerators] == list(range(cards))
    assert cpu is None or machine.cpu.name == cpu
    assert ram_gib is None or 0.95 * ram_gib * GIB <= machine.ram.total_bytes <= ram_gib * GIB


def test_sockets_are_counted() -> None:
    cpu = pretend("2x Intel Xeon E5-2690 v4").cpu
    assert (cpu.sockets, cpu.physical_cores, cpu.logical_cpus) == (2, 28, 56)


def test_memory_of_a_named_processor_is_what_a_probed_one_without_modules_has() -> None:
    files = {
        "/proc/cpuinfo": b"processor: 0\nmodel name: AMD EPYC 9654 96-Core Processor\nflags: lm avx2\n",
        "/proc/meminfo": b"MemTotal: 400000000 kB\nMemAvailable: 390000000 kB\n",
    }
    probed = probe(CaptureHost(files, os_name="linux", arch="x86_64")).ram.bandwidth
    pretended = pretend("EPYC 9654").ram.bandwidth
    assert probed is not None and pretended is not None
    assert (probed.per_s, probed.origin) == (pretended.per_s, pretended.origin) == (460.8e9, Origin.ASSUMED)


def test_one_process_does_not_reach_the_memory_of_two_sockets() -> None:
    one, two = pretend("EPYC 9654").ram.bandwidth, pretend("2x EPYC 9654").ram.bandwidth
    assert one is not None and two is not None and one.per_s < two.per_s < 1.5 * one.per_s


def test_an_engine_uses_the_performance_cores() -> None:
    cpu = pretend("Core i9-14900K").cpu
    assert (cpu.physical_cores, cpu.performance_cores, cpu.threads) == (24, 8, 8)


def test_overrides_replace_what_is_named() -> None:
    machine = pretend("RTX 4090", ram_bytes=48 * GIB, vram_bytes=20 * GIB, bandwidth_per_s=500e9)
    card = machine.accelerators[0]
    assert machine.ram.total_bytes == 48 * GIB and card.pool.total_bytes == 20 * GIB
    assert card.pool.bandwidth is not None and card.pool.bandwidth.per_s == 500e9
    assert card.pool.bandwidth.origin is Origin.USER
    rate = pretend("EPYC 9654", bandwidth_per_s=300e9).ram.bandwidth
    assert rate is not None and rate.per_s == 300e9


def test_what_is_assumed_is_stated() -> None:
    def assumed(machine: Machine) -> set[str]:
        return {item.what for item in machine.evidence if item.source == "assumed"}

    assert assumed(pretend("RTX 4090")) == {"cpu", "ram.installed"}
    assert assumed(pretend("Ryzen 7 7700 + RTX 4090 + 64GB")) == set()
    assert assumed(pretend("M4 Max 128GB")) == set()


def test_unified_memory_is_not_added_to_ram() -> None:
    for text, limit_gib in (("M4 Max 128GB", 107.5), ("Strix Halo 128GB", 96), ("DGX Spark", 115.7)):
        machine = pretend(text)
        pool = machine.accelerators[0].pool
        assert machine.accelerators[0].unified and pool.total_bytes == machine.ram.total_bytes, text
        assert pool.usable_bytes / GIB == pytest.approx(limit_gib, abs=1), text
        assert machine.ram.bandwidth == pool.bandwidth


def test_a_driver_keeps_a_part_of_a_card() -> None:
    pool = pretend("RTX 4090").accelerators[0].pool
    assert pool.total_bytes == 24564 * 1024**2
    assert pool.usable_bytes == pytest.approx(24077 * 1024**2, rel=0.005)  # free before anything is loaded


def test_a_host_has_at_least_the_memory_of_its_cards() -> None:
    machine = pretend("4x H100")
    assert machine.ram.total_bytes > 4 * 80 * GIB


def test_the_real_machine_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: object) -> None:
        raise AssertionError("looked at the real machine")

    for name in ("read_bytes", "read_text", "list_dir", "exists", "run", "query"):
        monkeypatch.setattr(LiveHost, name, look)
    machine = pretend("2x RTX 3090")
    assert machine.pretended and machine.problems == ()


def test_a_pretended_card_gives_the_speed_model_the_same_as_a_probed_one() -> None:
    device = "/sys/class/drm/card0/device"
    host = CaptureHost(
        {
            f"{device}/uevent": b"DRIVER=amdgpu\nPCI_ID=1002:744C\nPCI_SLOT_NAME=0000:03:00.0\n",
            f"{device}/revision": b"0xc8\n",
            f"{device}/mem_info_vram_total": b"25753026560\n",
            f"{device}/mem_info_vram_used": b"27000000\n",
            f"{device}/pp_dpm_mclk": b"0: 96Mhz \n1: 1249Mhz *\n",
            f"{device}/max_link_speed": b"16.0 GT/s PCIe\n",
            f"{device}/max_link_width": b"16\n",
        }
    )
    probed, pretended = probe(host).accelerators[0], pretend("RX 7900 XTX").accelerators[0]
    for field in ("name", "vendor", "architecture", "form", "compute", "gfx_target", "cores", "backends", "link"):
        assert getattr(probed, field) == getattr(pretended, field), field
    assert probed.pool.bandwidth is not None and pretended.pool.bandwidth is not None
    assert probed.pool.bandwidth.per_s == pytest.approx(pretended.pool.bandwidth.per_s, rel=0.01)
    assert pretended.pool.total_bytes == pytest.approx(probed.pool.total_bytes, rel=0.001)
    assert pretended.backends[0] is Backend.ROCM


@pytest.mark.parametrize(
    "text", ["", " ", "x" * 1000, "RTX 4090\x1b[31m", "99x RTX 4090", "0x RTX 4090", "+", "64GB", "1.5x"]
)
def test_nonsense_is_one_clear_error(text: str) -> None:
    with pytest.raises(FitcheckError) as caught:
        pretend(text)
    assert caught.value.code in {"unknown_hardware", "ambiguous_hardware"}
    assert "\x1b" not in caught.value.message + caught.value.hint


@settings(deadline=None)
@given(st.sampled_from(["", *SPELLINGS]), st.text(max_size=30))
def test_any_text_is_a_machine_or_one_clear_error(name: str, rest: str) -> None:
    try:
        machine = pretend(name + rest, tables=TABLES)
    except FitcheckError as error:
        assert (error.message + error.hint).isprintable()
    else:
        assert machine.ram.total_bytes > 0
        assert all(card.pool.total_bytes > 0 and card.pool.bandwidth for card in machine.accelerators)


def test_every_name_of_the_published_measurements_is_a_machine() -> None:
    names = (Path(__file__).parent / "measured_hardware.txt").read_text(encoding="utf-8").splitlines()
    assert len(names) > 350
    for name in names:
        machine = pretend(name, tables=TABLES)
        pools = [card.pool for card in machine.accelerators] or [machine.ram]
        assert all(pool.bandwidth is not None and pool.bandwidth.per_s > 1e9 for pool in pools), name


@pytest.mark.parametrize(
    ("text", "least_gib", "most_gib"), [("T4", 12, 60), ("H100", 160, 260), ("8x H100", 1200, 2100), ("L4", 30, 90)]
)
def test_beside_a_datacentre_card_is_the_ram_that_clouds_rent_with_it(text: str, least_gib: int, most_gib: int) -> None:
    assert least_gib <= pretend(text).ram.total_bytes / 2**30 <= most_gib


@pytest.mark.parametrize("text", ["laptop RTX 4060", "RTX 4060 laptop", "notebook RTX 4060 8GB", "RTX 4060 Mobile"])
def test_a_laptop_may_be_named_before_its_card(text: str) -> None:
    assert pretend(text).accelerators[0].name == "NVIDIA GeForce RTX 4060 Laptop GPU"
