"""Take out of a recording what could identify a person or a machine, before it is written."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

#: Of these files only the lines that the probe reads are kept: the others tell about mounts and users.
_WANTED_LINES = {
    "/proc/self/mountinfo": re.compile(r" - cgroup"),
    "/proc/self/status": re.compile(r"^Cpus_allowed_list:"),
    "/etc/os-release": re.compile(r"^(PRETTY_NAME|ID|VERSION_ID)="),
}
_HIDDEN_VARIABLES = ("KUBERNETES_SERVICE_HOST",)

#: Host names that identify nobody, and whose removal would break what the probe reads.
_TELLING_NOTHING = ("localhost", "linux", "nvidia", "intel", "amd", "apple", "gpu", "cpu", "host")

_UUID = re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
_MAC = re.compile(r"(?<![0-9a-fA-F:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![0-9a-fA-F:])")
_LONG_ID = re.compile(r"\b[0-9a-f]{32,64}\b")  # containers, machine-id
#: ``Serial : 10000000abcdef``, ``…_SERIAL_NUMBER=…``, ``"serial": "…"``, ``<serial>…</serial>``
_SERIAL = re.compile(
    r"(?im)((?:serial(?:[ _]?(?:number|no))?|asset[ _]?tag|unique_id)\s*\"?\s*[:=>]\s*\"?)([^\s\"<,]+)"
)
_SERIAL_FILE = re.compile(r"(?:serial|uuid|asset_tag|unique_id)$")


def scrub(recording: dict[str, object]) -> dict[str, object]:
    """The recording without home folder, user and host name, serial numbers, UUIDs and MAC addresses."""
    scrubbed = _scrubbed(_trimmed(recording), _personal_words())
    assert isinstance(scrubbed, dict)
    return scrubbed


def _trimmed(recording: dict[str, object]) -> dict[str, object]:
    """Leave out lines, files and variables that nothing reads or whose values name the machine."""
    files, variables = recording.get("files"), recording.get("environ")
    trimmed = dict(recording)
    if isinstance(files, dict):
        trimmed["files"] = {path: _kept(path, text) for path, text in files.items()}
    if isinstance(variables, dict):
        trimmed["environ"] = {name: "set" if name in _HIDDEN_VARIABLES else value for name, value in variables.items()}
    return trimmed


def _kept(path: str, text: str) -> str:
    if _SERIAL_FILE.search(path):
        return "0\n"
    wanted = _WANTED_LINES.get(path)
    return text if wanted is None else "".join(line for line in text.splitlines(True) if wanted.search(line))


def _personal_words() -> tuple[tuple[re.Pattern[str], str], ...]:
    """What to replace by what: home folder, user name in paths, host name."""
    words = []
    home = str(Path.home())
    if len(home) > 1:
        words.append((re.compile(re.escape(home) + r"(?![A-Za-z0-9_-])"), "~"))
    user = os.environ.get("USER") or os.environ.get("USERNAME") or ""
    if len(user) > 1:
        words.append((re.compile(rf"(?<=[/\\]){re.escape(user)}(?=[/\\]|$)"), "user"))
    for name in {socket.gethostname(), socket.gethostname().partition(".")[0]}:
        if len(name) > 1 and name.lower() not in _TELLING_NOTHING:
            words.append((re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"), "host"))
    return tuple(words)


def _scrubbed(value: object, words: tuple[tuple[re.Pattern[str], str], ...]) -> object:
    if isinstance(value, str):
        return _scrub_text(value, words)
    if isinstance(value, dict):
        return {_scrub_key(str(key), words): _scrubbed(item, words) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed(item, words) for item in value]
    return value


def _scrub_key(key: str, words: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    """A path or a question, scrubbed as texts are, so that both still agree. The UUIDs in the registry's paths are
    those of Windows' device classes, the same everywhere."""
    return _scrub_names(key, words) if key.startswith("registry ") else _scrub_text(key, words)


def _scrub_text(text: str, words: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    text = _UUID.sub(lambda match: re.sub(r"[0-9a-fA-F]", "0", match[0]), text)
    text = _MAC.sub("00:00:00:00:00:00", text)
    text = _SERIAL.sub(lambda match: match[1] + "0", text)
    return _scrub_names(text, words)


def _scrub_names(text: str, words: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    """Take out what names people, hosts and containers."""
    for pattern, replacement in words:
        text = pattern.sub(replacement, text)
    return _LONG_ID.sub(lambda match: "0" * len(match[0]), text)
