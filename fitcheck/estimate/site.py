"""A machine as one runtime sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from fitcheck.estimate.placement import Gpu, gpus_of
from fitcheck.estimate.served import as_served
from fitcheck.estimate.speed_device import Hardware
from fitcheck.types import Accelerator, Backend, Machine

if TYPE_CHECKING:
    from fitcheck.estimate.tables import Tables


class Cards:
    """What a runtime finds of a machine's cards.

    ``served``: each with the backends that the runtime has for it; ``gpus``: those that count, with what is taken
    before anything else; ``backend``: of the first, or the processor.
    """

    def __init__(self, machine: Machine, runtime: str, tables: Tables) -> None:
        self.found = machine.accelerators
        self.row = tables.runtimes.row(runtime)
        self.served = as_served(self.found, machine.os, self.row)
        self._overheads = tables.runtimes.overheads
        self.gpus = self._usable()
        self.backend = self.gpus[0].backend if self.gpus else Backend.CPU

    def _usable(self) -> tuple[Gpu, ...]:
        gpus = gpus_of(self.served, self.row.backends, self._overhead_of)
        if self.row.utilization == 1:
            return gpus
        from fitcheck.estimate.engines import share_of

        return tuple([share_of(gpu, self.row.utilization) for gpu in gpus])

    def _overhead_of(self, backend: Backend, card: Accelerator) -> int:
        return self.row.reserve_bytes + self._overheads[backend].on(card)


class Site:
    """What a runtime finds on a machine; ``hardware``: as the speed model sees it."""

    def __init__(self, machine: Machine, runtime: str, cards: Cards, hardware: Hardware, host_overhead: int) -> None:
        self.machine = machine
        self.runtime = runtime
        self.row = cards.row
        self.gpus = cards.gpus
        self.backend = cards.backend
        self.backend_name = cards.backend.value
        self.hardware = hardware
        self.host_overhead = host_overhead


class Sites:
    """The sites of one run; what machines have in common is worked out once. Objects are known by their numbers, and
    kept, so that no other gets the number of one. Raises FitcheckError for an unknown runtime.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._host_overhead = tables.runtimes.overheads[Backend.CPU].bytes
        self._sites: dict[tuple[int, str], Site] = {}
        self._cards: dict[tuple[object, ...], Cards] = {}
        self._hardware: dict[tuple[object, ...], Hardware] = {}

    def site(self, machine: Machine, runtime: str) -> Site:
        """What a runtime finds on a machine."""
        key = (id(machine), runtime)
        found = self._sites.get(key)
        if found is None:
            found = self._sites[key] = self._new(machine, runtime)
        return found

    def _new(self, machine: Machine, runtime: str) -> Site:
        same_cards = (id(machine.accelerators), machine.os, runtime)
        cards = self._cards.get(same_cards)
        if cards is None:
            cards = self._cards[same_cards] = Cards(machine, runtime, self._tables)
        processor = (id(machine.cpu), id(machine.ram.bandwidth), id(machine.calibration), machine.arch)
        hardware = self._hardware.get(same_cards + processor)
        if hardware is None:
            seen = machine if cards.served is cards.found else replace(machine, accelerators=cards.served)
            hardware = self._hardware[same_cards + processor] = Hardware(seen, runtime, self._tables.speed_model)
        return Site(machine, runtime, cards, hardware, self._host_overhead)
