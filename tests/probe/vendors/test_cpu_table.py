"""cpus.json: every processor belongs to one platform, with the cores and the memory that it really has."""

from __future__ import annotations

import re

import pytest

from fitcheck.probe.hardware import find_cpu, fold_cpu_name, load_cpus, load_gpus, processor_with_gpu

TABLE = load_cpus()
GPUS = {row.name: row for row in load_gpus()}

#: Brand string or board -> (physical cores, performance cores or None, GB/s of one socket).
KNOWN = {
    "AMD Ryzen 7 7700X 8-Core Processor": (8, None, 83.2),
    "AMD Ryzen 9 9950X3D 16-Core Processor": (16, None, 89.6),
    "AMD Ryzen 5 5600G with Radeon Graphics": (6, None, 51.2),
    "AMD Ryzen 9 7945HX with Radeon Graphics": (16, None, 83.2),
    "AMD Ryzen 7 7840U w/ Radeon 780M Graphics": (8, None, 89.6),
    "AMD Ryzen 7 PRO 6850U with Radeon Graphics": (8, None, 76.8),
    "AMD Ryzen AI 9 HX 370 w/ Radeon 890M": (12, None, 120.0),
    "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S": (16, None, 256.0),
    "AMD Ryzen Threadripper PRO 5975WX 32-Cores": (32, None, 204.8),
    "AMD Ryzen Threadripper 7980X 64-Cores": (64, None, 166.4),
    "AMD Ryzen 7 1700 Eight-Core Processor": (8, None, 42.7),
    "AMD Ryzen 7 2700X Eight-Core Processor": (8, None, 46.9),
    "AMD Ryzen Threadripper 1950X 16-Core Processor": (16, None, 85.3),
    "AMD Ryzen Threadripper 2990WX 32-Core Processor": (32, None, 93.9),
    "AMD Ryzen Threadripper 3960X 24-Core Processor": (24, None, 102.4),
    "AMD A10-7850K Radeon R7, 12 Compute Cores 4C+8G": (4, None, 29.9),
    "AMD EPYC 7763 64-Core Processor": (64, None, 204.8),
    "AMD EPYC 9654 96-Core Processor": (96, None, 460.8),
    "AMD EPYC 9575F 64-Core Processor": (64, None, 576.0),
    "AMD FX(tm)-8350 Eight-Core Processor": (8, None, 29.9),
    "Intel(R) Core(TM) i7 CPU         920  @ 2.67GHz": (4, None, 25.6),
    "Intel(R) Core(TM) i7 CPU       X 980  @ 3.33GHz": (6, None, 25.6),
    "Intel(R) Core(TM) i5 CPU         750  @ 2.67GHz": (4, None, 21.3),
    "Intel(R) Core(TM) i5 CPU       M 520  @ 2.40GHz": (2, None, 21.3),
    "Intel(R) Core(TM) i5-2500K CPU @ 3.30GHz": (4, None, 21.3),
    "Intel(R) Core(TM) i7-3820 CPU @ 3.60GHz": (4, None, 51.2),
    "Intel(R) Core(TM) i7-3930K CPU @ 3.20GHz": (6, None, 51.2),
    "Intel(R) Core(TM) i7-4960X CPU @ 3.60GHz": (6, None, 59.7),
    "Intel(R) Core(TM) i7-5960X CPU @ 3.00GHz": (8, None, 68.3),
    "Intel(R) Core(TM) i7-6850K CPU @ 3.60GHz": (6, None, 76.8),
    "Intel(R) Core(TM) i7-6820HQ CPU @ 2.70GHz": (4, None, 34.1),
    "Intel(R) Core(TM) i7-7820HQ CPU @ 2.90GHz": (4, None, 38.4),
    "Intel(R) Core(TM) i7-7820X CPU @ 3.60GHz": (8, None, 85.3),
    "Intel(R) Core(TM) i9-7980XE CPU @ 2.60GHz": (18, None, 85.3),
    "Intel(R) Core(TM) i9-9980XE CPU @ 3.00GHz": (18, None, 85.3),
    "Intel(R) Core(TM) i9-9980HK CPU @ 2.40GHz": (8, None, 42.7),
    "Intel(R) Core(TM) i9-10900X CPU @ 3.70GHz": (10, None, 93.9),
    "Intel(R) Core(TM) i9-10980XE CPU @ 3.00GHz": (18, None, 93.9),
    "Intel(R) Core(TM) i9-10980HK CPU @ 2.40GHz": (8, None, 46.9),
    "Intel(R) Core(TM) i7-4790K CPU @ 4.00GHz": (4, None, 25.6),
    "Intel(R) Core(TM) i9-9900K CPU @ 3.60GHz": (8, None, 42.7),
    "11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz": (4, None, 51.2),
    "12th Gen Intel(R) Core(TM) i7-12700K": (12, 8, 76.8),
    "13th Gen Intel(R) Core(TM) i9-13900K": (24, 8, 89.6),
    "Intel(R) Core(TM) Ultra 7 155H": (16, 6, 89.6),
    "Intel(R) Core(TM) Ultra 7 258V": (8, 4, 136.5),
    "Intel(R) Core(TM) Ultra 9 285K": (24, 8, 102.4),
    "Intel(R) N100": (4, None, 38.4),
    "Intel(R) Xeon(R) CPU           E5520  @ 2.27GHz": (4, None, 32.0),
    "Intel(R) Xeon(R) CPU E5-2670 0 @ 2.60GHz": (8, None, 51.2),
    "Intel(R) Xeon(R) CPU E5-2690 v2 @ 3.00GHz": (10, None, 59.7),
    "Intel(R) Xeon(R) CPU E5-2420 0 @ 1.90GHz": (6, None, 38.4),
    "Intel(R) Xeon(R) W-2145 CPU @ 3.70GHz": (8, None, 85.3),
    "Intel(R) Xeon(R) W-2295 CPU @ 3.00GHz": (18, None, 93.9),
    "Intel(R) Xeon(R) W-3275 CPU @ 2.50GHz": (28, None, 140.8),
    "Intel(R) Xeon(R) W-3365 CPU @ 2.70GHz": (32, None, 204.8),
    "Intel(R) Xeon(R) W-11955M CPU @ 2.60GHz": (8, None, 51.2),
    "Intel(R) Xeon(R) Silver 4310 CPU @ 2.10GHz": (12, None, 170.7),
    "Intel(R) Xeon(R) Silver 4410Y": (12, None, 256.0),
    "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz": (14, None, 76.8),
    "Intel(R) Xeon(R) Silver 4110 CPU @ 2.10GHz": (8, None, 115.2),
    "Intel(R) Xeon(R) Gold 6248R CPU @ 3.00GHz": (24, None, 140.8),
    "Intel(R) Xeon(R) Platinum 8480+": (56, None, 307.2),
    "Intel(R) Xeon(R) Platinum 8592+": (64, None, 358.4),
    "Intel(R) Xeon(R) w9-3495X": (56, None, 307.2),
    "Intel(R) Xeon(R) 6980P": (128, None, 614.4),
    "Apple M1": (8, 4, 68.3),
    "Apple M4 Max": (16, 12, 546.0),
    "Raspberry Pi 5 Model B Rev 1.0": (4, None, 17.1),
    "Raspberry Pi 4 Model B Rev 1.4": (4, None, 12.8),
    "Cortex-A76": (4, None, 17.1),
    "10x Cortex-X925 + 10x Cortex-A725": (20, 10, 273.1),
    "Ky(R) X1": (8, None, 10.7),
    "Snapdragon(R) X Elite - X1E80100 - Qualcomm(R) Oryon(TM) CPU": (12, None, 135.2),
}


