"""What each command does. Torch and Lightning are imported only where something is trained."""

import contextlib
import dataclasses
import fnmatch
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import sweep as sweeps
from harness import tune
from harness.comparison import Note
from harness.launch import Launch, default_jobs
from harness.plan import Plan, PlannedRun, Tuning
from harness.progress import Progress, clock
from harness.record import Record, lacks_gradients
from harness.shown import clean
from harness.store import Store

SHOWN = 5
"""How many runs that are not done are named under a table."""


class Stopped(Exception):  # noqa: N818 - asked for by the user
    """Ctrl-C: how far it came and how to go on."""


@dataclass(frozen=True)
class Choice:
    """Which runs of a sweep to train, and how."""

    retry_failed: bool = False
    only: str | None = None
    force: bool = False
    jobs: int | None = None


def read_all(plan: Plan, store: Store) -> dict[str, Record]:
    """Every record of the plan that exists, by run id."""
    found = {run.id: store.read(run.id) for run in plan.runs()}
    return {run_id: record for run_id, record in found.items() if record is not None}


def settled(plan: Plan, store: Store) -> tuple[Plan, dict[str, Record]]:
    """The records there are, and the plan with all that follows from them."""
    while True:
        records = read_all(plan, store)
        advanced = tune.advance(plan, records)
        if advanced == plan:
            return plan, records
        plan = advanced


def to_do(plan: Plan, records: Mapping[str, Record], choice: Choice) -> list[PlannedRun]:
    """The runs to train, interleaved across arms.

    Raises:
        ValueError: the pattern matches no arm.
    """
    if choice.only and not any(_matches(choice.only, c.task, c.arm) for c in plan.cells):
        raise ValueError(f"--only {choice.only} matches no arm of {', '.join(plan.arms)}")

    def wanted(run: PlannedRun) -> bool:
        if choice.only and not _matches(choice.only, run.task, run.arm):
            return False
        record = records.get(run.id)
        if record is None or choice.force:
            return True
        again = choice.retry_failed and record.status != "done"
        return again or lacks_gradients(record, run.config.get("trainer", {}).get("gradients", 0))

    return [run for run in plan.runs() if wanted(run)]


def _matches(pattern: str, task: str, arm: str) -> bool:
    return fnmatch.fnmatchcase(arm, pattern) or fnmatch.fnmatchcase(f"{task}/{arm}", pattern)


def sweep(name: str, overrides: Sequence[str], choice: Choice) -> list[Note]:
    """Plan, train what is missing, report; the same call goes on where it was stopped.

    Returns the notes on the comparison, as `plan` and `report` do.

    Raises:
        ValueError: something is wrong with the sweep; nothing was trained.
        Stopped: interrupted.
        StoreError: the store cannot be written.
    """
    wanted = sweeps.request(name, overrides)
    if wanted.trackers:
        from harness.trackers import check_trackers

        check_trackers(wanted.trackers)
    made, plan, records = planned(wanted)
    runs = to_do(plan, records, choice)
    sweeps.save(wanted, made)
    jobs = min(choice.jobs or default_jobs(), len(runs) + _later(plan))
    print(summary(plan, records, runs, jobs))
    if runs:
        _train_all(plan, records, runs, wanted, choice, jobs)
        plan, records = settled(plan, wanted.store)
        sweeps.save(wanted, dataclasses.replace(made, tuning=plan.tuning))
    return _show(plan, records, wanted)


def planned(wanted: sweeps.Request) -> tuple[Plan, Plan, dict[str, Record]]:
    """The plan to be saved, the same with all that follows from records, and these."""
    made = sweeps.plan(wanted)
    plan, records = settled(made, wanted.store)
    made = sweeps.remember(wanted, made, plan, records)
    return made, dataclasses.replace(plan, planned=made.planned, late=made.late), records


