"""How people write hardware in benchmark posts: every spelling means what its author meant, or asks."""

from __future__ import annotations

import pytest

from fitcheck.errors import FitcheckError
from fitcheck.probe.pretend import Tables, pretend
from fitcheck.probe.shorthand import MemorySpeed, apple_chip, without_memory_speed
from fitcheck.types import Origin

TABLES = Tables()

#: Spelling -> row, and the GB that it has (of one card, or the chip's).
CARDS = {
    "rtx_3090": ("NVIDIA GeForce RTX 3090", 24), "RTX3090 24GB": ("NVIDIA GeForce RTX 3090", 24),
    "4080S": ("NVIDIA GeForce RTX 4080 SUPER", 16), "4070 Ti S": ("NVIDIA GeForce RTX 4070 Ti SUPER", 16),
    "RTX 4090M": ("NVIDIA GeForce RTX 4090 Laptop GPU", 16), "RTX 5090 D v2": ("NVIDIA GeForce RTX 5090 D V2", 24),
    "RTX 4090 D 48GB": ("NVIDIA GeForce RTX 4090 D 48GB", 48),
    "RTX 5050 Laptop": ("NVIDIA GeForce RTX 5050 Laptop GPU", 8),
    "RTX 6000 Pro Blackwell": ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 96),
    "Pro 6000 Max-Q": ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 96),
    "RTX PRO 6000 Blackwell Server Edition": ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 96),
    "RTX PRO 5000 Blackwell": ("NVIDIA RTX PRO 5000 Blackwell", 48),
    "RTX PRO 4000 SFF": ("NVIDIA RTX PRO 4000 Blackwell SFF Edition", 24),
    "RTX PRO 5000 72GB": ("NVIDIA RTX PRO 5000 72 GB Blackwell", 72),
    "RTX PRO 3000 Blackwell Laptop": ("NVIDIA RTX PRO 3000 Blackwell Generation Laptop GPU", 12),
    "T550": ("NVIDIA T550 Mobile", 4), "T1200": ("Quadro T1200", 4), "T1000": ("NVIDIA T1000", 4),
    "RTX A2000 Laptop 8GB": ("NVIDIA RTX A2000 Laptop GPU 8GB", 8), "GV100": ("Quadro GV100", 32),
    "Tesla K40": ("Tesla K40m", 12), "H20 141GB": ("NVIDIA H20-3e", 141), "GH200 480GB": ("NVIDIA GH200 480GB", 96),
    "A100-80G": ("NVIDIA A100-SXM4-80GB", 80), "B300": ("NVIDIA B300 SXM6 AC", 288),
    "MI50 32G": ("AMD Instinct MI50 32GB", 32), "MI355X 288GB": ("AMD Instinct MI355X", 288),
    "W6800": ("AMD Radeon PRO W6800", 32), "W7900 Dual Slot": ("AMD Radeon PRO W7900", 48),
    "V620": ("AMD Radeon PRO V620", 32), "W7800": ("AMD Radeon PRO W7800", 32),
    "W7800 48GB": ("AMD Radeon PRO W7800 48 GB", 48), "R9700": ("AMD Radeon AI PRO R9700", 32),
    "AI PRO R9700 32GB": ("AMD Radeon AI PRO R9700", 32), "Vega56": ("AMD Radeon RX Vega 56", 8),
    "5700 XT": ("AMD Radeon RX 5700 XT", 8), "RX 9060XT 16G": ("AMD Radeon RX 9060 XT 16 GB", 16),
    "RX 570 8GB": ("AMD Radeon RX 570 8GB", 8), "Arc B60 24GB": ("Intel Arc Pro B60", 24),
    "B65": ("Intel Arc Pro B65", 32), "Max 1100": ("Intel Data Center GPU Max 1100", 48),
    "M2 Ultra 76c 192GB": ("Apple M2 Ultra", 192), "M2 Ultra 24/76": ("Apple M2 Ultra", 128),
    "M2 Ultra 60c": ("Apple M2 Ultra 60-core", 128), "M1 Max 24c 32GB": ("Apple M1 Max 24-core", 32),
    "M3 Max 16-core 40-GPU 128GB": ("Apple M3 Max", 128),
    "Apple M4 Max (16-core CPU, 40-core GPU)": ("Apple M4 Max", 64), "M4 Max 14-core": ("Apple M4 Max 32-core", 36),
    "M4 Max 40-core GPU 128GB unified": ("Apple M4 Max", 128), "M1 (7 GPU cores)": ("Apple M1 7-core", 16),
    "MacBook Pro 14 M4 Pro 48GB": ("Apple M4 Pro", 48), "M5 Max 32c": ("Apple M5 Max 32-core", 36),
    "Strix Halo 128GB": ("AMD Radeon 8060S", 128), "AMD Ryzen AI Max+ 395 w/ Radeon 8060S": ("AMD Radeon 8060S", 128),
    "AI Max 395": ("AMD Radeon 8060S", 128), "Z1 Extreme": ("AMD Radeon 780M", 16), "BC-250": ("AMD BC-250", 16),
    "Thor": ("Jetson AGX Thor T5000", 128), "DGX Spark": ("NVIDIA GB10", 128), "MacBook Neo": ("Apple A18 Pro", 8),
    "AMD Radeon RX 6800 XT (RADV NAVI21)": ("AMD Radeon RX 6800 XT", 16),
    "RTX 3090 (eGPU)": ("NVIDIA GeForce RTX 3090", 24), "RTX 3090 @ 250W": ("NVIDIA GeForce RTX 3090", 24),
    "RTX 5090 FE": ("NVIDIA GeForce RTX 5090", 32), "AMD Radeon Graphics (RADV GFX1151)": ("AMD Radeon 8060S", 128),
    "Mac Studio (M3 Ultra, 512GB)": ("Apple M3 Ultra", 512),
}  # fmt: skip