@pytest.mark.parametrize(("name", "expected"), KNOWN.items())
def test_processors_are_known_by_their_brand_string(name: str, expected: tuple[int, int | None, float]) -> None:
    found = find_cpu(name, TABLE)
    assert found is not None and found.known
    physical, performance, bandwidth_gbs = expected
    assert found.physical_cores == physical
    assert found.performance_cores == (performance or physical)
    assert found.row.bandwidth_per_s / 1e9 == pytest.approx(bandwidth_gbs, rel=0.01)


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("Intel(R) Xeon(R) CPU E31230 @ 3.20GHz", "avx"),
        ("Intel(R) Xeon(R) CPU E3-1230 V2 @ 3.30GHz", "f16c"),
        ("Intel(R) Xeon(R) CPU E3-1231 v3 @ 3.40GHz", "avx2"),
        ("Intel(R) Xeon(R) CPU E3-1270 v5 @ 3.60GHz", "avx2"),
        ("Intel(R) Core(TM) i7-4960X CPU @ 3.60GHz", "f16c"),
        ("Intel(R) Core(TM) i7-5820K CPU @ 3.30GHz", "avx2"),
        ("Intel(R) Core(TM) i9-7900X CPU @ 3.30GHz", "avx512f"),
        ("Intel(R) Core(TM) i7-7740X CPU @ 4.30GHz", "avx2"),
        ("Intel(R) Core(TM) i9-10900X CPU @ 3.70GHz", "avx512_vnni"),
        ("Intel(R) Core(TM) i9-10900K CPU @ 3.70GHz", "avx2"),
    ],
)
def test_a_processor_has_the_instructions_of_its_generation(name: str, best: str) -> None:
    found = find_cpu(name, TABLE)
    ladder = ["avx", "f16c", "avx2", "avx512f", "avx512_vnni"]
    assert found is not None
    assert [feature for feature in ladder if feature in found.row.features][-1] == best


