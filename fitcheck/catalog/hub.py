"""Models on the Hugging Face Hub: the only module that opens the network.

A name is read from headers: the repository's listing, config.json, the first bytes of weight files. Nothing is written.
What huggingface_hub has in its cache is read from there. Address, token, proxies and offline mode are its own
(HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, …). Replies are bounded in length and time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from fitcheck.catalog import config as hf_config
from fitcheck.catalog import gguf, gguf_model, safetensors
from fitcheck.catalog.source import clean, parse_json
from fitcheck.errors import FitcheckError
from fitcheck.types import Model, PublishedFile

CONNECT_TIMEOUT_S = 10.0
REQUEST_DEADLINE_S = 30.0
TOTAL_DEADLINE_S = 120.0
MAX_LISTING_BYTES = 16 << 20
MAX_WEIGHT_HEADERS = 16  # files whose headers are read; for more, the Hub's own count is taken
SAFETENSORS_FIRST_BYTES = 1 << 16

_REPO = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9_][\w.\-]{0,95}", re.ASCII)
_PREFERRED = ("Q4_K_M", "UD-Q4_K_XL", "Q4_K_S", "MXFP4_MOE", "MXFP4", "Q4_0", "Q8_0")


class _Sibling(msgspec.Struct, frozen=True):
    rfilename: str
    size: int | None = None


class _Counts(msgspec.Struct, frozen=True):
    parameters: dict[str, int] = {}


class Listing(msgspec.Struct, frozen=True):
    """What the Hub says about a repository."""

    siblings: tuple[_Sibling, ...] = ()
    safetensors: _Counts | None = None
    gated: bool | str | None = None
    tags: tuple[str, ...] = ()
    downloads: int | None = None

    @property
    def licence(self) -> str | None:
        """The licence tag."""
        found = next((tag for tag in self.tags if tag.startswith("license:")), None)
        return clean(found.removeprefix("license:"), 60) if found else None


class GgufSet(msgspec.Struct, frozen=True):
    """One quantisation in a repository: its files in order, and their bytes together."""

    quant: str
    names: tuple[str, ...]
    bytes: int


class Hub:
    """One session with the Hub. ``endpoint`` None: what huggingface_hub is set to."""

    def __init__(self, endpoint: str | None = None, token: str | None = None, deadline_s: float = TOTAL_DEADLINE_S):
        self._endpoint = endpoint
        self._token = token
        self._until = time.monotonic() + deadline_s
        self.bytes_read = 0

    def resolve(self, ref: str) -> Model:
        """``org/repo``, ``org/repo:QUANT`` or ``org/repo/file.gguf`` -> Model.

        Raises FitcheckError: ``not_found``, ``gated``, ``rate_limited``, ``offline``, ``network``, ``unknown_quant``,
        ``unreadable_file``, ``unknown_model``.
        """
        repo, quant, file = _parse(ref)
        model = _cached(repo, quant, file)
        if model is None:
            self._refuse_offline(repo)
            listing = self.listing(repo)
            model = self._gguf(repo, listing, quant, file) if _ggufs(listing) else self._folder(repo, listing)
            model = replace(
                model,
                gated=bool(listing.gated),
                licence=listing.licence or model.licence,
                downloads_30d=listing.downloads,
            )
        return replace(model, hub_repo=repo)

    def listing(self, repo: str) -> Listing:
        """Files with sizes, and what the Hub counted."""
        data, _ = self.get(f"{self._base}/api/models/{repo}?blobs=true", MAX_LISTING_BYTES, repo)
        try:
            return msgspec.json.decode(data, type=Listing)
        except (msgspec.DecodeError, RecursionError) as error:
            raise FitcheckError("network", f"the Hub's listing of {repo} is not readable", "try again later") from error

    # ----------------------------------------------------------------------------------------------------------------
    # Models

    def _gguf(self, repo: str, listing: Listing, quant: str | None, file: str | None) -> Model:
        sets = _ggufs(listing)
        files = tuple(PublishedFile(repo, each.quant, each.bytes, each.names[0], source=repo) for each in sets)
        chosen = _choose(repo, sets, quant, file)
        headers = [self._header(repo, name) for name in chosen.names]
        projector = next((s.rfilename for s in listing.siblings if gguf_model.is_projector(s.rfilename)), None)
        beside = self._header(repo, projector) if projector is not None else None
        model = gguf_model.model_from_headers(headers, None, beside)
        towers = tuple(each for each in model.files if each.quant == gguf_model.PROJECTOR_QUANT)
        model = replace(model, id=clean(f"hf:{repo}:{chosen.quant}"), files=(*files, *towers), gguf_repos=(repo,))
        if quant is None and file is None and len(sets) > 1:
            # the estimator chooses among the repository's files, so no single one's tensors may bind it
            return replace(model, id=f"hf:{repo}", tensors=None, file_quant=None)
        return model

    def _header(self, repo: str, name: str) -> gguf.Header:
        return gguf.read_header(RemoteSource(self, repo, name))

    def _folder(self, repo: str, listing: Listing) -> Model:
        names = {sibling.rfilename for sibling in listing.siblings}
        if hf_config.CONFIG not in names:
            raise FitcheckError("not_found", f"{repo}: no config.json and no .gguf file", f"{self._base}/{repo}")
        data, _ = self.get(self._url(repo, hf_config.CONFIG), hf_config.MAX_CONFIG_BYTES, repo)
        raw = parse_json(data, f"{repo}/{hf_config.CONFIG}", hf_config.MAX_CONFIG_BYTES)
        return replace(
            hf_config.model_from_config(raw, repo, self._weights(repo, listing), repo=repo),
            id=f"hf:{repo}",
            name=repo.split("/")[1],
        )

    def _weights(self, repo: str, listing: Listing) -> hf_config.Weights | None:
        files = [s for s in listing.siblings if s.rfilename.endswith(".safetensors") and "/" not in s.rfilename]
        if not files:
            return None
        if len(files) <= MAX_WEIGHT_HEADERS:
            heads = [
                safetensors.read_header(RemoteSource(self, repo, s.rfilename, SAFETENSORS_FIRST_BYTES)) for s in files
            ]
            return hf_config.weights_of(heads)
        counts = listing.safetensors.parameters if listing.safetensors else {}
        known = {dtype: count for dtype, count in counts.items() if dtype in safetensors.DTYPE_BITS and count >= 0}
        return hf_config.Weights(sum(s.size or 0 for s in files), known, {})

    # ----------------------------------------------------------------------------------------------------------------
    # Network

    @property
    def _base(self) -> str:
        from huggingface_hub import constants

        return (self._endpoint or constants.ENDPOINT).rstrip("/")

    def _url(self, repo: str, name: str) -> str:
        from urllib.parse import quote

        return f"{self._base}/{repo}/resolve/main/{quote(name)}"

    def _refuse_offline(self, repo: str) -> None:
        from huggingface_hub import constants

        if constants.HF_HUB_OFFLINE:
            raise FitcheckError(
                "offline", f"{repo} is not in the cache, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"
            )

    def get(self, url: str, limit: int, repo: str, offset: int | None = None) -> tuple[bytes, int]:
        """Up to ``limit`` bytes of ``url`` from ``offset`` (None: the whole of it, which must not be longer), and the
        length of the whole. Raises FitcheckError."""
        headers = {"Accept-Encoding": "identity"}
        if offset is not None:
            headers["Range"] = f"bytes={offset}-{offset + limit - 1}"
        with _network_errors(repo, self._base), self._stream(url, headers) as response:
            _raise_for_status(response, repo, self._base)
            length, size = _lengths(response, offset)
            if offset is None and length is not None and length > limit:
                raise FitcheckError("network", f"{repo}: a reply of {length:,} bytes, longer than expected")
            data = self._read(response, limit if offset is not None else limit + 1, repo)
            wanted = length if length is None or offset is None else min(length, limit)
            if (wanted is not None and len(data) < wanted) or (offset is None and len(data) > limit):
                raise FitcheckError("network", f"{repo}: the reply has the wrong length", "try again")
            return data, size if size is not None else len(data)

    @contextmanager
    def _stream(self, url: str, headers: dict[str, str]) -> Iterator[Any]:
        """An open reply, with httpx (huggingface_hub 1 and later) or requests (before)."""
        from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

        session: Any = get_session()
        headers = {**build_hf_headers(token=self._token), **headers}
        timeout = max(0.1, min(CONNECT_TIMEOUT_S, self._until - time.monotonic()))
        if callable(getattr(session, "stream", None)):
            with session.stream("GET", url, headers=headers, timeout=timeout) as response:
                yield response
        else:
            with session.get(url, headers=headers, timeout=timeout, stream=True) as response:
                yield response

    def _read(self, response: Any, limit: int, repo: str) -> bytes:
        """At most ``limit`` bytes of a body, within the deadlines."""
        until = min(self._until, time.monotonic() + REQUEST_DEADLINE_S)
        chunks = response.iter_bytes(1 << 16) if hasattr(response, "iter_bytes") else response.iter_content(1 << 16)
        data = bytearray()
        for chunk in chunks:
            data += chunk
            self.bytes_read += len(chunk)
            if len(data) >= limit:
                break
            if time.monotonic() > until:
                raise FitcheckError("network", f"{repo}: the Hub is too slow", "try again later")
        return bytes(data[:limit])


class RemoteSource:
    """A file on the Hub, read by ranges. The first request tells its length."""

    chunk_bytes = 1 << 20  # a request costs more than the bytes

    def __init__(self, hub: Hub, repo: str, name: str, first_bytes: int = 1 << 20) -> None:
        self._hub = hub
        self._repo = repo
        self._url = hub._url(repo, name)
        self.name = clean(name.rsplit("/", 1)[-1])
        self._head, self.size = hub.get(self._url, first_bytes, repo, offset=0)

    def fetch(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        head = self._head[offset:]
        data, size = self._hub.get(self._url, length - len(head), self._repo, offset=offset + len(head))
        if size != self.size:
            raise FitcheckError("network", f"{self.name}: changed its length while it was read", "try again")
        return head + data


# --------------------------------------------------------------------------------------------------------------------
# Names


def _parse(ref: str) -> tuple[str, str | None, str | None]:
    """Repository, quantisation, file."""
    path, _, quant = ref.strip().strip("/").partition(":")
    parts = path.split("/", 2)
    repo = "/".join(parts[:2])
    file = parts[2] if len(parts) == 3 else None
    if not _REPO.fullmatch(repo) or (file is not None and not _is_safe(file)) or len(quant) > 40:
        raise FitcheckError("unknown_model", f"not a Hub name: {clean(ref, 80)}", "write it like hf:org/repo:Q4_K_M")
    return repo, quant or None, file


def _is_safe(name: str) -> bool:
    """Whether a name in a repository stays in it."""
    return name.isprintable() and not name.startswith("/") and ".." not in name.split("/") and "\\" not in name


def _ggufs(listing: Listing) -> tuple[GgufSet, ...]:
    """The models in GGUF files of a repository, split ones put together, smallest first."""
    sizes = {s.rfilename: s.size or 0 for s in listing.siblings if s.rfilename.endswith(".gguf")}
    sets = []
    for name in sorted(sizes):
        if gguf_model.is_projector(name) or not _is_safe(name):
            continue
        folder, slash, base = name.rpartition("/")
        names = tuple(folder + slash + part for part in gguf_model.part_names(base))
        if names[0] == name and all(part in sizes for part in names):
            sets.append(GgufSet(gguf_model.quant_of(name), names, sum(sizes[part] for part in names)))
    return tuple(sorted(sets, key=lambda each: each.bytes))


def _choose(repo: str, sets: tuple[GgufSet, ...], quant: str | None, file: str | None) -> GgufSet:
    """The set that was asked for; without a wish, a middling one."""
    if file is not None:
        found = next((each for each in sets if file in each.names), None)
        if found is None:
            raise FitcheckError("not_found", f"{repo} has no file {clean(file, 80)}", _offer(sets))
        return found
    wishes: Iterable[str] = (quant.upper(),) if quant else _PREFERRED
    for wish in wishes:
        found = next((each for each in sets if each.quant == wish), None)
        if found is not None:
            return found
    if quant:
        raise FitcheckError("unknown_quant", f"{repo} has no {clean(quant, 40)}", _offer(sets))
    return sets[0]


def _offer(sets: Iterable[GgufSet]) -> str:
    from fitcheck.units import format_bytes

    return "it has " + ", ".join(f"{clean(each.quant, 20) or '?'} ({format_bytes(each.bytes)})" for each in sets)[:400]


# --------------------------------------------------------------------------------------------------------------------
# Cache


def _cached(repo: str, quant: str | None, file: str | None) -> Model | None:
    """The model from huggingface_hub's cache, None if it is not there."""
    from fitcheck.catalog.installed import Stores, snapshot_of

    for store in Stores().hub:
        snapshot = snapshot_of(store / f"models--{repo.replace('/', '--')}")
        if snapshot is not None:
            return _from_snapshot(snapshot, quant, file)
    return None


