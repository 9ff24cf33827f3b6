"""Which open-weight models will really run on this machine, and how fast?

    import fitcheck
    from fitcheck.types import Request

    machine = fitcheck.probe()
    fit = fitcheck.estimate("qwen3-14b", machine, Request(context_tokens=32768))
    print(fit.verdict, fit.need_bytes, fit.speed.decode_per_s)

Nothing is imported before it is used. Every value is described in ``fitcheck.types``; what a user can mend is raised as
``fitcheck.errors.FitcheckError``.
"""

import sys
from types import ModuleType

TYPE_CHECKING = False  # typing itself takes longer to import than this file
if TYPE_CHECKING:
    from fitcheck.api import check, estimate, find, pretend, probe, rank

__version__ = "0.1.0"
__all__ = ["__version__", "check", "estimate", "find", "pretend", "probe", "rank"]

_ALSO_PACKAGES = ("probe", "estimate")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'fitcheck' has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"fitcheck.{name}") if name in _ALSO_PACKAGES else getattr(import_module("fitcheck.api"), name)


class _CallablePackage(ModuleType):
    """A package whose name is a function of the API as well: ``fitcheck.probe`` and ``fitcheck.probe()``."""

    def __call__(self, *arguments: object, **named: object) -> object:
        from fitcheck import api

        return getattr(api, self.__name__.rpartition(".")[2])(*arguments, **named)


class _Package(ModuleType):
    """Makes the two packages callable when the import system binds them here."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _ALSO_PACKAGES and isinstance(value, ModuleType):
            value.__class__ = _CallablePackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
