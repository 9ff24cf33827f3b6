"""A machine as one runtime sees it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from fitcheck.estimate.placement import Gpu, gpus_of
from fitcheck.estimate.served import as_seen
from fitcheck.estimate.speed_device import Hardware
from fitcheck.types import Accelerator, Backend, Machine

if TYPE_CHECKING:
    from fitcheck.estimate.tables import Tables


class Site:
    """What a runtime finds on a machine; worked out once for all questions about it.

    ``seen``: the machine with the backends that the runtime has for its cards; ``gpus``: the cards that count, with
    what is taken before anything else; ``backend``: of the first, or the processor. Raises FitcheckError for an unknown
    runtime.
    """

    def __init__(self, machine: Machine, runtime: str, tables: Tables) -> None:
        self.machine = machine
        self.runtime = runtime
        self.row = tables.runtimes.row(runtime)
        self.seen = as_seen(machine, self.row)
        self._tables = tables
        self._overheads = tables.runtimes.overheads
        self.host_overhead = self._overheads[Backend.CPU].bytes
        self.gpus = self._usable_gpus()
        self.backend = self.gpus[0].backend if self.gpus else Backend.CPU

    @cached_property
    def hardware(self) -> Hardware:
        """The machine as the speed model sees it."""
        return Hardware(self.seen, self.runtime, self._tables.speed_model)

    def _usable_gpus(self) -> tuple[Gpu, ...]:
        gpus = gpus_of(self.seen, self.row.backends, self._overhead_of)
        if self.row.utilization == 1:
            return gpus
        from fitcheck.estimate.engines import share_of

        return tuple([share_of(gpu, self.row.utilization) for gpu in gpus])

    def _overhead_of(self, backend: Backend, card: Accelerator) -> int:
        return self.row.reserve_bytes + self._overheads[backend].on(card)
