"""gpus.json: figures that must agree with each other, and names that must find their row."""

from __future__ import annotations

import re
from time import perf_counter

import pytest

from fitcheck.probe.hardware import GIB, GpuRow, find_gpu, load_gpus
from fitcheck.types import Backend, Vendor

ROWS = load_gpus()
BY_NAME = {row.name: row for row in ROWS}

#: Lowest and highest data rate per wire that each type of memory is made or clocked for, Gbit/s.
RATES = {
    "DDR3": (1.0, 2.2), "DDR4": (2.0, 3.3), "DDR5": (4.4, 8.1), "LPDDR4": (3.1, 4.3), "LPDDR4X": (3.1, 4.3),
    "LPDDR5": (4.2, 6.5), "LPDDR5X": (6.3, 9.7), "GDDR5": (3.1, 9.1), "GDDR5X": (9.0, 12.1), "GDDR6": (9.9, 20.2),
    "GDDR6X": (18.9, 23.1), "GDDR7": (17.9, 32.1), "HBM": (1.0, 1.1), "HBM2": (1.2, 2.5), "HBM2e": (1.1, 3.7),
    "HBM3": (5.0, 6.5), "HBM3e": (5.8, 9.3),
}  # fmt: skip

#: Laptop cards that really read as fast as the desktop card of the same name, or faster.
AS_FAST_AS_ON_THE_DESKTOP = {
    "NVIDIA GeForce GTX 1050 Laptop 2GB",
    "NVIDIA GeForce GTX 1050 Ti Laptop",
    "NVIDIA GeForce GTX 1050 Ti with Max-Q Design",
    "NVIDIA GeForce GTX 1050 with Max-Q Design",
    "NVIDIA GeForce GTX 1060 Laptop",
    "NVIDIA GeForce GTX 1060 with Max-Q Design",
    "NVIDIA GeForce GTX 1070 Laptop",
    "NVIDIA GeForce GTX 1070 with Max-Q Design",
    "NVIDIA GeForce GTX 1080 Laptop",
    "NVIDIA GeForce GTX 1080 with Max-Q Design",
    "NVIDIA GeForce GTX 1650 Laptop",
    "NVIDIA GeForce GTX 1660 Ti Laptop",
    "NVIDIA GeForce GTX 1660 Ti with Max-Q Design",
    "NVIDIA GeForce GTX 980 Laptop",
    "NVIDIA GeForce RTX 2060 Laptop",
    "NVIDIA GeForce RTX 2060 SUPER Laptop",
    "NVIDIA GeForce RTX 2070 Laptop",
    "NVIDIA GeForce RTX 2070 SUPER Laptop",
    "NVIDIA GeForce RTX 2080 Laptop",
    "NVIDIA GeForce RTX 3070 Laptop GPU",
    "NVIDIA RTX 2000 Ada Generation Laptop GPU",
    "NVIDIA RTX 5000 Ada Generation Laptop GPU",
    "NVIDIA GeForce RTX 5050 Laptop GPU",
    "NVIDIA RTX 4000 Ada Generation Laptop GPU",
    "NVIDIA T600 with Max-Q Design",
    "Quadro P1000 Laptop",
    "Quadro RTX 4000 Laptop",
    "Quadro RTX 5000 Laptop",
    "Quadro RTX 6000 Laptop",
}

