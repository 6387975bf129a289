"""What the records of a sweep tell about its fairness."""

from collections import defaultdict
from collections.abc import Hashable, Iterator

from harness.comparison import Level, Note
from harness.fairness.words import listed, where
from harness.plan import Cell, Plan
from harness.record import Record
from harness.summary import Records, cells_of, done_runs, provenance, shared_fingerprints

DECIDED = {
    "data": ("data.",),
    "split": ("data.",),
    "composed": ("data.",),
    "init": ("model.",),
    "order": ("data.", "trainer.batch_size"),
    "steps": ("data.", "trainer.batch_size", "trainer.epochs"),
    "parameters": ("model.",),
}
"""What arms must share, by the config keys that decide it: where one is tuned, it may differ."""

SET_BY_US = ("flags.OMP_NUM_THREADS", "flags.MKL_NUM_THREADS")
"""Set for workers and not for `train`; torch's threads are `trainer.threads` in both."""


def notes(plan: Plan, records: Records) -> Iterator[Note]:
    """All notes that follow from records."""
    for check in (baseline, identical, seeds, fingerprints, amounts, sources, pairs):
        yield from check(plan, records)


def baseline(plan: Plan, records: Records) -> Iterator[Note]:
    """No baseline, or none of its runs done although others are."""
    for task in plan.tasks:
        cells = cells_of(plan, task)
        cell = next((cell for cell in cells if cell.arm == plan.baseline), None)
        if cell is None:
            yield Note("alarm", f"{where(plan, task)}the baseline {plan.baseline} is no arm here")
        elif (
            not done_runs(cell, records)
            and cell.runs
            and all(run in records for run in cell.runs.values())
        ):
            text = f"{where(plan, task)}no run of the baseline {plan.baseline} is done"
            yield Note("alarm", f"{text}: nothing to compare with")


def outcome(record: Record) -> Hashable:
    """All that was measured on held-out data; the training loss is the arm's own affair."""
    curve = tuple(
        (key, repr(value))
        for point in record.curve
        for key, value in sorted(point.items())
        if key.startswith("val/")
    )
    return tuple(sorted((key, repr(value)) for key, value in record.metrics.items())), curve


def identical(plan: Plan, records: Records) -> Iterator[Note]:
    """Arms whose runs are equal to the last bit on every seed they share (R6)."""
    for task in plan.tasks:
        groups: list[tuple[dict[int, Hashable], list[Cell]]] = []
        for cell in cells_of(plan, task):
            mine = {seed: outcome(r) for seed, r in done_runs(cell, records).items()}
            for theirs, cells in groups:
                shared = mine.keys() & theirs.keys()
                if shared and all(mine[seed] == theirs[seed] for seed in shared):
                    cells.append(cell)
                    break
            else:
                groups.append((mine, [cell]))
        for _, cells in groups:
            if len(cells) > 1:
                yield _equal(f"{where(plan, task)}{listed(cell.arm for cell in cells)}", cells)


def _equal(names: str, cells: list[Cell]) -> Note:
    if all(cell.config == cells[0].config for cell in cells):
        return Note("note", f"{names} are one config under several names")
    text = f"{names} are equal to the last bit although their configs differ"
    return Note("alarm", f"{text}: what sets them apart may not reach the training")


def seeds(plan: Plan, records: Records) -> Iterator[Note]:
    """Arms on which the seed changes nothing, so that repeating them measures nothing."""
    for task in plan.tasks:
        stuck = []
        for cell in cells_of(plan, task):
            outcomes = [outcome(record) for record in done_runs(cell, records).values()]
            if len(outcomes) > 1 and len(set(outcomes)) == 1:
                stuck.append(cell.arm)
        if stuck:
            text = f"{where(plan, task)}every seed of {listed(stuck)} gave the same run"
            yield Note("alarm", f"{text}: the spread is not that of new seeds")


