"""What a comparison holds: plain frozen data, ready for JSON. Needs no torch.

Differences are always arm minus baseline in the metric's own units; `better` and `worse` have taken
the metric's direction into account.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.measured import Cost as Cost
from harness.measured import CurvePoint as CurvePoint
from harness.measured import MadeOf as MadeOf
from harness.measured import Overall as Overall
from harness.measured import OverallArm as OverallArm
from harness.measured import Response as Response
from harness.measured import Spread as Spread
from harness.measured import Tradeoff as Tradeoff
from harness.plan import Direction

VERSION = 1
Level = Literal["alarm", "warning", "note"]
RunStatus = Literal["done", "failed", "diverged", "pending"]
Verdict = Literal[
    "better",
    "worse",
    "no practical difference",
    "not enough evidence",
    "identical",
    "baseline",  # the arm others are compared with
    "no baseline",  # nothing to compare with
    "no result",  # no run of the arm is done
    "pending",  # the sweep still runs
]


@dataclass(frozen=True)
class Note:
    """A sentence the reader must know; an alarm means that the table may be wrong."""

    level: Level
    text: str


@dataclass(frozen=True)
class SeedRun:
    """One run as the comparison sees it; `value` is the headline metric of a done run."""

    seed: int
    id: str
    status: RunStatus
    value: float | None
    error: str | None


@dataclass(frozen=True)
class Contrast:
    """An arm against the baseline on the seeds where both are done.

    Attributes:
        seeds, differences: the pairs.
        mean, sd, low, high: mean difference, its standard deviation and 95% t interval.
        p: two-sided paired t; p_holm: corrected over all comparisons of the sweep.
        p_sign_flip: flipped signs, from 6 pairs on; `disagrees`: other side of 5% than `p`.
        p_equivalence: two one-sided tests against the margin, Holm over the sweep.
        effect_size: d_z; None without spread.
        improvement: share of seeds on which the arm is better, a tie counting half.
        seeds_needed: for power .8 at the corrected level, were the observed d_z the true one.

    While the sweep still runs, everything that would tempt to stop early is None.
    """

    seeds: list[int]
    differences: list[float]
    mean: float
    sd: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    p_sign_flip: float | None = None
    disagrees: bool = False
    p_equivalence: float | None = None
    effect_size: float | None = None
    improvement: float | None = None
    seeds_needed: int | None = None


@dataclass(frozen=True)
class TrialResult:
    """One setting the tuner tried; `value` is None where the trial failed, or has to run yet."""

    number: int
    settings: dict[str, Any]
    value: float | None
    ids: list[str]
    seconds: float | None
    failed: bool = False


@dataclass(frozen=True)
class TunedArm:
    """How an arm on a task was tuned.

    Attributes:
        trials: in the order they were proposed.
        chosen: numbers of the chosen trials; one, or one per seed where each is tuned anew.
        best_of: the value to be expected of the best of n trials, for n from 1: the mean over all
            choices of n of them; failed ones count as the worst there is, and where that leaves
            nothing to average there is None.
        seconds: what all trials took.
    """

    task: str
    arm: str
    trials: list[TrialResult]
    chosen: list[int]
    best_of: list[float | None]
    seconds: float


@dataclass(frozen=True)
class TuningResult:
    """How the arms were tuned before they were compared."""

    metric: str
    direction: Direction
    number: int
    sampler: str
    anew: bool
    seeds: list[int]
    arms: list[TunedArm]


@dataclass(frozen=True)
class ArmResult:
    """One arm on one task.

    `planned` = `done` + `failed` + `diverged` + `pending`; `text` is the verdict in words with its
    reservations; `best`: every run is done, and it is not significantly worse than the best mean
    among such arms (paired t, Holm within the task). `made_of` where runs have recorded it.
    """

    arm: str
    planned: int
    done: int
    failed: int
    diverged: int
    pending: int
    mean: float | None
    sd: float | None
    best: bool
    verdict: Verdict
    text: str
    contrast: Contrast | None
    runs: list[SeedRun]
    others: dict[str, Spread]
    cost: Cost
    curve: list[CurvePoint]
    made_of: MadeOf | None = None


@dataclass(frozen=True)
class ControlResult:
    """An arm whose outcome is known beforehand, see :mod:`harness.controls`.

    Attributes:
        word: which control.
        expected: what it is and what must come out.
        held: whether it did; None where that cannot be told, and for `scale`, which only tells.
        text: what came out, in words.
        result: its numbers; it is outside the family that Holm corrects for, and `p` is its own.
        unbeaten: arms whose mean is no better than that of `constant`.
    """

    word: str
    expected: str
    held: bool | None
    text: str
    result: ArmResult
    unbeaten: list[str]


@dataclass(frozen=True)
class TaskResult:
    """All arms on one task, the best mean first, arms without a result last.

    `references`: what every metric is of what has learnt nothing, by its name; of each seed from
    the baseline's run, or where that has none from another arm's.
    """

    task: str
    arms: list[ArmResult]
    curve_metric: str | None
    responses: list[Response]
    references: dict[str, dict[str, Spread]] = field(default_factory=dict)
    controls: list[ControlResult] = field(default_factory=list)
    tradeoff: Tradeoff | None = None

    def arm(self, name: str) -> ArmResult | None:
        """The result of one arm, or None where the plan has none."""
        return next((result for result in self.arms if result.arm == name), None)


@dataclass(frozen=True)
class Fingerprint:
    """Which distinct values of one fingerprint the arms of a task have at one seed."""

    task: str
    kind: str
    seed: int
    values: list[str]


@dataclass(frozen=True)
class Comparison:
    """The answer to a sweep's question.

    Attributes:
        sentence: the answer in one sentence.
        comparisons: size of the family Holm corrects for.
        done, failed, diverged, pending: runs of the whole sweep.
        differences: per arm, what its config changes against the baseline's.
        provenance: per key, every distinct value found in the records.
        overall: all tasks together, once every run has ended.
    """

    name: str
    question: str
    sentence: str
    metric: str
    direction: Direction
    directions: dict[str, Direction]
    baseline: str
    margin: float | None
    seeds: list[int]
    comparisons: int
    planned: int
    done: int
    failed: int
    diverged: int
    pending: int
    notes: list[Note]
    tasks: list[TaskResult]
    differences: dict[str, dict[str, Any]]
    fingerprints: list[Fingerprint]
    provenance: dict[str, list[str]]
    command: str
    overrides: list[str]
    tuning: TuningResult | None = None
    overall: Overall | None = None
    version: int = VERSION

    def results(self) -> Iterator[tuple[TaskResult, ArmResult]]:
        """Every arm of every task, in the order of the tables."""
        for task in self.tasks:
            for result in task.arms:
                yield task, result

    def controls(self) -> Iterator[tuple[TaskResult, ArmResult]]:
        """Every control arm of every task."""
        for task in self.tasks:
            for control in task.controls:
                yield task, control.result
