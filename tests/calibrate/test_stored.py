"""What was measured is kept whole, for this hardware only, and forgotten on request."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from fitcheck.calibrate.stored import FILE, forget, load, machine_key, save
from fitcheck.probe.pretend import pretend
from fitcheck.types import Calibration

HERE = replace(pretend("RTX 4070"), pretended=False)
FOUND = Calibration("2026-01-01", machine_key(HERE), 5e10, speed_factors={"cuda": 0.9}, operation_factors={"cuda": 2})


def test_what_was_measured_is_kept_for_this_hardware_and_forgotten(tmp_path: Path) -> None:
    elsewhere = replace(pretend("RTX 4090"), pretended=False)
    save(FOUND, tmp_path / "new")
    assert load(HERE, tmp_path / "new") == FOUND
    assert load(elsewhere, tmp_path / "new") is None
    assert load(replace(HERE, pretended=True), tmp_path / "new") is None
    assert forget(tmp_path / "new") and not forget(tmp_path / "new")
    assert load(HERE, tmp_path / "new") is None


def test_a_damaged_file_is_no_calibration(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"date": 5')
    assert load(HERE, tmp_path) is None


def test_a_file_of_before_operations_were_measured_still_counts(tmp_path: Path) -> None:
    key = machine_key(HERE)
    (tmp_path / FILE).write_text(f'{{"date": "2026-01-01", "machine_key": "{key}", "speed_factors": {{"cuda": 0.9}}}}')
    assert load(HERE, tmp_path) == Calibration("2026-01-01", key, speed_factors={"cuda": 0.9})


def test_a_write_that_is_interrupted_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(FOUND, tmp_path)

    def interrupted(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(replace(FOUND, date="2027-01-01"), tmp_path)
    assert load(HERE, tmp_path) == FOUND and [path.name for path in tmp_path.iterdir()] == [FILE]
