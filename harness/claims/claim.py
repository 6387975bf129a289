"""What claims and their verdicts hold: plain frozen data, ready for JSON. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.comparison import Note, SeedRun

Direction = Literal["higher", "lower", "equal"]
Verdict = Literal["SUPPORTED", "CONTRADICTED", "NOT ENOUGH EVIDENCE", "PENDING"]


@dataclass(frozen=True)
class Contrast:
    """A difference between two arms of the sweep that the claim asserts.

    Attributes:
        arm: the arm the claim is about.
        against: the arm it is compared with.
        metric: what is compared: `val/NAME`, `test/NAME`, or where both arms have several terms
            (or a schedule) `train/TERM`, that term's value over the last stretch of training; or
            what it costs, `cost/step_ms`.
        direction: the arm's metric is higher, lower or practically equal.
        margin: by more than this, in the metric's units; for `equal`, by less.
        task: which of the sweep's tasks, where it has several.
    """

    arm: str
    against: str
    metric: str
    direction: Direction
    margin: float = 0.0
    task: str | None = None

    @property
    def words(self) -> str:
        """The contrast in one line.

        >>> Contrast("mae", "mse", "test/rmse", "lower", 2.0, "outliers").words
        'mae against mse on outliers: test/rmse lower by more than 2'
        """
        where = f" on {self.task}" if self.task else ""
        by = f" by more than {self.margin:g}" if self.margin else ""
        if self.direction == "equal":
            by = f" to within {self.margin:g}"
        return f"{self.arm} against {self.against}{where}: {self.metric} {self.direction}{by}"


@dataclass(frozen=True)
class Claim:
    """A claim file that has been read.

    Attributes:
        name: the file's name.
        path: the file.
        claim: the sentence, in our own words.
        contrasts: what must come out.
        sweep: what its sweep's file says, complete; or the name of a shipped sweep.
        notes: where the sentence stands.
        supports, contradicts: what would count for and against it, in words.
        outcome: what came out when it was run, in words.
        plugin: a Python file beside a shipped claim with losses that it needs.
    """

    name: str
    path: Path
    claim: str
    contrasts: list[Contrast]
    sweep: dict[str, Any] | str
    notes: str
    supports: str
    contradicts: str
    outcome: str
    plugin: str = ""


@dataclass(frozen=True)
class ContrastResult:
    """One contrast with what came out.

    Attributes:
        seeds, differences: the pairs, arm minus against; infinite where one run of a pair diverged.
        mean, low, high: mean difference and 95% t interval; None where a difference is infinite.
        p_holm: against the nearest boundary, Holm over the claim's contrasts.
        text: the verdict with its reservations.
        runs: of both arms, by arm.
    """

    contrast: Contrast
    seeds: list[int]
    differences: list[float]
    mean: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    verdict: Verdict
    text: str
    runs: dict[str, list[SeedRun]]


@dataclass(frozen=True)
class Outcome:
    """A claim with its verdict.

    Attributes:
        seconds_by_run: what each of its runs took, those of the tuner included, by id.
        done, planned: runs that have a record, and all of them.
        command: what to type to test it again.
        notes: what a reader of the sweep must know.
    """

    claim: Claim
    verdict: Verdict
    results: list[ContrastResult]
    seeds: int
    seconds_by_run: dict[str, float]
    done: int
    planned: int
    command: str
    notes: list[Note]

    @property
    def seconds(self) -> float:
        """What all its runs took together."""
        return sum(self.seconds_by_run.values())
