"""What one command reads from outside: the machine, the catalog, the tables. Each once, and only when asked for."""

from __future__ import annotations

import os
import sys
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from fitcheck.errors import FitcheckError
from fitcheck.types import Machine, Model, Origin, Pool, Rate, Report, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fitcheck.advise.choose import Chooser
    from fitcheck.advise.quality import Qualities
    from fitcheck.advise.rank import Ranker
    from fitcheck.catalog import Catalog
    from fitcheck.estimate.fit import Estimator
    from fitcheck.estimate.quantizations import Quantizations
    from fitcheck.facts import Facts
    from fitcheck.probe import Probing

T = TypeVar("T")


class Asked(Struct, frozen=True):
    """A model and the request as they are meant. ``notes``: what a name was taken for, a line each."""

    model: Model
    request: Request
    notes: tuple[str, ...] = ()


def _shared(make: Callable[[Session], T]) -> cached_property[T]:
    """What a session makes once, unless the one that it is based on has it."""

    @wraps(make)
    def found(session: Session) -> T:
        base = session._base
        return make(session) if base is None else getattr(base, make.__name__)

    return cached_property(found)


class Session:
    """The inputs of one answer. ``on``, ``ram_bytes``, ``vram_bytes`` and ``bandwidth_per_s`` as in the options."""

    def __init__(
        self,
        on: str | None = None,
        ram_bytes: int | None = None,
        vram_bytes: int | None = None,
        bandwidth_per_s: float | None = None,
    ) -> None:
        self.on = on
        self.corrections = (ram_bytes, vram_bytes, bandwidth_per_s)
        self._probing: Probing | None = None
        self._base: Session | None = None

    @classmethod
    def of(cls, machine: Machine | None, base: Session | None = None) -> Session:
        """A session on a machine that is at hand; None is this one. ``base``: whose catalog, tables and estimator it
        has.
        """
        session = cls()
        session._base = base
        if machine is not None:
            session.use(machine)
        return session

    def use(self, machine: Machine) -> None:
        """Answer for this machine from now on."""
        self.__dict__["machine"] = machine

    def look_ahead(self) -> None:
        """Begin to look at this machine where it is the one that is meant: that goes on while the program loads."""
        if self.on is None:
            self._probing = self._look()

    @cached_property
    def machine(self) -> Machine:
        """The machine that is meant: this one, or the one that ``--on`` names."""
        if self.on is None:
            found = (self._probing or self._look()).finish()
            return _corrected(_calibrated(found), *self.corrections)
        return _machine(self.on, *self.corrections)

    @staticmethod
    def _look() -> Probing:
        from fitcheck.probe import begin

        return begin(bandwidth=not _has_calibration())

    @_shared
    def catalog(self) -> Catalog:
        """The built-in models and the user's own."""
        from fitcheck.catalog import load

        return load(user_folder())

    @_shared
    def facts(self) -> Facts:
        """The tables of ``fitcheck/data``."""
        from fitcheck import facts

        return facts.load()

    @_shared
    def estimator(self) -> Estimator:
        """One estimator for the whole session, its tables read: it remembers what answers have in common."""
        from fitcheck.estimate.fit import Estimator

        self.facts.read()
        return Estimator(self.facts)

    @_shared
    def qualities(self) -> Qualities:
        """How good the answers of each model are, from the catalog's public scores."""
        from fitcheck.advise.quality import Qualities

        return Qualities(self.catalog.models, self.facts.quantizations)

    def model(self, text: str) -> Model:
        """What a person typed -> Model. Raises FitcheckError when there is none, or when there are several."""
        from fitcheck.catalog.resolve import resolve

        return resolve(text, self.catalog)

    def asked(self, text: str, request: Request) -> Asked:
        """The model that was named with ``text`` and the request as it is meant for it: in the quantisation that the
        name holds, unless the request or the file has one, and on the engine that runs it."""
        from fitcheck.catalog.quant_names import named
        from fitcheck.catalog.resolve import as_published, without_address

        text = without_address(text)
        model = self.model(text)
        table = self.facts.quantizations
        held = None if request.quant or model.file_quant else named(text, table, model.publisher)
        if held is not None:
            request = replace(request, quant=held.quant, runtime=request.runtime or held.runtime)
            if not table.is_gguf(held.quant) or held.runtime:
                model = as_published(model, text, held.quant)
        elif request.quant is None and model.file_quant in table.formats and not table.is_gguf(model.file_quant):
            request = replace(request, quant=model.file_quant)
        request = self.spelled(request, model.publisher)
        return Asked(_of_publisher(model, request, table), request, self._notes_on(text, model, request))

    def spelled(self, request: Request, publisher: str | None = None) -> Request:
        """The request with its quantisation as the tables call it, and with the engine for one that is outside GGUF.
        ``publisher``: whose names are meant. Raises FitcheckError where the engine does not load it."""
        if request.quant is None:
            return request
        from fitcheck.advise.engine import loadable, runtime_of
        from fitcheck.catalog.quant_names import spelled

        table, runtimes = self.facts.quantizations, self.facts.runtimes
        names = spelled(request.quant, table, publisher)
        if request.runtime:
            return replace(request, quant=loadable(request.runtime, names, table, runtimes))
        outside = names[0] in table.formats and not table.is_gguf(names[0])
        runtime = runtime_of(names[0], self.machine, table, runtimes) if outside else None
        return replace(request, quant=names[0], runtime=runtime)

    def _notes_on(self, text: str, model: Model, request: Request) -> tuple[str, ...]:
        """What a name was taken for, where that is not what it says."""
        from fitcheck.catalog.resolve import library_default
        from fitcheck.estimate.publisher_mix import describe

        default = library_default(text, self.catalog)
        library = f"{text} is {default.id} in Ollama's library" if default is not None else ""
        size = describe(model, request.quant or "", self.facts.quantizations)
        return tuple(filter(None, (library, size)))

    def chooser(self, request: Request) -> Chooser:
        """Chooses quantisations on the machine."""
        from fitcheck.advise.choose import Chooser
        from fitcheck.advise.suit import for_task

        estimator = self.estimator  # first: what it reads takes as long as the look at the machine still goes on
        request = for_task(self.spelled(request))
        if request.runtime:
            from fitcheck.advise.engine import refuse_cache

            refuse_cache(request, self.facts.runtimes)
        return Chooser(self.machine, request, estimator)

    def ranker(self, request: Request, models: Iterable[Model] | None = None) -> Ranker:
        """Ranks models (None: the catalog's) on the machine."""
        from fitcheck.advise.rank import Ranker

        models = self.catalog.models if models is None else models
        if request.quant:
            table, asked = self.facts.quantizations, self.spelled(request)
            models = [_of_publisher(model, asked, table) for model in models]
        qualities = self.qualities
        return Ranker(models, self.chooser(request), qualities)

    def unknown_memory(self) -> tuple[str, ...]:
        """What to pass where the machine does not say how much memory it has: then nothing fits on it."""
        if self.machine.ram.total_bytes:
            return ()
        problems = (problem for problem in self.machine.problems if problem.part == "ram")
        return tuple(f"{problem.message}: {problem.hint}" for problem in problems)

    def missing_tools(self, commands: Iterable[str]) -> tuple[str, ...]:
        """Where to get each program that the commands start and this machine does not have, a line for each."""
        tools = dict.fromkeys(command.partition(" ")[0] for command in commands)
        pages = {tool: page for row in self.facts.runtimes.runtimes.values() for tool, page in row.programs.items()}
        missing = (tool for tool in tools if tool in pages and not self.machine.pretended and not _is_here(tool))
        return tuple(f"to install {tool}: {pages[tool]}" for tool in missing)

    def report(self, command: str, summary: str, request: Request | None = None, **more: Any) -> Report:
        """A report of this session, with the versions filled in, and the machine where it was looked at."""
        from fitcheck import __version__

        return Report(
            command=command,
            summary=summary,
            request=request,
            machine=self.__dict__.get("machine"),
            fitcheck_version=__version__,
            catalog_date=self.catalog.date,
            **more,
        )


