"""``fitcheck catalog``: the models that fitcheck knows, and the user's own."""

from __future__ import annotations

from msgspec.structs import replace

from fitcheck.advise.suit import suits
from fitcheck.catalog.browse import Filters, listed
from fitcheck.errors import FitcheckError
from fitcheck.output.progress import progress
from fitcheck.session import Session, require_user_folder
from fitcheck.types import Model, Report, Task


def list_models(session: Session, filters: Filters, task: Task | None = None) -> Report:
    """Models that pass ``filters`` and are made for ``task``, by family and size."""
    if task is not None:
        filters = replace(filters, suits=lambda model: suits(model, task))
    found = listed(session.catalog, filters)
    steps = [f"fitcheck catalog show {found[0].id}"] if found else ["fitcheck catalog list"]
    notes = session.catalog.warnings
    return session.report("catalog_list", f"{len(found)} models", models=found, notes=notes, next_steps=tuple(steps))


def show(session: Session, name: str) -> Report:
    """Everything that is known about one model, each fact with its source."""
    model = session.model(name)
    sources = session.catalog.sources
    notes = tuple(f"{field}: {sources.get(key, key)}" for field, key in model.sources.items())
    steps = (f"fitcheck explain {name}", f"fitcheck plan {name}")
    return session.report("catalog_show", model.name, models=(model,), notes=notes, next_steps=steps)


def verify(session: Session) -> Report:
    """Check every row against itself: parameters, file sizes, names, sources."""
    from fitcheck.catalog.verify import verify as defects_of

    defects = defects_of(session.catalog, session.facts.quantizations)
    count = len(session.catalog.models)
    summary = f"{count} models, {len(defects)} facts that do not add up" if defects else f"{count} models add up"
    return session.report("catalog_verify", summary, notes=tuple(map(str, defects)))


def add(session: Session, reference: str) -> Report:
    """Keep a model among the user's own: a file, a folder, or ``hf:org/repo[:quant]``."""
    from fitcheck.catalog import user

    with progress() as show:
        show(reference, 0.0)
        found = session.model(reference)
    model = user.add(require_user_folder(), reference, found)
    return session.report(
        "catalog_add", f"added {model.id}", models=(model,), next_steps=(f"fitcheck explain {model.id}",)
    )


def remove(session: Session, name: str) -> Report:
    """Forget one of the user's own models."""
    from fitcheck.catalog import user

    model = user.remove(require_user_folder(), name)
    return session.report("catalog_remove", f"removed {model.id}", models=(model,))


def refresh(session: Session) -> Report:
    """Read the user's own models again from where they came. One that cannot be read stays as it was."""
    from fitcheck.catalog import user

    folder = require_user_folder()
    references = user.refs(folder)
    read: list[Model] = []
    notes: list[str] = []
    with progress() as show:
        for number, reference in enumerate(references):
            show(reference, number / len(references))
            try:
                read.append(user.add(folder, reference, session.model(reference)))
            except FitcheckError as error:
                notes.append(f"{reference}: {error.message}")
    return session.report("catalog_refresh", f"{len(read)} models read again", models=tuple(read), notes=tuple(notes))
