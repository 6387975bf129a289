"""What a reader must know before believing a table: arms are checked against each other.

Pure functions from a plan and its records to notes. Needs no torch.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

from harness.comparison import Note
from harness.nested import flat
from harness.plan import Cell, Plan, Tuning
from harness.record import Record
from harness.summary import Records, cells_of, done_runs, provenance, shared_fingerprints

FARTHEST_GRADIENT = 3.0  # times the baseline's at the first batch, beyond which arms are warned of
LOSS_KEYS = ("objective", "loss")  # of Plan.differences: what an arm is about
NAMES_SHOWN = 6
NAME_LENGTH = 40  # of a name within a sentence


def notes(plan: Plan, records: Records) -> list[Note]:
    """All notes on a sweep, alarms first."""
    checks = (baseline, identical, seeds, fingerprints, amounts, sources, pairs)
    found = [*configs(plan), *gradients(plan), *tuning(plan)]
    found += [note for check in checks for note in check(plan, records)]
    if plan.overrides:
        found.append(Note("note", f"overrides from the command line: {' '.join(plan.overrides)}"))
    return sorted(found, key=lambda note: ("alarm", "warning", "note").index(note.level))


def listed(names: Iterable[object]) -> str:
    """Names with commas, long ones cut, and no more than a few.

    >>> listed("abc")
    'a, b, c'
    """
    words = [
        text if len(text := str(n)) <= NAME_LENGTH else f"{text[:NAME_LENGTH]}…" for n in names
    ]
    more = [f"{len(words) - NAMES_SHOWN} more"] if len(words) > NAMES_SHOWN + 1 else []
    return ", ".join([*words[:NAMES_SHOWN], *more] if more else words)


def _where(plan: Plan, task: str) -> str:
    return f"{task}: " if len(plan.tasks) > 1 else ""


def baseline(plan: Plan, records: Records) -> Iterator[Note]:
    """No baseline, or none of its runs done although others are."""
    for task in plan.tasks:
        cells = cells_of(plan, task)
        cell = next((cell for cell in cells if cell.arm == plan.baseline), None)
        if cell is None:
            yield Note("alarm", f"{_where(plan, task)}the baseline {plan.baseline} is no arm here")
        elif (
            not done_runs(cell, records)
            and cell.runs
            and all(run in records for run in cell.runs.values())
        ):
            text = f"{_where(plan, task)}no run of the baseline {plan.baseline} is done"
            yield Note("alarm", f"{text}: nothing to compare with")


def _outcome(record: Record) -> Hashable:
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
            mine = {seed: _outcome(r) for seed, r in done_runs(cell, records).items()}
            for theirs, cells in groups:
                shared = mine.keys() & theirs.keys()
                if shared and all(mine[seed] == theirs[seed] for seed in shared):
                    cells.append(cell)
                    break
            else:
                groups.append((mine, [cell]))
        for _, cells in groups:
            if len(cells) > 1:
                yield _equal(f"{_where(plan, task)}{listed(cell.arm for cell in cells)}", cells)


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
            outcomes = [_outcome(record) for record in done_runs(cell, records).values()]
            if len(outcomes) > 1 and len(set(outcomes)) == 1:
                stuck.append(cell.arm)
        if stuck:
            text = f"{_where(plan, task)}every seed of {listed(stuck)} gave the same run"
            yield Note("alarm", f"{text}: the spread is not that of new seeds")


def fingerprints(plan: Plan, records: Records) -> Iterator[Note]:
    """Arms of one seed that did not share data, split, initial weights or order (R1, R5)."""
    unequal: dict[tuple[str, str], list[int]] = defaultdict(list)
    for mark in shared_fingerprints(plan, records):
        if len(mark.values) > 1:
            unequal[mark.task, mark.kind].append(mark.seed)
    for (task, kind), where in unequal.items():
        groups: dict[str | None, list[str]] = defaultdict(list)
        for cell in cells_of(plan, task):
            record = done_runs(cell, records).get(where[0])
            if record is not None:
                groups[record.fingerprints.get(kind)].append(cell.arm)
        sides = " against ".join(listed(names) for names in groups.values())
        yield Note(
            "alarm",
            f"{_where(plan, task)}the arms do not share their {kind} at {len(where)} of "
            f"{len(plan.seeds)} seeds (seed {where[0]}: {sides}): the pairs differ in more than "
            "the loss",
        )


def amounts(plan: Plan, records: Records) -> Iterator[Note]:
    """Arms that took more steps, or have more parameters, than others."""
    for task in plan.tasks:
        for name in ("steps", "parameters"):
            seen: dict[str, list[int]] = {}
            for cell in cells_of(plan, task):
                values = {getattr(r, name) for r in done_runs(cell, records).values()}
                if values:
                    seen[cell.arm] = sorted(values)
            if len({tuple(values) for values in seen.values()}) > 1:
                each = listed(f"{arm} {_range(values)}" for arm, values in seen.items())
                yield Note("warning", f"{_where(plan, task)}unequal {name}: {each}")


def _range(values: list[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"


def configs(plan: Plan) -> Iterator[Note]:
    """Arms that differ from the baseline beyond their loss (R5)."""
    for arm, changes in plan.differences.items():
        other = [f"{k}={v}" for k, v in changes.items() if k.split(".")[0] not in LOSS_KEYS]
        if other:
            yield Note(
                "warning", f"{arm} differs from {plan.baseline} beyond its loss: {listed(other)}"
            )


def gradients(plan: Plan) -> Iterator[Note]:
    """Arms whose first gradients are far from the baseline's in size (R5).

    Only where the step follows the size of the gradient: Adam divides by it, unless it is clipped.
    """
    if plan.tuning and all("optimizer.lr" in keys for keys in plan.tuning.ranges.values()):
        return  # every arm finds the step size that suits its gradients
    for task in plan.tasks:
        cells = {cell.arm: cell for cell in cells_of(plan, task)}
        base = cells.get(plan.baseline)
        if base is None or not base.gradient or not _scaled(flat(base.config)):
            continue
        ratios = {
            arm: cell.gradient / base.gradient for arm, cell in cells.items() if cell.gradient
        }
        low, high = 1 / FARTHEST_GRADIENT, FARTHEST_GRADIENT
        far = [f"{arm} ({ratio:.2g}x)" for arm, ratio in ratios.items() if not low <= ratio <= high]
        if far:
            text = f"{_where(plan, task)}first gradients differ from the baseline's by more than "
            yield Note("warning", f"{text}{high:g}x at one step size: {listed(far)}")


def _scaled(config: Mapping[str, Any]) -> bool:
    clipped = config.get("trainer.gradient_clip")
    return config.get("optimizer.name") == "sgd" or bool(clipped)


def sources(plan: Plan, records: Records) -> Iterator[Note]:
    """Records made by different code or on different machines, or from uncommitted changes."""
    for cell in plan.cells:
        made = done_runs(cell, records).values()
        marks = {r.fingerprints["loss"] for r in made if "loss" in r.fingerprints}
        if len(marks) > 1:
            text = f"{_where(plan, cell.task)}the runs of {cell.arm} were made with {len(marks)} "
            yield Note("alarm", f"{text}versions of its loss")
    merged = provenance(plan, records)
    mixed = [f"{key} ({listed(values)})" for key, values in merged.items() if len(values) > 1]
    if mixed:
        yield Note("warning", f"the records differ in {'; '.join(mixed)}")
    if "True" in merged.get("dirty", []):
        yield Note("note", "some records were made from uncommitted changes of the code")


def tuning(plan: Plan) -> Iterator[Note]:
    """Says that one learning rate served all arms, unless something was tuned (R3)."""
    if plan.tuning:
        yield _effort(plan.tuning)
        return
    settings = [flat(cell.config) for cell in plan.cells]
    rates = {str(keys[key]) for keys in settings for key in keys if key.split(".")[-1] == "lr"}
    if len(plan.arms) > 1 and len(rates) == 1:
        yield Note(
            "note",
            f"all arms share one untuned learning rate ({rates.pop()}), which may suit one loss "
            "better than another",
        )


def _effort(tuning: Tuning) -> Note:
    shared = set.intersection(*(set(keys) for keys in tuning.ranges.values()))
    how = "evenly spread, the same for all arms" if tuning.sampler == "spread" else "by TPE"
    number = len(tuning.seeds)
    seeds = "a seed" if number == 1 else f"{number} seeds"
    each = "for every seed anew" if tuning.anew else f"on {seeds} of the tuner's own"
    text = (
        f"every arm was tuned with {tuning.number} trials ({how}) of {', '.join(sorted(shared))}, "
        f"{each}, by {tuning.metric}"
    )
    own = [arm for arm, keys in tuning.ranges.items() if set(keys) - shared]
    also = f"; settings of their own had {listed(own)}" if own else ""
    return Note("note", text + also)


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
            text = f"{_where(plan, task)}{both} of {len(plan.seeds)} seeds are done by both"
            yield Note("note", f"{text} {plan.baseline} and {listed(arms)}")