def _of_publisher(model: Model, request: Request, table: Quantizations) -> Model:
    """The model as the publisher of the mix that is asked for has it: nobody else has such files."""
    mix = table.publisher_mixes.get(request.quant or "")
    if mix is None or model.publisher or model.path:
        return model
    own = tuple(repo for repo in model.gguf_repos if repo.startswith(f"{mix.publisher}/"))
    return replace(model, publisher=mix.publisher if own else None, gguf_repos=own)


def _is_here(program: str) -> bool:
    """Whether the shell would find a program; importing ``shutil`` for that takes longer than looking."""
    names = (program, f"{program}.exe")
    return any(os.access(Path(folder, name), os.X_OK) for folder in os.get_exec_path() for name in names)


def user_folder() -> Path | None:
    """Where the user's own models and calibration lie: ``FITCHECK_HOME``, else the system's folder for such data; None
    where there is no home."""
    chosen = os.environ.get("FITCHECK_HOME")
    if chosen:
        return Path(chosen)
    try:
        if sys.platform == "linux":  # what platformdirs answers there, which takes longer to import than to compute
            data = os.environ.get("XDG_DATA_HOME")
            return Path(data or Path.home() / ".local" / "share") / "fitcheck"
        from platformdirs import user_data_path

        return user_data_path("fitcheck", appauthor=False)
    except (RuntimeError, KeyError):
        return None


