"""What a sweep is: its arms, seeds and runs, known before anything trains. Needs no torch."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Cell:
    """One arm on one task.

    Attributes:
        config: the resolved config without seed, store and trackers.
        runs: run id per seed.
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


@dataclass(frozen=True)
class PlannedRun:
    """One training the plan asks for."""

    id: str
    task: str
    arm: str
    seed: int
    config: dict[str, Any]


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
        cells: one per task and arm.
        differences: per arm, its objective in short (`objective`), and config keys beyond the loss
            in which it differs from the baseline, with its values.
        command: what to type to run it again.
        overrides: config overrides given on the command line.
        watched: sha256 of each data file of the user's own that the runs read, by path.
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

    def runs(self) -> Iterator[PlannedRun]:
        """All runs, interleaved across arms, so that a sweep stopped half-way is balanced."""
        for seed in self.seeds:
            for cell in self.cells:
                yield PlannedRun(cell.runs[seed], cell.task, cell.arm, seed, cell.config)