#: Spelling -> physical cores, peak GB/s (None: not looked at) and whether the speed of RAM was told.
PROCESSORS = {
    "Ryzen 7950X DDR5-6000": (16, 96.0, True), "Ryzen 9 5950X 64GB DDR4-3600": (16, 57.6, True),
    "EPYC 9454 12ch DDR5": (48, 460.8, False), "EPYC 9454 12ch DDR5-4800": (48, 460.8, True),
    "EPYC 9655P 12x DDR5-6000": (96, 576.0, True), "EPYC 7532 8ch DDR4-2933": (32, 187.7, True),
    "i9-14900K quad channel": (24, 179.2, False), "Ryzen 7 7700 dual-channel 5200 MT/s": (8, 83.2, True),
    "Threadripper 3970X": (32, None, False), "TR PRO 5975WX": (32, None, False),
    "Threadripper PRO 7995WX": (96, None, False), "Threadripper 9980X": (64, None, False),
    "Xeon 8480": (56, None, False), "Xeon Platinum 8480+": (56, None, False), "Xeon 6 6980P": (128, None, False),
    "E5-2690v4": (14, None, False), "2xE5-2690v4": (28, None, False), "EPYC Genoa": (64, None, False),
    "HX 370 64GB": (12, None, False), "3400G": (4, None, False), "Altra Max M128-30": (128, None, False),
    "X2 Elite Extreme": (18, None, False), "Snapdragon X2 Elite": (18, None, False),
    "Raspberry Pi 4B 8GB": (4, 12.8, False), "Raspberry Pi 3B+": (4, None, False), "Pi5": (4, None, False),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CARDS.items())
def test_a_card_is_the_one_that_was_meant(text: str, expected: tuple[str, int]) -> None:
    (card,) = pretend(text, tables=TABLES).accelerators
    name, gib = expected
    assert card.catalog_name == name
    assert 0.9 * gib <= card.pool.total_bytes / 1024**3 <= gib


@pytest.mark.parametrize(("text", "expected"), PROCESSORS.items())
def test_a_processor_is_the_one_that_was_meant(text: str, expected: tuple[int, float | None, bool]) -> None:
    machine = pretend(text, tables=TABLES)
    cores, gb_per_s, told = expected
    assert not machine.accelerators and machine.cpu.physical_cores == cores
    rate = machine.ram.bandwidth
    assert rate is not None and (rate.origin is Origin.USER) == told
    if gb_per_s is not None:
        assert rate.per_s / 1e9 == pytest.approx(gb_per_s, rel=0.01)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("3090x2", 2), ("P40 24GB x2", 2), ("2x 4090", 2), ("8xH100 SXM", 8), ("2x 3090 + 1x 4090", 3),
        ("4 RTX 3090", 4), ("RTX 4090 w/ RTX 3090", 2), ("Ryzen AI Max+ 395 with Radeon 8060S", 1),
    ],
)  # fmt: skip
def test_cards_are_counted(text: str, counts: int) -> None:
    assert len(pretend(text, tables=TABLES).accelerators) == counts