#: Cards that other tools' tables have wrong by more than 5 %: name, GiB, GB/s that is right.
OFTEN_WRONG = [
    ("Quadro P1000", 4, 80.2), ("NVIDIA GeForce GTX 1650 with Max-Q Design", 4, 112.1),
    ("NVIDIA GeForce RTX 2060 with Max-Q Design", 6, 259.8), ("NVIDIA GeForce RTX 2070 with Max-Q Design", 8, 384),
    ("NVIDIA GeForce RTX 2080 with Max-Q Design", 8, 384), ("NVIDIA GeForce GTX 1650 Ti", 4, 192),
    ("NVIDIA GeForce RTX 2070 SUPER with Max-Q Design", 8, 352), ("NVIDIA GeForce RTX 3050 Laptop GPU", 4, 192),
    ("NVIDIA GeForce RTX 3050 Laptop GPU", 6, 168), ("NVIDIA GeForce RTX 3060 Laptop GPU", 6, 336),
    ("NVIDIA GeForce RTX 3080 Laptop GPU", 8, 448), ("NVIDIA RTX A3000 Laptop GPU", 12, 336),
    ("NVIDIA RTX A4000 Laptop GPU", 8, 384), ("NVIDIA RTX A5000 Laptop GPU", 16, 448), ("NVIDIA T400", 4, 80),
    ("NVIDIA GeForce RTX 3060", 8, 240), ("NVIDIA GeForce RTX 3070 Ti Laptop GPU", 8, 448),
    ("NVIDIA GeForce RTX 3080", 12, 912.4), ("NVIDIA GeForce RTX 3080 Ti Laptop GPU", 16, 512),
    ("NVIDIA RTX A1000 Laptop GPU", 4, 176), ("NVIDIA RTX A1000 Laptop GPU", 6, 132),
    ("NVIDIA RTX A1000", 8, 192), ("NVIDIA GeForce RTX 4060 Laptop GPU", 8, 256),
    ("NVIDIA GeForce RTX 4070 Laptop GPU", 8, 256), ("NVIDIA GeForce RTX 4080 Laptop GPU", 12, 432),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", 16, 576), ("NVIDIA GeForce RTX 3050", 6, 168),
    ("NVIDIA GeForce RTX 5060", 8, 448), ("NVIDIA GeForce RTX 5060 Laptop GPU", 8, 384),
    ("NVIDIA GeForce RTX 5070 Laptop GPU", 8, 384), ("NVIDIA GeForce RTX 5070 Ti Laptop GPU", 12, 672),
    ("NVIDIA GeForce RTX 5080 Laptop GPU", 16, 896), ("NVIDIA GeForce RTX 5090 D V2", 24, 1344),
    ("NVIDIA GeForce RTX 5090 Laptop GPU", 24, 896), ("Tesla P100-PCIE-12GB", 12, 549),
    ("NVIDIA A100 80GB PCIe", 80, 1935), ("NVIDIA A100-SXM4-80GB", 80, 2039), ("NVIDIA H100 PCIe", 80, 2039),
    ("NVIDIA H100 80GB HBM3", 80, 3352), ("NVIDIA H100 NVL", 94, 3938), ("NVIDIA GH200 480GB", 96, 4000),
    ("Jetson T4000", 64, 273.2), ("AMD Radeon RX 6800M", 12, 384), ("AMD Radeon RX 6650 XT", 8, 280.3),
    ("AMD Radeon RX 6700S", 8, 224), ("AMD Radeon RX 6800S", 8, 256), ("AMD Radeon RX 7600M", 8, 256),
    ("AMD Radeon RX 9070", 16, 644.6), ("AMD Radeon RX 9070 GRE", 12, 432), ("AMD Radeon 860M", None, 128),
    ("AMD Radeon 780M", None, 102.4), ("Apple M3 Max 30-core", None, 307.2), ("Apple M4 Max 32-core", None, 410),
    ("Apple M5 Max 32-core", None, 460.8),
]  # fmt: skip


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(ROWS) > 700


def test_bandwidth_is_width_times_rate() -> None:
    for row in ROWS:
        if row.bus_bits and row.rate_gbps:
            computed = row.bus_bits * row.rate_gbps / 8
            assert row.bandwidth_gbs == pytest.approx(computed, rel=0.005), row.name


def test_rates_are_those_that_the_type_of_memory_reaches() -> None:
    for row in ROWS:
        if row.rate_gbps:
            low, high = RATES[row.memory_type]
            assert low <= row.rate_gbps <= high, f"{row.name}: {row.rate_gbps} Gbit/s on {row.memory_type}"


def test_a_laptop_card_is_slower_than_its_desktop_namesake_unless_known() -> None:
    as_fast = set()
    for row in ROWS:
        short = re.sub(r" Laptop GPU$| Laptop( \dGB)?$| with Max-Q Design$", "", row.name)
        sibling = BY_NAME.get(short)
        if row.form == "laptop" and sibling and row is not sibling and sibling.bandwidth_gbs <= row.bandwidth_gbs:
            as_fast.add(row.name)
    assert as_fast == AS_FAST_AS_ON_THE_DESKTOP


