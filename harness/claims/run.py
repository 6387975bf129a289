"""The command `claim`: plan, train what is missing for all claims together, judge, show."""

import dataclasses
import functools
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness import commands, tune
from harness import sweep as sweeps
from harness.claims.claim import Claim, Outcome
from harness.claims.file import check_contrasts, find, folder, names, read
from harness.claims.judge import COSTS, judge, trained
from harness.outlook import many
from harness.plan import Plan, PlannedRun
from harness.progress import clock
from harness.record import Record
from harness.store import write_atomically

ALL = "all"
LONGEST = 100
"""Characters of a page's name."""


@dataclass
class Case:
    """A claim on its way: what was asked for, the plan as it is saved and as it stands."""

    claim: Claim
    wanted: sweeps.Request
    made: Plan
    plan: Plan
    records: dict[str, Record]

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to train."""
        return self.plan.settled and all(run.id in self.records for run in self.plan.runs())

    def advance(self) -> None:
        """Let the plan follow from the records there are by now."""
        self.plan = tune.advance(self.plan, self.records)

    def outcome(self) -> Outcome:
        """The verdict on what there is."""
        return judge(self.claim, self.plan, self.records)


def chosen(words: Sequence[str]) -> list[Claim]:
    """The claims of some names, each once, in alphabetical order for `all`.

    Raises:
        ValueError: no such claim, two of one name, or something is wrong with a file.
    """
    wanted = [name for word in words for name in (names() if word == ALL else [word])]
    claims = [read(find(name)) for name in dict.fromkeys(wanted)]
    by_name: dict[str, Path] = {}
    for claim in claims:
        shipped = folder() / f"{claim.name}.yaml"
        twin = by_name.setdefault(claim.name, shipped if shipped.exists() else claim.path)
        if twin.resolve() != claim.path.resolve():
            raise ValueError(f"two claims are named {claim.name}: {twin} and {claim.path}")
    return claims


def prepare(claim: Claim, overrides: Sequence[str]) -> Case:
    """The claim with its plan and the records there are; its sweep is written out as a file.

    Raises:
        ValueError: something is wrong with the claim, its sweep or an override.
        StoreError: the store cannot be written.
    """
    store = sweeps.request("quick", overrides).store
    if isinstance(claim.sweep, str):
        name = claim.sweep
    else:
        path = store.folder / "claims" / f"{claim.name}.yaml"
        text = yaml.safe_dump(claim.sweep, allow_unicode=True, sort_keys=False, width=1000)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)
        name = str(path)
    own = [f"plugins=[{folder() / claim.plugin}]"] if claim.plugin else []
    wanted = sweeps.request(name, [*own, *overrides])
    made, plan, records = commands.planned(wanted)
    known = [*plan.directions, *COSTS]
    claim = check_contrasts(claim, plan.tasks, plan.arms, known, trained(plan))
    typed = claim.name if claim.path.parent == folder() else str(claim.path)
    command = f"lossbench claim {shlex.join([typed, *overrides])}"
    made, plan = (dataclasses.replace(each, command=command) for each in (made, plan))
    return Case(claim, wanted, made, plan, records)


class Queue:
    """The runs that some claims still need, each once."""

    def __init__(self, cases: Sequence[Case], choice: commands.Choice) -> None:
        self.cases, self.choice = cases, choice
        self.asked: set[str] = set()

    def more(self) -> list[PlannedRun]:
        """Runs that have become known since the last call."""
        found = []
        for case in self.cases:
            for run in commands.to_do(case.plan, case.records, self.choice):
                if run.id not in self.asked:
                    self.asked.add(run.id)
                    found.append(run)
        return found

    @property
    def unknown(self) -> int:
        """How many runs at most are known only when others have been trained."""
        plans = [case.plan for case in self.cases]
        return sum(len(p.cells) * len(p.seeds) for p in plans if not p.settled)


def train(cases: Sequence[Case], choice: commands.Choice) -> None:
    """Train what any of the claims lacks, in one pool of processes.

    Raises:
        Stopped: interrupted.
        StoreError: a record cannot be written.
    """
    queue = Queue(cases, choice)
    runs = queue.more()
    if not runs:
        return
    first = cases[0].wanted
    places = None
    if first.launch is None:
        places = commands.places_for([case.plan for case in cases], runs, choice)
    where = f" in {many(places.most, 'process', 'es')}{places.where()}" if places else ""
    print(f"{len(runs)} runs to train{where}", file=sys.stderr)
    store = first.store
    launch = commands.launched(
        first,
        runs,
        places,
        plugins=list(dict.fromkeys(p for case in cases for p in case.wanted.plugins)),
        trackers=first.trackers,
        force=choice.force or choice.retry_failed,
        more=queue.unknown,
        log=store.folder / "claims" / "workers.log",
        tell=functools.partial(print, file=sys.stderr),
    )
    told = _Told(cases, queue)
    try:
        for event in launch.events():
            record = store.read(event.run.id)
            if record is None:  # refused, or the code has changed since it was planned
                why = event.error or "has no record under the id that was planned"
                print(f"{event.run.arm} seed {event.run.seed}: {why}", file=sys.stderr)
            else:
                told.end(event.run.id, record)
                launch.todo.extend(queue.more())
    except KeyboardInterrupt:
        words = f"stopped after {told.count} of {len(queue.asked)} runs"
        raise commands.Stopped(f"{words}; the same command goes on") from None


class _Told:
    """Says on stderr whenever the last run of a claim has ended."""

    def __init__(self, cases: Sequence[Case], queue: Queue) -> None:
        self.left = [case for case in cases if not case.ended]
        self.queue, self.count = queue, 0
        self.started = time.monotonic()

    def end(self, run: str, record: Record) -> None:
        """Give a record to every claim that needs it."""
        self.count += 1
        for case in list(self.left):
            case.records[run] = record
            case.advance()
            if case.ended:
                self.left.remove(case)
                spent = clock(time.monotonic() - self.started)
                so_far = f"{self.count}/{len(self.queue.asked)} runs, {spent}"
                print(
                    f"{case.outcome().verdict:<19}  {case.claim.name}  ({so_far})", file=sys.stderr
                )


@commands.ended_by_sigterm()
def judged(
    claims: Sequence[Claim], overrides: Sequence[str], choice: commands.Choice, *, dry: bool = False
) -> list[Outcome]:
    """Train what is missing and judge; with `dry` nothing is trained.

    Raises:
        ValueError: something is wrong with a claim; nothing was trained.
        StoreError: the store cannot be written.
    """
    cases = [prepare(claim, overrides) for claim in claims]
    for case in cases:
        sweeps.save(case.wanted, case.made)
    if not dry:
        train(cases, choice)
    for case in cases:
        case.plan, case.records = commands.settled(case.plan, case.wanted.store)
        sweeps.save(case.wanted, dataclasses.replace(case.made, tuning=case.plan.tuning))
    return [case.outcome() for case in cases]


def show(
    words: Sequence[str],
    choice: commands.Choice,
    *,
    dry: bool = False,
    form: str = "table",
    report: bool = False,
) -> int:
    """Test claims by name and print the verdicts; without a name list what there is.

    Args:
        words: names, files of one's own, `all`; and overrides, which have a `=`.
        choice: which runs to train, and how.
        dry: judge what there is and train nothing.
        form: `table`, `json` or `markdown`.
        report: write the page, as HTML and as Markdown, to the store.

    Returns:
        The exit code.
    """
    named = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if not named:
        if overrides:
            raise ValueError(f"claim needs a name, or all, before {overrides[0]}")
        return _list()
    outcomes = judged(chosen(named), overrides, choice, dry=dry)
    from harness.report import claims as page
    from harness.report import claimtext

    if form == "json":
        print(claimtext.to_json(outcomes), end="")
    elif form == "markdown":
        print(claimtext.table(outcomes), end="")
    else:
        print(claimtext.terminal(outcomes, color=sys.stdout.isatty()), end="")
    if report:
        folder = sweeps.request("quick", overrides).store.folder / "claims"
        stem = "textbook" if ALL in named else "+".join(each.claim.name for each in outcomes)
        path = folder / f"{stem[:LONGEST]}.html"
        write_atomically(path.with_suffix(".md"), claimtext.to_markdown(outcomes))
        write_atomically(path, page.to_html(outcomes))
        print(f"\nreport  {path}", file=sys.stderr)
    return 0


def _list() -> int:
    """Names and sentences of the shipped claims."""
    claims = chosen([ALL])
    width = max(len(claim.name) for claim in claims)
    for claim in claims:
        print(f"{claim.name:<{width}}  {claim.claim}")
    print("\nlossbench claim NAME tests one, claim all tests all; --report writes the page")
    return 0