@pytest.mark.parametrize("name", KNOWN)
def test_no_two_platforms_claim_a_processor(name: str) -> None:
    folded = fold_cpu_name(name)
    claims = [row.name for row in TABLE.platforms if re.fullmatch(row.pattern, folded)]
    assert len([claim for claim in claims if claim != "Core, model not named"]) == 1, claims


def test_a_model_that_is_not_listed_gets_its_platforms_usual_cores_and_says_so() -> None:
    found = find_cpu("AMD Ryzen 7 7799X 8-Core Processor", TABLE)
    assert found is None or not found.known
    found = find_cpu("AMD EPYC 9994 96-Core Processor", TABLE)
    assert found is not None and not found.known and found.physical_cores == 64


def test_a_virtual_processor_is_not_taken_for_a_real_one() -> None:
    for name in ("AMD EPYC", "QEMU Virtual CPU version 2.5+", "Intel Xeon Processor (Skylake, IBRS)", "", "unknown"):
        assert find_cpu(name, TABLE) is None, name


def test_chips_name_gpus_that_exist_and_each_shared_gpu_has_a_processor() -> None:
    for row in TABLE.platforms:
        assert set(row.gpus) <= set(GPUS), row.name
    missing = {row.name for row in GPUS.values() if row.unified and processor_with_gpu(row, TABLE) is None}
    assert {name for name in missing if not name.startswith(("Intel", "AMD Radeon Vega", "Qualcomm"))} == set()


def test_a_chip_with_fewer_gpu_cores_has_the_processor_sold_with_it() -> None:
    small = processor_with_gpu(GPUS["Apple M4 Max 32-core"], TABLE)
    assert small is not None and (small.performance_cores, small.efficiency_cores) == (10, 4)


def test_hybrid_counts_add_up() -> None:
    found = find_cpu("12th Gen Intel(R) Core(TM) i7-12700K", TABLE)
    assert found is not None and (found.physical_cores, found.logical_cpus) == (12, 20)
