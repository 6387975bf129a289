"""What a reader must know before believing a table: arms are checked against each other.

Pure functions from a plan and its records to notes. Needs no torch. One file each for what the plan
alone tells, what records tell, how arms were tuned, and whether controls came out as they must.
"""

from collections.abc import Iterable, Sequence

from harness.comparison import Note, TaskResult
from harness.fairness import controls, plans, runs, tuning
from harness.fairness.words import listed
from harness.plan import Plan
from harness.summary import Records

__all__ = ["listed", "notes", "of_plan", "serious"]

LEVELS = ("alarm", "warning", "note")


def notes(plan: Plan, records: Records, tasks: Sequence[TaskResult] = ()) -> list[Note]:
    """All notes on a sweep, alarms first; those on controls need their results."""
    found = [*of_plan(plan), *runs.notes(plan, records), *tuning.notes(plan, records)]
    found += controls.notes(tasks, tuned=plan.tuning is not None)
    if plan.overrides:
        found.append(Note("note", f"overrides from the command line: {' '.join(plan.overrides)}"))
    return _sorted(found)


def of_plan(plan: Plan) -> list[Note]:
    """What can be said before anything has run."""
    return _sorted(plans.notes(plan))


def serious(found: Sequence[Note]) -> list[Note]:
    """Alarms and warnings: what `--strict` does not let pass."""
    return [note for note in found if note.level != "note"]


def _sorted(found: Iterable[Note]) -> list[Note]:
    return sorted(found, key=lambda note: LEVELS.index(note.level))
