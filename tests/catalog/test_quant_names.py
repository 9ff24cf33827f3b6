"""Names of repositories, tags and files say which quantisation is meant, and whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitcheck.catalog import Catalog
from fitcheck.catalog.names import Names
from fitcheck.catalog.quant_names import named, spelled
from fitcheck.catalog.resolve import repository
from fitcheck.errors import FitcheckError
from fitcheck.estimate.quantizations import Quantizations

LINES = (Path(__file__).parent / "quants.txt").read_text(encoding="utf-8").splitlines()
PAIRS = [line.rsplit(" = ", 1) for line in LINES if line and line[0] != "#"]


@pytest.mark.parametrize(("text", "expected"), PAIRS)
def test_a_name_says_its_quantisation(text: str, expected: str, quantizations: Quantizations) -> None:
    publisher = (repository(text) or "").partition("/")[0].casefold()
    found = named(text, quantizations, publisher)
    said = " ".join(filter(None, (found.quant, found.runtime))) if found else "None"
    assert said == expected


def test_names_with_a_quantisation_find_their_model(catalog: Catalog) -> None:
    names = Names(catalog.models)
    missed = []
    for text, _ in PAIRS:
        try:
            names.find(text)
        except FitcheckError as error:
            missed.append((text, error.message))
    assert not missed


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("ud-q4_k_xl", "UD-Q4_K_XL"),
        ("q4_k_xl", "UD-Q4_K_XL"),
        ("q4_k", "Q4_K_M"),
        ("fp16", "F16"),
        ("4bit", "Q4_K_M"),
        ("awq-int4", "AWQ"),
        ("fp8-dynamic", "FP8"),
        ("w4a16", "GPTQ"),
        ("q9_z", "Q9_Z"),
    ],
)
def test_a_quantisation_may_be_written_as_people_write_it(
    written: str, expected: str, quantizations: Quantizations
) -> None:
    assert spelled(written, quantizations)[0] == expected


def test_every_name_of_the_tables_stands_for_itself(quantizations: Quantizations) -> None:
    names = {*quantizations.mixes, *quantizations.publisher_mixes, *quantizations.formats}
    assert {name for name in names if name not in spelled(name, quantizations)} == set()


def test_what_stands_for_a_quantisation_is_in_the_tables(quantizations: Quantizations) -> None:
    known = {*quantizations.mixes, *quantizations.publisher_mixes, *quantizations.formats}
    assert {name for names in quantizations.aliases.values() for name in names} <= known
    assert {ending.quant for ending in quantizations.endings} <= known
    assert {mix.like for mix in quantizations.publisher_mixes.values()} <= set(quantizations.mixes)
    assert {mix.source for mix in quantizations.publisher_mixes.values()} <= set(quantizations.sources)
