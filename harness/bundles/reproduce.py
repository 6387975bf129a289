"""Repeating the runs of a sweep that somebody sent, and saying whether they came out as before.

Runs are trained by the same workers as those of a sweep, in a store of their own, so that records
that were there already do not answer for them, and the same command goes on where it was stopped.
"""

import hashlib
import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import provenance, slots
from harness.archive import FAULTS
from harness.bundles import agreement, contents
from harness.bundles.agreement import Difference, Group, Noise, Pair
from harness.bundles.contents import Bundle
from harness.bundles.received import Received, changes, check_data, given_by, made_here
from harness.commands import read_all
from harness.compare import compare
from harness.comparison import Comparison
from harness.launch import Launch
from harness.plan import PlannedRun
from harness.progress import Progress, clock
from harness.record import Record
from harness.report.style import clean
from harness.store import Store, dump_json, write_atomically
from harness.sweep import PACKAGES

NOT_REPRODUCED = 4
"""Exit code where something came out otherwise."""
SHOWN = 60
"""Most differences that are printed."""


@dataclass(frozen=True)
class Choice:
    """How to repeat: how many runs, in which store, on which device, by how many processes."""

    sample: int | None = None
    store: str | None = None
    device: str | None = None
    jobs: int | None = None


def reproduce(path: str, overrides: Sequence[str], choice: Choice) -> int:
    """Repeat runs of an archive; 0 if they came out as before, 4 if not.

    Raises:
        ValueError: the archive, what it needs, or the data here are not as they must be; nothing
            was trained.
        StoreError: the store cannot be written, or holds something else.
    """
    sent = contents.read(Path(path))
    made = made_here(sent, given_by(sent, overrides, choice.device))
    before = _compared(sent)
    runs = sampled(made, choice.sample)
    said = [*changes(made), *check_data(made, runs)]
    print(f"bundle    {sent.plan.name}: repeating {len(runs)} of {len(sent.records)} runs")
    for line in said:
        print(f"changed   {clean(line)}")
    store = _store(made, choice)
    print(f"store     {store.folder}", flush=True)
    records, lacking = _train(made, runs, store, choice)
    pairs = [
        Pair(run, made.there(run), records.get(run.id), lacking.get(run.id, "no record"))
        for run in runs
    ]
    return _judge(made, before, pairs, records)


def _compared(sent: Bundle) -> Comparison:
    """The bundle's own comparison, made anew: its reports are not read."""
    try:
        return compare(sent.plan, sent.records)
    except (ValueError, *FAULTS) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"bundle: its plan and records do not belong together: {said}") from error