def require_user_folder() -> Path:
    """The user's folder. Raises FitcheckError where there is none."""
    folder = user_folder()
    if folder is None:
        raise FitcheckError("storage", "there is no folder for your own data", "set FITCHECK_HOME to a folder")
    return folder


def _machine(on: str, ram: int | None, vram: int | None, bandwidth: float | None) -> Machine:
    """The machine that ``--on`` names: a folder, a file, or hardware."""
    path = Path(on)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):
        is_folder = is_file = False
    if is_folder:
        from fitcheck.probe.capture import replay

        return _corrected(replay(path), ram, vram, bandwidth)
    if is_file:
        return _corrected(_read_machine(path), ram, vram, bandwidth)
    from fitcheck.probe.pretend import pretend

    return pretend(on, ram_bytes=ram, vram_bytes=vram, bandwidth_per_s=bandwidth)


def _has_calibration() -> bool:
    """Whether there is a calibration; one that this user may not read is none."""
    folder = user_folder()
    return folder is not None and os.access(folder / "calibration.json", os.R_OK)


def _calibrated(machine: Machine) -> Machine:
    """The machine with what ``fitcheck calibrate`` measured on it."""
    if not _has_calibration():
        return machine
    from fitcheck.calibrate.stored import load
    from fitcheck.probe import probe

    calibration = load(machine, user_folder())
    if calibration is None:  # of other hardware: its bandwidth was not measured yet
        return probe()
    measured = calibration.ram_bandwidth_bytes_per_s
    if measured is None:
        return replace(machine, calibration=calibration)
    rate = Rate(measured, Origin.MEASURED, f"fitcheck calibrate, {calibration.date}")
    return replace(machine, calibration=calibration, ram=replace(machine.ram, bandwidth=rate))


def _read_machine(path: Path) -> Machine:
    from fitcheck.output.wire import LIMIT_BYTES, decode_machine

    try:
        with path.open("rb") as file:
            text = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise FitcheckError("unreadable_file", f"cannot read {path.name}: {error.strerror}") from error
    return decode_machine(text, path.name)


def _corrected(machine: Machine, ram: int | None, vram: int | None, bandwidth: float | None) -> Machine:
    """The machine with single facts replaced by what the user said: the memory of every card, the bandwidth of the
    cards, or of the RAM where there is no card."""
    if ram is None and vram is None and bandwidth is None:
        return machine
    cards = machine.accelerators
    memory = _resized(machine.ram, ram) if ram is not None else machine.ram
    if vram is not None:
        cards = tuple(replace(card, pool=_resized(card.pool, vram)) for card in cards)
    if bandwidth is not None:
        rate = Rate(bandwidth, Origin.USER, "--bandwidth")
        cards = tuple(replace(card, pool=replace(card.pool, bandwidth=rate)) for card in cards)
        memory = memory if cards else replace(memory, bandwidth=rate)
    return replace(machine, ram=memory, accelerators=cards, pretended=True)


def _resized(pool: Pool, total: int) -> Pool:
    """The pool at another size, all of it free: what is in use today says nothing about another size."""
    return replace(pool, total_bytes=total, free_bytes=total, usable_bytes=total)