def _train_all(
    plan: Plan,
    records: dict[str, Record],
    runs: Sequence[PlannedRun],
    wanted: sweeps.Request,
    choice: Choice,
    jobs: int,
) -> None:
    again = choice.force or choice.retry_failed
    kept = {i: record for i, record in records.items() if i not in {run.id for run in runs}}
    progress = Progress(plan, kept, len(runs) + _later(plan), sys.stdout)
    launch = Launch(
        runs,
        wanted.store,
        jobs=jobs,
        trackers=wanted.trackers,
        plugins=wanted.plugins,
        force=again,
        more=_later(plan),
        log=wanted.folder / "workers.log",
    )
    refused = []
    asked = {run.id for run in runs}
    try:
        for event in launch.events(progress.tick):
            progress.end(event, wanted.store.read(event.run.id))
            if event.status == "refused":
                refused.append(event)
            if plan.tuning:  # what was tried may say what is to be trained next
                progress.plan = plan = tune.advance(plan, progress.records)
                more = [run for run in to_do(plan, records, choice) if run.id not in asked]
                launch.todo.extend(more)
                asked |= {run.id for run in more}
    except KeyboardInterrupt:
        left = len(runs) - progress.ended
        raise Stopped(f"stopped with {left} runs left; go on with: {plan.command}") from None
    for event in refused:
        print(f"{event.run.arm} seed {event.run.seed}: {clean(event.error)}", file=sys.stderr)


def plan(name: str, overrides: Sequence[str], jobs: int | None) -> list[Note]:
    """Print what a sweep would do; trains nothing and writes nothing."""
    from harness.compare import compare
    from harness.fairness import serious

    _, made, records = planned(sweeps.request(name, overrides))
    left = to_do(made, records, Choice())
    notes = compare(made, records).notes
    print(summary(made, records, left, jobs or default_jobs(), arms=True))
    for note in serious(notes):
        print(f"{note.level:<10}{clean(note.text)}")
    return notes


def report(name: str, overrides: Sequence[str], against: str | None = None) -> list[Note]:
    """Compare whatever records there are, print the table, write the reports."""
    wanted = sweeps.request(name, overrides)
    made, plan, records = planned(wanted)
    sweeps.save(wanted, made)
    return _show(plan, records, wanted, against)


def bundle(name: str, overrides: Sequence[str], output: str | None) -> None:
    """Write what there is of a sweep as one archive.

    Raises:
        ValueError: there is no record yet, or something is there under the archive's name.
        StoreError: it cannot be written.
    """
    from harness import pack

    wanted = sweeps.request(name, overrides)
    made, plan, records = planned(wanted)
    sweeps.save(wanted, made)
    path, needs = pack.bundle(wanted, plan, records, output)
    missing = len({run.id for run in plan.runs()}) + _later(plan) - len(records)
    print(f"bundle    {path}: {_many(len(records), 'record')}, {missing} of the plan missing")
    for need in needs:
        print(f"not in it {need.name}, a {need.kind} of yours; sha256 {need.sha256[:12]}")


def _show(
    plan: Plan,
    records: Mapping[str, Record],
    wanted: sweeps.Request,
    against: str | None = None,
) -> list[Note]:
    from harness.compare import compare
    from harness.report import terminal, write_report

    comparison = compare(plan, records, against)
    print()
    print(terminal(comparison, color=sys.stdout.isatty()))
    bad = [run for run in plan.runs() if run.id in records and records[run.id].status != "done"]
    for run in bad[:SHOWN]:
        record = records[run.id]
        print(f"{record.status}: {run.task} {run.arm} seed {run.seed}: {clean(record.error)}")
    if bad:
        print(f"{_many(len(bad), 'run')} not done; --retry-failed trains them again")
    print(f"\nreport  {write_report(plan, records, wanted.folder, wanted.store, against)}")
    return comparison.notes