@pytest.mark.parametrize(("name", "memory_gib", "bandwidth_gbs"), OFTEN_WRONG)
def test_cards_that_other_tables_have_wrong_are_right(
    name: str, memory_gib: float | None, bandwidth_gbs: float
) -> None:
    row = find_gpu(ROWS, name=name, memory_bytes=None if memory_gib is None else int(memory_gib * GIB))
    assert row is not None and row.bandwidth_gbs == pytest.approx(bandwidth_gbs, rel=0.03)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_found_by_its_own_name_and_by_its_drivers(row: GpuRow) -> None:
    named = find_gpu(ROWS, name=row.name, memory_bytes=row.memory_bytes, cores=row.cores)
    assert named is not None and (named is row or row.name in named.driver_names)
    for name in row.driver_names or (row.name,):
        found = find_gpu(
            ROWS,
            name=name,
            pci_id=row.pci_ids[0][:9] if row.pci_ids else None,
            memory_bytes=row.memory_bytes
            or (int(row.memory_options_gib[-1] * GIB) if row.memory_options_gib else None),
            cores=row.cores,
            bandwidth_per_s=row.bandwidth_per_s,
        )
        assert found is not None, name
        assert found.bandwidth_gbs == pytest.approx(row.bandwidth_gbs, rel=0.05), f"{name} -> {found.name}"
        assert found.memory_gib is None or found.memory_gib == row.memory_gib


def test_a_part_of_a_name_finds_nothing() -> None:
    for name in ("RTX", "NVIDIA RTX A100", "GeForce RTX 4090 Ti", "NVIDIA GeForce RTX 409", "Radeon RX 79", "Graphics"):
        assert find_gpu(ROWS, name=name) is None, name


def test_an_unknown_card_is_none_not_a_neighbour() -> None:
    assert find_gpu(ROWS, pci_id="10de:ffff", name="NVIDIA GeForce RTX 9090") is None


def test_memory_tells_apart_what_shares_a_name() -> None:
    def row(gib: float) -> GpuRow | None:
        return find_gpu(ROWS, name="NVIDIA GeForce RTX 3080", memory_bytes=int(gib * GIB))

    assert [found.bandwidth_gbs for gib in (10, 12) if (found := row(gib))] == [760.3, 912.4]


def test_pci_id_and_revision_come_before_the_name() -> None:
    found = find_gpu(ROWS, pci_id="1002:744c", revision="cc", name="AMD Radeon Graphics")
    assert found is not None and found.name == "AMD Radeon RX 7900 XT"


def test_ids_are_well_formed_and_belong_to_the_maker() -> None:
    makers = {
        Vendor.NVIDIA: "10de",
        Vendor.AMD: "1002",
        Vendor.INTEL: "8086|1da3",
        Vendor.APPLE: "106b",
        Vendor.QUALCOMM: "5143",
    }
    for row in ROWS:
        for pci_id in row.pci_ids:
            assert re.fullmatch(rf"(?:{makers[row.vendor]}):[0-9a-f]{{4}}(?::[0-9a-f]{{2}})?", pci_id), row.name


def test_every_row_gives_the_speed_model_what_it_needs() -> None:
    for row in ROWS:
        assert row.compute.get("fp16", 0) > 1e11, row.name
        assert row.architecture and row.form and row.backends, row.name
        assert row.form in {"desktop", "laptop", "workstation", "datacenter", "soc", "embedded", "mining"}, row.name


def test_backends_follow_what_the_engines_still_build_for() -> None:
    assert BY_NAME["NVIDIA GeForce RTX 4090"].backends[0] is Backend.CUDA
    assert BY_NAME["NVIDIA GeForce GTX 780"].backends == (Backend.VULKAN,)
    assert BY_NAME["AMD Radeon RX 7900 XTX"].backends[0] is Backend.ROCM
    assert BY_NAME["AMD Radeon RX 580"].backends == (Backend.VULKAN,)


def test_the_table_is_read_in_8_ms() -> None:
    def once() -> float:
        start = perf_counter()
        load_gpus()
        return perf_counter() - start

    assert min(once() for _ in range(9)) < 0.008