def sampled(made: Received, number: int | None) -> list[PlannedRun]:
    """Runs to repeat: all that the bundle has a record of, or so many, spread over arms and seeds.

    Each is of another arm and another seed than the one before, until all arms and all seeds have
    been taken; of few, the arms are taken evenly from all. The tuner's runs come last.
    """
    cells, seeds = made.plan.cells, made.plan.seeds
    runs = {r.id: r for r in made.plan.runs() if made.ids[r.id] in made.sent.records}
    few = min(number or len(runs), len(cells))
    arms, period = [cells[i * len(cells) // few] for i in range(few)], math.lcm(few, len(seeds))
    order = [
        arms[i % few].runs.get(seeds[(i + i // period) % len(seeds)], "")
        for i in range(few * len(seeds))  # every arm with every seed, once
    ]
    chosen = [run for run in dict.fromkeys([*order, *runs]) if run in runs][:number]
    return [run for run in runs.values() if run.id in chosen]


def _store(made: Received, choice: Choice) -> Store:
    """A folder for this archive alone, begun with the same code, versions and device.

    Raises:
        ValueError: it holds other runs, which must not answer for these.
        StoreError: it cannot be written.
    """
    default = Path("results") / "reproduced" / f"{made.plan.name}-{made.sent.digest[:12]}"
    folder = Path(choice.store) if choice.store else default
    files = [file for package in PACKAGES for file in sorted(package.rglob("*.py"))]
    code = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    mark = {
        "bundle": made.sent.digest,
        "code": code,
        "versions": provenance.versions(),
        "machine": agreement.machine(),
        "device": made.given.settings["trainer.accelerator"],
    }
    place = folder / "reproduction.json"
    if place.exists():
        try:
            begun = json.loads(place.read_text(encoding="utf-8"))
            other = [key for key, value in mark.items() if begun.get(key) != value]
        except (OSError, ValueError, AttributeError):
            other = ["reproduction.json"]
        if other:
            raise ValueError(
                f"{folder} was begun with another {' and '.join(other)}; give another --store"
            )
    elif (folder / "runs").exists():
        raise ValueError(f"{folder} holds runs of others already; give another --store")
    else:
        write_atomically(place, dump_json(mark))
    return Store(folder)


def _train(
    made: Received, runs: Sequence[PlannedRun], store: Store, choice: Choice
) -> tuple[dict[str, Record], dict[str, str]]:
    """Train what is not there, or failed here alone: all records, and why some are lacking."""
    there = read_all(made.plan, store)
    failed = {run.id for run in runs if run.id in there and there[run.id].status == "failed"}
    again = {run.id for run in runs if run.id in failed and made.there(run).status != "failed"}
    left = [run for run in runs if run.id not in there or run.id in again]
    lacking: dict[str, str] = {}
    if left:
        places = slots.find(left, jobs=choice.jobs)
        took = sum(made.there(run).seconds.get("total", 0.0) for run in left)
        print(f"training  {len(left)} runs, which took {clock(min(took, 1e9))} there", flush=True)
        kept = {run: record for run, record in there.items() if run not in again}
        progress = Progress(made.plan, kept, len(left), sys.stdout)
        log = store.folder / "workers.log"
        launch = Launch(
            left, store, places=places, plugins=made.given.plugins, force=bool(again), log=log
        )
        for event in launch.events(progress.tick):
            progress.end(event, store.read(event.run.id))
            if event.status == "refused":
                lacking[event.run.id] = f"refused: {event.error}"
    return read_all(made.plan, store), lacking


def _judge(
    made: Received, before: Comparison, pairs: Sequence[Pair], records: Mapping[str, Record]
) -> int:
    """Print what came out otherwise, and say whether the bundle was reproduced."""
    sent, here = made.sent, [pair.here for pair in pairs if pair.here]
    reason = agreement.why_not_exact(
        sent.manifest, provenance.versions(), agreement.machine(), [*here, *sent.records.values()]
    )
    groups: dict[Group, list[Record]] = defaultdict(list)
    for run in {run.id: run for run in sent.plan.runs() if run.id in sent.records}.values():
        groups[run.task, run.arm, run.trial].append(sent.records[run.id])
    noise = Noise(groups) if reason else None
    found = list(agreement.differences(pairs, noise))
    whole = len(pairs) == len(sent.records)
    verdicts = agreement.verdicts(before, compare(made.plan, records)) if whole else []
    said = "to the last bit: same processor, libraries and threads, on a CPU"
    if reason:
        said = f"within {agreement.SPREADS} robust sd over the bundle's seeds, "
        said += f"not to the last bit: {reason}"
    print(f"compared  {clean(said)}\n")
    for line in _table(found):
        print(line)
    for line in verdicts:
        print(f"verdict   {clean(line)}")
    bad = len({difference.run.id for difference in found})
    if found or verdicts:
        print(f"NOT reproduced: {bad} of {len(pairs)} runs and {len(verdicts)} verdicts differ")
        return NOT_REPRODUCED
    bits = len(list(agreement.differences(pairs, None))) if noise else 0
    equal = f"within noise ({bits} values have other bits)" if bits else "to the last bit"
    print(f"reproduced: {len(pairs)} runs {equal}{', and all verdicts' if whole else ''}")
    return 0


def _table(found: Sequence[Difference]) -> list[str]:
    """The first differences, a line each."""
    rows = [["run", "task", "arm", "seed", "what", "bundle", "here", "allowed"]]
    for each in found[:SHOWN]:
        run = each.run
        values = [repr(v) if isinstance(v, float) else str(v) for v in (each.there, each.here)]
        which = [run.id, run.task, run.arm, str(run.seed), each.what]
        rows.append([clean(cell) for cell in [*which, *values, f"{each.allowed:.3g}"]])
    if len(rows) == 1:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [*lines, *more, ""]
