"""What a sweep is: its arms, seeds and runs, known before anything trains. Needs no torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Cell:
    """One arm on one task.

    Attributes:
        config: the resolved config without seed, store and trackers; of a tuned arm the chosen one.
        runs: run id per seed; empty while a tuned arm's settings are not chosen yet.
        variants: configs per seed that differ from `config`, where every seed is tuned anew.
        shift: what is added to a seed of the sweep; not 0 only for the control `null`.
        steps: optimiser steps of one run.
        seconds: what one run is expected to take, from a few steps tried when the plan was made.
        gradient: norm of the objective's gradient at the first batch of the first seed.
    """

    task: str
    arm: str
    config: dict[str, Any]
    runs: dict[int, str]
    steps: int = 0
    seconds: float = 0.0
    gradient: float | None = None
    variants: dict[int, dict[str, Any]] = field(default_factory=dict)
    shift: int = 0

    def config_of(self, seed: int) -> dict[str, Any]:
        """The config of one seed's run."""
        return self.variants.get(seed, self.config)


@dataclass(frozen=True)
class Trial:
    """One setting of an arm that the tuner tries.

    Attributes:
        number: 0, 1, ... in the order they were proposed.
        settings: what is tuned, dotted keys of the config.
        config: the arm's config with them; trials themselves leave the test part alone.
        tried: run id per seed of the tuner.
        runs: run id per seed of the sweep, for the arm with these settings.
    """

    task: str
    arm: str
    number: int
    settings: dict[str, Any]
    config: dict[str, Any]
    tried: dict[int, str]
    runs: dict[int, str]

    def trained(self) -> dict[str, Any]:
        """The config of the trial's own runs, which nobody looks into."""
        trainer = {**self.config["trainer"], "test": False, "gradients": 0}
        return {**self.config, "trainer": trainer}


@dataclass(frozen=True)
class Tuning:
    """How every arm is tuned, with the same effort, before it is compared.

    Attributes:
        metric: what is chosen by, of the validation part.
        number: trials per arm.
        seeds: seeds of the trials, none of them among the sweep's.
        sampler: `spread` evenly, the same points for all arms; or `tpe`.
        anew: every seed of the sweep is tuned by itself, by the tuner's seed at its position, so
            that differences hold what tuning adds to the spread.
        ranges: per arm, how each setting is written in the sweep file.
        trials: those known so far.
    """

    metric: str
    number: int
    seeds: list[int]
    sampler: Literal["spread", "tpe"]
    anew: bool
    ranges: dict[str, dict[str, Any]]
    trials: list[Trial]


@dataclass(frozen=True)
class PlannedRun:
    """One training the plan asks for."""

    id: str
    task: str
    arm: str
    seed: int
    config: dict[str, Any]
    trial: int | None = None  # of the tuner, if it is one of its runs


@dataclass(frozen=True)
class Plan:
    """A sweep with every arm resolved.

    Attributes:
        name: the sweep's name, a slug.
        question: what the sweep asks, in a sentence.
        metric: the headline metric of every task, such as `test/accuracy`.
        directions: for every metric a run records, whether higher or lower is better.
        baseline: the arm others are compared with.
        margin: differences smaller than this (in the metric's units) do not matter in practice.
        tasks, arms, seeds: names and numbers in the order of the file.
        cells: one per task and arm, controls included.
        differences: per arm, its objective in short (`objective`), and config keys beyond the loss
            in which it differs from the baseline, with its values.
        command: what to type to run it again.
        overrides: config overrides given on the command line.
        watched: sha256 of each data file of the user's own that the runs read, by path.
        tuning: how arms are tuned, if they are.
        controls: arms whose outcome is known beforehand, by name, with the number they take; they
            are none of `arms`, see :mod:`harness.controls`.
        planned: when each seed was first planned (ISO 8601, UTC), also of seeds dropped since.
        late: those of them first planned when results of other seeds could be seen.
    """

    name: str
    question: str
    metric: str
    directions: dict[str, Direction]
    baseline: str
    margin: float | None
    tasks: list[str]
    arms: list[str]
    seeds: list[int]
    cells: list[Cell]
    differences: dict[str, dict[str, Any]]
    command: str
    overrides: list[str] = field(default_factory=list)
    watched: dict[str, str] = field(default_factory=dict)
    tuning: Tuning | None = None
    controls: dict[str, float] = field(default_factory=dict)
    planned: dict[int, str] = field(default_factory=dict)
    late: list[int] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether every run is known: nothing is left to be tuned."""
        return all(len(cell.runs) == len(self.seeds) for cell in self.cells)

    def runs(self) -> Iterator[PlannedRun]:
        """All runs, interleaved across arms, so that a sweep stopped half-way is balanced.

        Trials come first. The runs of a tuned arm are known when its settings are chosen.
        """
        yield from self.trial_runs()
        for seed in self.seeds:
            for cell in self.cells:
                if seed in cell.runs:
                    trained, config = seed + cell.shift, cell.config_of(seed)
                    yield PlannedRun(cell.runs[seed], cell.task, cell.arm, trained, config)

    def trial_runs(self) -> Iterator[PlannedRun]:
        """The runs of the tuner, those of one number together."""
        trials = sorted(self.tuning.trials, key=lambda t: t.number) if self.tuning else []
        for trial in (trial for trial in trials if trial.arm not in self.controls):
            for seed, run in trial.tried.items():
                yield PlannedRun(run, trial.task, trial.arm, seed, trial.trained(), trial.number)
