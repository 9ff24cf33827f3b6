"""The built-in catalog and its tables, read once for all tests of this folder."""

from __future__ import annotations

import pytest

from fitcheck import facts
from fitcheck.catalog import Catalog, load
from fitcheck.estimate.quantizations import Quantizations


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load()


@pytest.fixture(scope="session")
def quantizations() -> Quantizations:
    return facts.load().quantizations