def fingerprints(plan: Plan, records: Records) -> Iterator[Note]:
    """Arms of one seed that did not share data, split, initial weights or order (R1, R5)."""
    unequal: dict[tuple[str, str], list[int]] = defaultdict(list)
    for mark in shared_fingerprints(plan, records):
        if len(mark.values) > 1:
            unequal[mark.task, mark.kind].append(mark.seed)
    for (task, kind), at in unequal.items():
        groups: dict[str | None, list[str]] = defaultdict(list)
        for cell in cells_of(plan, task):
            record = done_runs(cell, records).get(at[0])
            if record is not None:
                groups[record.fingerprints.get(kind)].append(cell.arm)
        sides = " against ".join(listed(names) for names in groups.values())
        keys = _tuned(plan, kind)
        why = "the pairs differ in more than the loss"
        why += ", be it in which items train or in how these are corrupted" * (kind == "split")
        yield Note(
            "note" if keys else "alarm",
            f"{where(plan, task)}the arms do not share their {kind} at {len(at)} of "
            f"{len(plan.seeds)} seeds (seed {at[0]}: {sides}): "
            + (f"{listed(keys)} was tuned" if keys else why),
        )


def _tuned(plan: Plan, what: str) -> list[str]:
    """The tuned keys that decide something arms would share otherwise."""
    ranges = plan.tuning.ranges.values() if plan.tuning else []
    keys = dict.fromkeys(key for arm in ranges for key in arm)
    return [key for key in keys if key.startswith(DECIDED[what])]


def amounts(plan: Plan, records: Records) -> Iterator[Note]:
    """Arms that took more steps, or have more parameters, than others."""
    for task in plan.tasks:
        cells = cells_of(plan, task)
        for name in ("steps", "parameters"):
            if name == "steps" and len({cell.steps for cell in cells}) > 1:
                continue  # the plan has said so already
            seen: dict[str, list[int]] = {}
            for cell in cells:
                values = {getattr(r, name) for r in done_runs(cell, records).values()}
                if values:
                    seen[cell.arm] = sorted(values)
            if len({tuple(values) for values in seen.values()}) > 1:
                each = listed(f"{arm} {_range(values)}" for arm, values in seen.items())
                keys = _tuned(plan, name)
                why = f" ({listed(keys)} was tuned)" if keys else ""
                level: Level = "note" if keys else "warning"
                yield Note(level, f"{where(plan, task)}unequal {name}: {each}{why}")


def _range(values: list[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def sources(plan: Plan, records: Records) -> Iterator[Note]:
    """Records made by different code or on different machines, or from uncommitted changes."""
    for cell in plan.cells:
        made = done_runs(cell, records).values()
        marks = {r.fingerprints["loss"] for r in made if "loss" in r.fingerprints}
        if len(marks) > 1:
            text = f"{where(plan, cell.task)}the runs of {cell.arm} were made with {len(marks)} "
            yield Note("alarm", f"{text}versions of its loss")
    merged = provenance(plan, records)
    varied = {key: values for key, values in merged.items() if len(values) > 1}
    mixed = [f"{key} ({listed(values)})" for key, values in varied.items() if key not in SET_BY_US]
    if mixed:
        yield Note("warning", f"the records differ in {'; '.join(mixed)}")
    if "True" in merged.get("dirty", []):
        yield Note("note", "some records were made from uncommitted changes of the code")


def pairs(plan: Plan, records: Records) -> Iterator[Note]:
    """Arms compared on fewer seeds than planned, once nothing is left to run."""
    if not plan.settled or any(run.id not in records for run in plan.runs()):
        return
    for task in plan.tasks:
        have = {cell.arm: set(done_runs(cell, records)) for cell in cells_of(plan, task)}
        short: dict[int, list[str]] = defaultdict(list)
        for arm, runs in have.items():
            both = len(have.get(plan.baseline, set()) & runs)
            if arm != plan.baseline and 0 < both < len(plan.seeds):
                short[both].append(arm)
        for both, arms in short.items():
            text = f"{where(plan, task)}{both} of {len(plan.seeds)} seeds are done by both"
            yield Note("note", f"{text} {plan.baseline} and {listed(arms)}")