def summary(
    plan: Plan,
    records: Mapping[str, Record],
    left: Sequence[PlannedRun],
    jobs: int,
    *,
    arms: bool = False,
) -> str:
    """What would run, what is done, what the seeds can show, and how long it takes."""
    from harness.statistics import evidence

    trials = _trials(plan)
    total = len(plan.cells) * len(plan.seeds)
    later = _later(plan)
    named = _many(len(plan.arms), "arm")
    if plan.controls:
        named = f"({named} + {_many(len(plan.controls), 'control')})"
    several = [_many(len(plan.tasks), "task")] if len(plan.tasks) > 1 else []
    product = " x ".join([*several, named, _many(len(plan.seeds), "seed")])
    state = f"{len(records)} done, {len(left) + later} to run"
    if left:
        jobs = min(jobs, len(left))
        took = _duration(plan, records, left, jobs, later)
        state += f" in {_many(jobs, 'process', 'es')}; {took}"
    comparisons = (len(plan.arms) - 1) * len(plan.tasks)
    tuned = f" + {trials} of the tuner" if trials else ""
    lines = [f"plan      {plan.name}: {product} = {_many(total, 'run')}{tuned}; {state}"]
    if plan.question:
        lines.insert(0, f"question  {plan.question}")
    if comparisons:
        lines.append(f"evidence  {evidence(len(plan.seeds), comparisons)}")
    if plan.tuning:
        lines.append(f"tune      {_tuning(plan.tuning)}")
    return "\n".join([*lines, *_arm_lines(plan)] if arms else lines)


def _tuning(tuning: Tuning) -> str:
    """How arms are tuned: what all may set, and what some may set beside."""
    ranges = tuning.ranges.values()
    shared = {k: v for k, v in next(iter(ranges)).items() if all(k in each for each in ranges)}
    words = [f"{key}={value}" for key, value in shared.items()]
    for arm, own in tuning.ranges.items():
        beside = [f"{key}={value}" for key, value in own.items() if key not in shared]
        words += [f"{arm} also {', '.join(beside)}"] if beside else []
    effort = f"{_many(tuning.number, 'trial')} per arm on {_many(len(tuning.seeds), 'seed')}"
    return f"{effort} by {tuning.metric} ({tuning.sampler}): {'; '.join(words)}"


def _trials(plan: Plan) -> int:
    """How many runs the tuner takes in all."""
    tuning = plan.tuning
    cells = len(plan.tasks) * len(plan.arms)
    return cells * tuning.number * len(tuning.seeds) if tuning else 0


def _later(plan: Plan) -> int:
    """How many runs are known only when others have been trained."""
    return len(plan.cells) * len(plan.seeds) + _trials(plan) - sum(1 for _ in plan.runs())


def _many(number: int, word: str, ending: str = "s") -> str:
    return f"{number} {word}" + (ending if number != 1 else "")


def _duration(
    plan: Plan, records: Mapping[str, Record], left: Sequence[PlannedRun], jobs: int, later: int
) -> str:
    """From earlier runs of this sweep where there are any, else from what the plan tried.

    Runs that are not known yet are taken to last as long as the others.
    """
    known = [record.seconds["total"] for record in records.values() if record.seconds]
    if known:
        return f"about {clock(sum(known) / len(known) * (len(left) + later) / jobs)}"
    cells = {(cell.task, cell.arm): cell.seconds for cell in plan.cells}
    expected = sum(cells[run.task, run.arm] for run in left)
    return f"about {clock(expected * (1 + later / len(left)) / jobs)}"


def _arm_lines(plan: Plan) -> list[str]:
    lines = [f"metric    {plan.metric} ({plan.directions[plan.metric]} is better)", "arms"]
    width = max(map(len, plan.arms))
    for arm, differing in plan.differences.items():
        objective, *beyond = (f"{k}={v}" for k, v in differing.items())
        mark = "  (baseline)" if arm == plan.baseline else ""
        shown = "  ".join([objective.removeprefix("objective="), *beyond])
        lines.append(f"  {arm:<{width}}  {shown}{mark}")
    if plan.controls:
        lines.append(f"controls  {', '.join(plan.controls)}")
    return lines


def demo(overrides: Sequence[str]) -> None:
    """The sweep that shows what this is, on real data, in less than a minute."""
    with contextlib.suppress(BrokenPipeError):
        sweep("quick", overrides, Choice())
