"""Whether runs that were repeated came out as before: to the last bit, or within their noise."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, stdev
from typing import Any

from harness.bundles.contents import Manifest
from harness.comparison import Comparison
from harness.plan import PlannedRun
from harness.provenance import processor
from harness.record import Record
from harness.summary import is_usable

machine = processor
SPREADS = 3
"""Spreads over seeds by which a repeated run may differ where bits are not promised."""
RELATIVE, ABSOLUTE = 1e-5, 1e-8
"""What rounding in float32 may change besides, of a metric that no seed changes."""
NORMAL = 1.4826
"""Times the median absolute deviation is the standard deviation of normal values."""
EXACT = ("curve", "references", "steps", "parameters")
"""What must be equal too where bits are promised."""

Group = tuple[str, str, int | None]  # task, arm, trial


@dataclass(frozen=True)
class Pair:
    """A run as the bundle has it and as it came out here; `lack` says why there is no record."""

    run: PlannedRun
    there: Record
    here: Record | None
    lack: str = "no record"

    @property
    def group(self) -> Group:
        """Runs that differ in their seed alone."""
        return self.run.task, self.run.arm, self.run.trial


@dataclass(frozen=True)
class Difference:
    """Something of a run that is not as it was; `allowed` is how far it might have been."""

    run: PlannedRun
    what: str
    there: Any
    here: Any
    allowed: float = 0.0


def unlike(manifest: Manifest, versions: Mapping[str, str]) -> list[str]:
    """What the runs of a bundle were made with that is of another version here, in words."""
    found = []
    for name, there in manifest.versions.items():
        here = versions.get(name, "not there")
        if there != [here]:
            found.append(f"{name} was {' and '.join(there)}, here {here}")
    return found


def why_not_exact(
    manifest: Manifest,
    versions: Mapping[str, str],
    here: Mapping[str, str] | None,
    records: Iterable[Record],
) -> str:
    """Why equal bits cannot be expected; empty where they can.

    They can on the same kind of processor with the same libraries, by one CPU; of which processor
    is said by a record, or for an older one by the manifest. The number of threads is part of a
    config. The version of this project does not count: it must not change what comes out.
    """
    told = [record.provenance for record in records]
    for there in [each.get("processor", manifest.machine) for each in told] or [manifest.machine]:
        if not isinstance(there, Mapping):
            return "the bundle does not know one processor on which all its runs were made"
        if there != here:
            keys = [key for key, value in there.items() if (here or {}).get(key) != value]
            return f"another machine ({', '.join(keys) or 'more is known of it'})"
    other = [words for words in unlike(manifest, versions) if not words.startswith("lossbench ")]
    if other:
        return f"other versions ({'; '.join(other)})"
    devices = sorted({str(each.get("device")) for each in told} - {"cpu"})
    if devices:
        return f"not on a CPU but on {' and '.join(devices)}"
    several = sorted({str(each.get("devices", 1)) for each in told} - {"1"})
    return f"made on {' and '.join(several)} devices, which sum in another order" if several else ""


def _spread(values: Sequence[float]) -> float:
    if len(values) < 2 or not all(map(is_usable, values)):
        return 0.0
    if len(values) < 3:
        return stdev(values)
    middle = median(values)
    return NORMAL * median(abs(value - middle) for value in values)


class Noise:
    """How far a metric may be from what it was: three times its spread over seeds, and rounding.

    The spread is 1.4826 times the median absolute deviation, which one outlying seed hardly moves,
    or of two seeds the standard deviation (ddof 1): that of the run's own arm over the bundle's
    seeds, or the median of all arms of the task where that is larger, since a few seeds can be
    equal by chance. With one seed nothing is known of it, and rounding alone is allowed.
    """

    def __init__(self, records: Mapping[Group, Sequence[Record]]) -> None:
        self.own: dict[tuple[Group, str], float] = {}
        by_task: dict[tuple[str, str], list[float]] = defaultdict(list)
        for group, made in records.items():
            for name in {name for record in made for name in record.metrics}:
                values = [record.metrics[name] for record in made if name in record.metrics]
                self.own[group, name] = _spread(values)
                by_task[group[0], name].append(self.own[group, name])
        self.usual = {key: median(spreads) for key, spreads in by_task.items()}

    def allowed(self, pair: Pair, name: str, value: float) -> float:
        """The largest difference that is no difference."""
        own = self.own.get((pair.group, name), 0.0)
        usual = self.usual.get((pair.run.task, name), 0.0)
        return SPREADS * max(own, usual) + RELATIVE * abs(value) + ABSOLUTE


def differences(pairs: Iterable[Pair], noise: Noise | None) -> Iterator[Difference]:
    """All that is not as it was, run by run; without `noise` to the last bit."""
    for pair in pairs:
        if pair.here is None:
            yield Difference(pair.run, "status", pair.there.status, pair.lack)
        elif _end(pair.there) != _end(pair.here):
            yield Difference(pair.run, "status", _status(pair.there), _status(pair.here))
        else:
            yield from _metrics(pair, pair.here, noise)
            yield from _rest(pair, pair.here, exact=noise is None)


def _end(record: Record) -> tuple[str, str]:
    """How a run ended, of a failed one with its error; folders in it are another machine's."""
    failed = record.status == "failed"
    return record.status, re.sub(r"\S*/", "", record.error or "") if failed else ""


def _status(record: Record) -> str:
    return f"{record.status}: {record.error}" if record.error else record.status


def _metrics(pair: Pair, here: Record, noise: Noise | None) -> Iterator[Difference]:
    there = pair.there.metrics
    for name in dict.fromkeys([*there, *here.metrics]):
        before, now = there.get(name), here.metrics.get(name)
        if before is None or now is None:
            yield Difference(pair.run, name, before, now)
            continue
        allowed = noise.allowed(pair, name, before) if noise else 0.0
        if not abs(now - before) <= allowed:  # a NaN is no agreement
            yield Difference(pair.run, name, before, now, allowed)


def _rest(pair: Pair, here: Record, *, exact: bool) -> Iterator[Difference]:
    """What was drawn, and where bits are promised the rest that was measured."""
    kinds = ("data", "split", "composed", *(("init", "order") if exact else ()))
    for kind in kinds:
        before, now = pair.there.fingerprints.get(kind), here.fingerprints.get(kind)
        if before != now:
            yield Difference(pair.run, kind, str(before)[:12], str(now)[:12])
    for name in EXACT if exact else ():
        before, now = (asdict(record)[name] for record in (pair.there, here))
        if before != now:
            shown = (before, now) if isinstance(before, int) else ("", "differs")
            yield Difference(pair.run, name, shown[0], shown[1])


def verdicts(there: Comparison, here: Comparison) -> list[str]:
    """Arms and controls that are judged otherwise, in words."""
    before, now = _judged(there), _judged(here)
    return [
        f"{' '.join(key)}: {word} there, {now.get(key)} here"
        for key, word in before.items()
        if now.get(key) != word
    ]


def _judged(comparison: Comparison) -> dict[tuple[str, str], str]:
    words = {True: "came out as it must", False: "did not come out as it must", None: "unclear"}
    found = {(task.task, arm.arm): str(arm.verdict) for task, arm in comparison.results()}
    for task in comparison.tasks:
        found |= {(task.task, each.word): words[each.held] for each in task.controls}
    return found
