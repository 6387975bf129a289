"""What each command does. Torch and Lightning are imported only where something is trained."""

import contextlib
import dataclasses
import fnmatch
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import cluster, slots, tune
from harness import sweep as sweeps
from harness.comparison import Note
from harness.launch import Launch
from harness.outlook import later_runs, many, summary
from harness.plan import Plan, PlannedRun
from harness.progress import Progress
from harness.record import Record, lacks_gradients, lacks_weights
from harness.shown import clean
from harness.store import Store, StoreError

if TYPE_CHECKING:
    from harness.cluster.cluster import Cluster

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
    devices: str | None = None
    per_device: int | None = None


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


def to_do(
    plan: Plan, records: Mapping[str, Record], choice: Choice, store: Store | None = None
) -> list[PlannedRun]:
    """The runs to train, interleaved across arms; with a store also those that lack weights there.

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
        asked = run.config.get("trainer", {})
        if store and lacks_weights(record, store.run_folder(run.id), asked.get("keep", "auto")):
            return True
        return again or lacks_gradients(record, asked.get("gradients", 0))

    return [run for run in plan.runs() if wanted(run)]


def _matches(pattern: str, task: str, arm: str) -> bool:
    return fnmatch.fnmatchcase(arm, pattern) or fnmatch.fnmatchcase(f"{task}/{arm}", pattern)


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the body as Ctrl-C does; only a process's first thread can see to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@ended_by_sigterm()
def sweep(name: str, overrides: Sequence[str], choice: Choice) -> list[Note]:
    """Plan, train what is missing, report; the same call goes on where it was stopped.

    Returns the notes on the comparison, as `plan` and `report` do.

    Raises:
        ValueError: something is wrong with the sweep; nothing was trained.
        Stopped: interrupted.
        StoreError: the store cannot be written.
        LaunchError: no process can be started.
    """
    wanted = sweeps.request(name, overrides)
    if wanted.trackers:
        from harness.trackers import check_trackers

        check_trackers(wanted.trackers)
    _check_launch(wanted, choice)
    made, plan, records = planned(wanted)
    runs = to_do(plan, records, choice, wanted.store)
    places = places_for([plan], runs, choice) if runs and not wanted.launch else None
    sweeps.save(wanted, made)
    print(summary(plan, records, runs, places))
    if runs:
        _train_all(plan, records, runs, wanted, choice, places)
        plan, records = settled(plan, wanted.store)
        sweeps.save(wanted, dataclasses.replace(made, tuning=plan.tuning))
    return _show(plan, records, wanted)


def planned(wanted: sweeps.Request) -> tuple[Plan, Plan, dict[str, Record]]:
    """The plan to be saved, the same with all that follows from records, and these."""
    made = sweeps.plan(wanted)
    plan, records = settled(made, wanted.store)
    made = sweeps.remember(wanted, made, plan, records)
    return made, dataclasses.replace(plan, planned=made.planned, late=made.late), records


def _check_launch(wanted: sweeps.Request, choice: Choice) -> None:
    """Refuse what would be noticed only when all is planned."""
    if wanted.launch is None:
        return
    given = {"--jobs": choice.jobs, "--devices": choice.devices, "--per-device": choice.per_device}
    for option, value in given.items():
        if value is not None:
            raise ValueError(f"{option} is about this machine, but launch= is given; see launch.*")
    if not (wanted.folder / "plan.json").exists():
        cluster.check(wanted.launch)


def launched(
    wanted: sweeps.Request,
    runs: Sequence[PlannedRun],
    places: slots.Places | None,
    *,
    more: int,
    log: Path,
    tell: Callable[[str], object] = print,
    **how: Any,
) -> "Launch | Cluster":
    """What trains these runs: on these places, or where `launch=` says."""
    if wanted.launch:
        tell(f"launch    {clean(cluster.words(wanted.launch))}")
        return cluster.launch_on(wanted.launch, runs, wanted.store, log, **how)
    assert places
    return Launch(runs, wanted.store, places=places, more=more, log=log, tell=tell, **how)


def places_for(plans: Sequence[Plan], runs: Sequence[PlannedRun], choice: Choice) -> slots.Places:
    """Where these runs may train, and those of the plans that are not known yet.

    Raises:
        ValueError: there is no such device, or some run needs more than there are.
    """
    cells = [cell for plan in plans if later_runs(plan) for cell in plan.cells]
    later = [PlannedRun("", cell.task, cell.arm, 0, cell.config) for cell in cells]
    devices, each = choice.devices, choice.per_device
    return slots.find([*runs, *later], jobs=choice.jobs, devices=devices, per_device=each)


def _train_all(
    plan: Plan,
    records: dict[str, Record],
    runs: Sequence[PlannedRun],
    wanted: sweeps.Request,
    choice: Choice,
    places: slots.Places | None,
) -> None:
    again = choice.force or choice.retry_failed
    kept = {i: record for i, record in records.items() if i not in {run.id for run in runs}}
    progress = Progress(plan, kept, len(runs) + later_runs(plan), sys.stdout)
    launch = launched(
        wanted,
        runs,
        places,
        trackers=wanted.trackers,
        plugins=wanted.plugins,
        force=again,
        more=later_runs(plan),
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
                more = [
                    run for run in to_do(plan, records, choice, wanted.store) if run.id not in asked
                ]
                launch.todo.extend(more)
                asked |= {run.id for run in more}
    except KeyboardInterrupt:
        left = progress.to_do - progress.ended
        how = f"with {left} runs left; go on with"
        how = how if left else "when all runs had ended; the same command prints the table"
        raise Stopped(f"stopped {how}: {plan.command}") from None
    for event in refused:
        print(f"{event.run.arm} seed {event.run.seed}: {clean(event.error)}", file=sys.stderr)


def plan(name: str, overrides: Sequence[str], choice: Choice) -> list[Note]:
    """Print what a sweep would do; trains nothing and writes nothing."""
    from harness.compare import compare
    from harness.fairness import serious

    wanted = sweeps.request(name, overrides)
    _, made, records = planned(wanted)
    left = to_do(made, records, choice, wanted.store)
    places = places_for([made], left, choice) if left and not wanted.launch else None
    notes = compare(made, records).notes
    print(summary(made, records, left, places, arms=True))
    if left and wanted.launch:
        print(f"launch    {clean(cluster.words(wanted.launch))}")
    for note in serious(notes):
        print(f"{note.level:<10}{clean(note.text)}")
    return notes


def report(name: str, overrides: Sequence[str], against: str | None = None) -> list[Note]:
    """Compare whatever records there are, print the table, write the reports."""
    wanted = sweeps.request(name, overrides)
    made, plan, records = planned(wanted)
    try:
        sweeps.save(wanted, made)
    except StoreError:  # full, or somebody else's: what it holds can be looked at all the same
        _print(plan, records, against)
        raise
    return _show(plan, records, wanted, against)


def bundle(name: str, overrides: Sequence[str], output: str | None) -> None:
    """Write what there is of a sweep as one archive.

    Raises:
        ValueError: there is no record yet, or something is there under the archive's name.
        StoreError: it cannot be written.
    """
    from harness.bundles import pack

    wanted = sweeps.request(name, overrides)
    made, plan, records = planned(wanted)
    sweeps.save(wanted, made)
    path, needs = pack.bundle(wanted, plan, records, output)
    missing = len({run.id for run in plan.runs()}) + later_runs(plan) - len(records)
    print(f"bundle    {path}: {many(len(records), 'record')}, {missing} of the plan missing")
    for need in needs:
        print(f"not in it {need.name}, a {need.kind} of yours; sha256 {need.sha256[:12]}")


def _show(
    plan: Plan,
    records: Mapping[str, Record],
    wanted: sweeps.Request,
    against: str | None = None,
) -> list[Note]:
    from harness.report import write_report

    notes = _print(plan, records, against)
    print(f"\nreport  {write_report(plan, records, wanted.folder, wanted.store, against)}")
    return notes


def _print(plan: Plan, records: Mapping[str, Record], against: str | None) -> list[Note]:
    """The table, and what is not done."""
    from harness.compare import compare
    from harness.report import terminal

    comparison = compare(plan, records, against)
    print()
    print(terminal(comparison, color=sys.stdout.isatty()))
    bad = [run for run in plan.runs() if run.id in records and records[run.id].status != "done"]
    for run in bad[:SHOWN]:
        record = records[run.id]
        print(f"{record.status}: {run.task} {run.arm} seed {run.seed}: {clean(record.error)}")
    if bad:
        print(f"{many(len(bad), 'run')} not done; --retry-failed trains them again")
    return comparison.notes


def demo(overrides: Sequence[str]) -> None:
    """The sweep that shows what this is, on real data, in less than a minute."""
    with contextlib.suppress(BrokenPipeError):
        sweep("quick", overrides, Choice())
