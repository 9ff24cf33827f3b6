"""The JSON Schema of the catalog and of a user's own rows, generated from the types."""

from __future__ import annotations

import json

import msgspec

from fitcheck.catalog import Catalog


def schema_text() -> bytes:
    """The schema (2020-12) as the repository keeps it in ``data/catalog.schema.json``."""
    body = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:fitcheck:catalog:1",
        "title": "fitcheck model catalog",
        **msgspec.json.schema(Catalog),
    }
    return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()
