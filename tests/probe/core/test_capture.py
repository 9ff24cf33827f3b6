"""A capture replays as the machine that it was made on, and tells nothing about its owner."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fitcheck.errors import FitcheckError
from fitcheck.probe import probe
from fitcheck.probe.capture import CaptureHost, RecordingHost, record, replay
from fitcheck.probe.privacy import scrub

CAPTURES = Path(__file__).parents[2] / "captures"


@pytest.mark.parametrize("slug", sorted(folder.name for folder in CAPTURES.iterdir()))
def test_a_recording_of_a_replay_replays_to_the_same_machine(slug: str, tmp_path: Path) -> None:
    first = replay(CAPTURES / slug)
    recorded = record(tmp_path, CaptureHost.open(CAPTURES / slug))
    second = replay(tmp_path)
    assert recorded == first
    assert (second.cpu, second.ram, second.limits) == (first.cpu, first.ram, first.limits)
    assert [(card.name, card.pool, card.usable) for card in second.accelerators] == [
        (card.name, card.pool, card.usable) for card in first.accelerators
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads this machine's own files")
def test_this_machine_replays_as_itself(tmp_path: Path) -> None:
    live = record(tmp_path)
    again = replay(tmp_path)
    assert again.cpu == live.cpu
    assert again.ram == live.ram  # the measured bandwidth, too
    assert again.limits == live.limits
    assert (again.os, again.arch, again.os_version, again.environment) == (
        live.os,
        live.arch,
        live.os_version,
        live.environment,
    )


def test_a_recording_names_no_person_and_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(socket, "gethostname", lambda: "annas-laptop.example.org")
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: cls("/home/anna")))
    monkeypatch.setenv("USER", "anna")
    secrets = {
        "/proc/cpuinfo": "model name : X\nSerial\t\t: 10000000abcdef01\n",
        "/proc/self/mountinfo": "1 2 0:1 / /media/anna/private rw - ext4 x\n"
        "3 4 0:5 / /sys/fs/cgroup rw - cgroup2 c rw\n",
        "/proc/self/status": "Name:\tpython\nUid:\t1000\nCpus_allowed_list:\t0-3\n",
        "/sys/class/dmi/id/product_serial": "ABC123XYZ\n",
        "/run/udev/data/+dmi:id": "E:MEMORY_DEVICE_0_SERIAL_NUMBER=98765432\nE:MEMORY_DEVICE_0_ASSET_TAG=Tag77\n",
        "/proc/self/cgroup": "0::/docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n",
        "/sys/class/net/eth0/address": "de:ad:be:ef:00:01\n",
    }
    recording: dict[str, object] = {
        "files": secrets,
        "environ": {"HF_HOME": "/home/anna/models", "KUBERNETES_SERVICE_HOST": "10.9.8.7"},
        "commands": {
            "nvidia-smi -q -x": "<serial>1320521</serial><uuid>GPU-d6889ff6-2523-9142-ca3c-1ca3f396a625</uuid>"
        },
        "present": ["/home/anna/.cache", "/dev/nvidia0"],
        "denied": {"/x": "annas-laptop refused"},
    }
    text = json.dumps(scrub(recording))
    for secret in (
        "anna", "laptop", "abcdef01", "private", "1000\\n", "ABC123XYZ", "98765432", "Tag77", "0123456789abcdef",
        "de:ad:be:ef", "10.9.8.7", "1320521", "d6889ff6",
    ):  # fmt: skip
        assert secret not in text, secret
    assert "Cpus_allowed_list:\\t0-3" in text
    assert "cgroup2" in text


def test_what_the_probe_reads_survives_the_scrubbing() -> None:
    pci = {"files": {"/sys/bus/pci/devices/0000:01:00.0/device": "0x2684\n"}, "present": ["/dev/nvidia0"]}
    assert scrub(dict(pci)) == pci


def test_files_of_a_partial_tree_are_found_where_the_machine_has_them(tmp_path: Path) -> None:
    for name in ("card1/device/vendor", "device", "kfd/topology/nodes/0/name", "proc/cpuinfo"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "lspci-vmmnD.txt").write_text(
        "Slot:\t0000:01:00.0\nClass:\t0300\nVendor:\t10de\nDevice:\t2684\nRev:\ta1\n"
    )
    host = CaptureHost.open(tmp_path)
    assert host.read_text("/sys/class/drm/card1/device/vendor") == "card1/device/vendor"
    assert host.read_text("/sys/class/drm/card1/device/device") == "device"
    assert host.list_dir("/sys/class/kfd/kfd/topology/nodes") == ("0",)
    assert host.read_text("/sys/bus/pci/devices/0000:01:00.0/class") == "0x030000\n"
    assert host.exists("/sys/bus/pci")
    assert not host.exists("/sys/bus/usb")


def test_links_out_of_a_capture_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("model name : SECRET\n")
    (tmp_path / "capture/proc").mkdir(parents=True)
    try:
        (tmp_path / "capture/proc/cpuinfo").symlink_to(secret)
    except OSError:
        pytest.skip("this system lets us make no link")
    assert "SECRET" not in replay(tmp_path / "capture").cpu.name


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "[" * 100_000])
def test_a_broken_recording_is_one_clear_error_or_an_empty_machine(text: str, tmp_path: Path) -> None:
    (tmp_path / "capture.json").write_text(text)
    try:
        assert replay(tmp_path).problems
    except FitcheckError as error:
        assert error.code == "unreadable_capture"


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FitcheckError) as caught:
        replay(tmp_path / "none")
    assert "--capture" in caught.value.hint


def test_a_recorder_passes_every_answer_on() -> None:
    host = CaptureHost(
        {"/a/b": b"text"}, queries={"q x": {"n": 1}}, variables={"V": "1"}, commands={"t -x": "out"}, os_name="linux"
    )
    recorder = RecordingHost(host)
    assert recorder.read_text("/a/b") == "text"
    assert recorder.list_dir("/a") == ("b",)
    assert recorder.query("q", "x") == {"n": 1}
    assert recorder.environ("V") == "1"
    assert recorder.run(("t", "-x")) == "out"
    assert recorder.exists("/a/b")
    kept = recorder.recording()
    assert kept["files"] == {"/a/b": "text"}
    assert kept["queries"] == {"q x": {"n": 1}}
    assert probe(recorder, bandwidth=False).os == "linux"
