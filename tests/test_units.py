"""What people type as sizes, contexts and rates, and what they read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitcheck import units
from fitcheck.errors import FitcheckError


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("24GiB", 24 * 1024**3),
        ("24g", 24 * 1024**3),
        ("24GB", 24 * 10**9),
        ("512m", 512 * 1024**2),
        (" 1.5 TiB ", 1.5 * 1024**4),
        ("1000", 1000),
    ],
)
def test_sizes_keep_binary_and_decimal_units_apart(text: str, count: int) -> None:
    assert units.parse_bytes(text) == count


@pytest.mark.parametrize(("text", "tokens"), [("8192", 8192), ("32k", 32768), ("1M", 1024**2), ("max", None)])
def test_contexts_are_counted_in_binary_thousands(text: str, tokens: int | None) -> None:
    assert units.parse_tokens(text) == tokens


@pytest.mark.parametrize(
    ("text", "rate"), [("400GB/s", 400e9), ("400", 400e9), ("1.2TB/s", 1.2e12), ("68.3 GBps", 68.3e9)]
)
def test_bandwidths_are_decimal(text: str, rate: float) -> None:
    assert units.parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("parse", [units.parse_bytes, units.parse_tokens, units.parse_rate])
@pytest.mark.parametrize("text", ["", "lots", "-5", "1e9", "5 parsecs", "9" * 40, "\x1b[31m", "nan", "٣"])
def test_what_is_no_quantity_is_refused_in_one_line(parse, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FitcheckError) as caught:
        parse(text)
    assert caught.value.code == "bad_option"
    assert "\n" not in caught.value.message and "\x1b" not in caught.value.message


@given(st.integers(min_value=1, max_value=2**60))
def test_a_printed_size_reads_back_within_its_precision(count: int) -> None:
    assert units.parse_bytes(units.format_bytes(count)) == pytest.approx(count, rel=0.06)


@given(st.text(max_size=40))
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (units.parse_bytes, units.parse_tokens, units.parse_rate):
        try:
            parse(text)
        except FitcheckError as error:
            assert error.code == "bad_option"


def test_speeds_print_as_ranges_without_false_precision() -> None:
    assert units.format_speed(31.4, 43.8) == "31–44"
    assert units.format_speed(1.23, 2.0) == "1.2–2.0"
    assert units.format_speed(9.96, 10.04) == "10"


def test_parameters_print_as_people_say_them() -> None:
    assert units.format_params(671_026_419_200) == "671B"
    assert units.format_params(8_030_261_248) == "8.0B"
    assert units.format_params(124_439_808) == "124M"