def _from_snapshot(snapshot: Path, quant: str | None, file: str | None) -> Model | None:
    ggufs = [path for path in sorted(snapshot.rglob("*.gguf")) if not gguf_model.is_projector(path.name)]
    for path in ggufs:
        is_wanted = (
            path.relative_to(snapshot).as_posix() == file
            if file
            else gguf_model.quant_of(path.name) == (quant or "").upper()
        )
        if is_wanted or (quant is None and file is None):
            return gguf_model.model_from_file(path)
    has_weights = next(snapshot.glob("*.safetensors"), None) is not None
    if not ggufs and has_weights and (snapshot / hf_config.CONFIG).is_file() and quant is None and file is None:
        return hf_config.model_from_folder(snapshot)
    return None


# --------------------------------------------------------------------------------------------------------------------
# Errors


@contextmanager
def _network_errors(repo: str, base: str) -> Iterator[None]:
    """Say transport errors of either HTTP library as FitcheckError."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    http_error: Any = HfHubHTTPError.__mro__[1]  # httpx.HTTPError or requests.HTTPError
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise FitcheckError(
            "offline", f"{repo} is not in the cache, and the Hub is switched off", "unset HF_HUB_OFFLINE"
        ) from error
    except (OSError, ValueError, RuntimeError, http_error) as error:
        why = clean(type(error).__name__ + (f": {error}" if str(error) else ""), 120)
        raise FitcheckError("network", f"cannot read {repo} from {base}: {why}", "check the connection") from error


def _raise_for_status(response: Any, repo: str, base: str) -> None:
    status, headers = int(response.status_code), response.headers
    if status in (200, 206):
        return
    if headers.get("X-Error-Code") == "GatedRepo" or status == 403:
        raise FitcheckError(
            "gated", f"{repo} asks you to accept its terms", f"accept them at {base}/{repo}, set HF_TOKEN"
        )
    if status == 401:
        raise FitcheckError(
            "not_found", f"{repo} does not exist, or is private", "check the name; if private, set HF_TOKEN"
        )
    if status == 404:
        raise FitcheckError("not_found", f"{repo} does not exist, or lacks a file", "check the name")
    if status == 429:
        wait = headers.get("Retry-After", "")
        when = f"try again in {wait} s" if wait.isdecimal() and len(wait) < 6 else "try again later"
        raise FitcheckError("rate_limited", "the Hub limits how often it is asked", f"{when}, or set HF_TOKEN")
    raise FitcheckError("network", f"the Hub answered {status} for {repo}", "try again later")


_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


def _lengths(response: Any, offset: int | None) -> tuple[int | None, int | None]:
    """Bytes that the reply promises, and the length of the whole file where it tells."""
    told = response.headers.get("Content-Length", "")
    length = int(told) if told.isdecimal() and len(told) < 20 else None
    if offset is None:
        return length, length
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status_code == 206 and match is not None and int(match[1]) == offset:
        promised = int(match[2]) - offset + 1
        if length not in (None, promised):
            raise FitcheckError("network", "the server sends another length than it says", "try again")
        return promised, int(match[3])
    if response.status_code == 200 and offset == 0:
        return length, length
    raise FitcheckError("network", "the server does not give parts of files", "download the file and give its path")