@pytest.mark.parametrize(
    ("text", "gib"),
    [("EPYC 9654 + 12x64GB DDR5-4800 + RTX 3090", 768), ("EPYC 7742 8x32GB DDR4-3200", 256), ("RTX 4090 64GB RAM", 64)],
)
def test_ram_is_told_from_the_memory_of_cards(text: str, gib: int) -> None:
    assert 0.9 * gib < pretend(text, tables=TABLES).ram.total_bytes / 1024**3 <= gib


@pytest.mark.parametrize(
    "text",
    [
        "RTX 4090 DDR5-6000 XT",
        "M4 Max 77c",
        "M2 Ultra 60c 999GB",
        "DDR5-6000",
        "Xeon 3400G",
        "GTX 4080S",
        "76c",
        "7900X",
    ],
)
def test_what_means_nothing_is_asked_about(text: str) -> None:
    with pytest.raises(FitcheckError) as caught:
        pretend(text, tables=TABLES)
    assert caught.value.code in {"unknown_hardware", "ambiguous_hardware"}


def test_shorthand_is_taken_out() -> None:
    assert without_memory_speed("EPYC 9454 12ch DDR5-4800") == ("EPYC 9454", MemorySpeed(4800, 12))
    assert without_memory_speed("GTX 1650 GDDR6") == ("GTX 1650 GDDR6", MemorySpeed())
    assert without_memory_speed("RX 6600 XT") == ("RX 6600 XT", MemorySpeed())
    assert apple_chip("m2 ultra 24c CPU 76c GPU") == ("Apple M2 Ultra", 24, 76)
    assert apple_chip("M2 Ultra") is None and apple_chip("RTX 4090 24c") is None


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("NVIDIA Corporation GA102 [GeForce RTX 3090] (rev a1)", ["NVIDIA GeForce RTX 3090"]),
        ("AD102 [GeForce RTX 4090]", ["NVIDIA GeForce RTX 4090"]),
        ("Ryzen 5 5600 / RX 6700 XT / 32GB", ["AMD Radeon RX 6700 XT"]),
        ("2x RTX 3090 NVLink", ["NVIDIA GeForce RTX 3090"] * 2),
        ("RTX 3090 eGPU", ["NVIDIA GeForce RTX 3090"]),
        ("RTX 4050", ["NVIDIA GeForce RTX 4050 Laptop GPU"]),
        ("RTX 2060", ["NVIDIA GeForce RTX 2060"]),
        ("NVIDIA RTX 500 Ada", ["NVIDIA RTX 500 Ada Generation Laptop GPU"]),
        ("CMP 100-210", ["NVIDIA CMP 100HX-210"]),
        ("M1 MacBook Air 8GB", ["Apple M1"]),
        ("MacBook Air (M2, 2022)", ["Apple M2"]),
        ("M2 Max Mac Studio 96GB", ["Apple M2 Max"]),
        ("Apple Silicon M2 Pro 16GB", ["Apple M2 Pro"]),
    ],
)
def test_names_as_tools_and_shops_write_them(text: str, rows: list[str]) -> None:
    assert [card.catalog_name for card in pretend(text, tables=TABLES).accelerators] == rows


@pytest.mark.parametrize(
    ("text", "hint"),
    [("RTX 3080", '"RTX 3080 10GB" or "RTX 3080 12GB"'), ("A100", '"A100 40GB" or "A100 80GB"')],
)
def test_who_is_asked_back_is_told_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(FitcheckError) as caught:
        pretend(text, tables=TABLES)
    assert hint in caught.value.hint
    for written in caught.value.hint.split('"')[1::2]:
        assert len(pretend(written, tables=TABLES).accelerators) == 1


@pytest.mark.parametrize(
    ("text", "gib", "gb_per_s"),
    [
        ("RTX 2000 Ada", 16, 224.0), ("Quadro P620", 2, 80.2), ("Flex 170", 16, 576.0), ("RX 9060", 8, 288.0),
        ("Radeon Pro W7500", 8, 172.0), ("RX 550", 2, 112.0),
    ],
)  # fmt: skip
def test_memory_of_cards_that_were_once_wrong(text: str, gib: int, gb_per_s: float) -> None:
    (card,) = pretend(text, tables=TABLES).accelerators
    assert card.pool.bandwidth is not None
    assert card.pool.total_bytes == pytest.approx(gib * 1024**3, rel=0.05)
    assert card.pool.bandwidth.per_s / 1e9 == pytest.approx(gb_per_s, rel=0.01)
