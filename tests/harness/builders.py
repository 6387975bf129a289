"""Small sweeps with made-up but realistic results, for the tests of comparison and report."""

import dataclasses
import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

from harness.plan import Cell, Plan, Trial, Tuning
from harness.record import Record

ARMS: dict[str, dict[str, Any]] = {
    "ce": {"cross_entropy": {"weight": 1.0}},
    "focal": {"focal": {"weight": 1.0, "gamma": 2.0}},
    "mae": {"mae": {"weight": 1.0}},
}
DIRECTIONS = {"test/accuracy": "higher", "test/nll": "lower", "test/ece": "lower"}
DIRECTIONS |= {name.replace("test", "val"): way for name, way in DIRECTIONS.items()}
EVALUATIONS = 10


def run_id(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def make_plan(
    arms: Mapping[str, dict[str, Any]] = ARMS,
    *,
    tasks: Sequence[str] = ("digits",),
    seeds: int = 10,
    baseline: str = "ce",
    margin: float | None = None,
    metric: str = "test/accuracy",
    **changes: Any,
) -> Plan:
    """A plan whose arms are mappings from term to settings; the first of them need not be "ce"."""
    cells = [
        Cell(
            task,
            arm,
            {"task": {"name": task}, "optimizer": {"lr": 0.01}, "loss": loss},
            {seed: run_id(task, arm, seed) for seed in range(seeds)},
        )
        for task in tasks
        for arm, loss in arms.items()
    ]
    facts: dict[str, Any] = {
        "name": "losses",
        "question": "Does turning down easy items help?",
        "metric": metric,
        "directions": DIRECTIONS,
        "baseline": baseline,
        "margin": margin,
        "tasks": list(tasks),
        "arms": list(arms),
        "seeds": list(range(seeds)),
        "cells": cells,
        "differences": {arm: {"objective": " + ".join(loss)} for arm, loss in arms.items()},
        "command": "lossbench report sweep=losses",
    }
    return Plan(**facts | changes)


def make_record(plan: Plan, cell: Cell, seed: int, accuracy: float, **changes: Any) -> Record:
    """A done run that reached `accuracy`; the rest follows from it and from the seed."""
    rise = [1 - 0.6 ** (i + 1) for i in range(EVALUATIONS)]
    metrics = {"accuracy": accuracy, "nll": 1.2 - accuracy, "ece": (1 - accuracy) / 3}
    both = {
        f"{split}/{name}": value for name, value in metrics.items() for split in ("val", "test")
    }
    facts: dict[str, Any] = {
        "id": cell.runs[seed],
        "status": "done",
        "config": cell.config,
        "seed": seed,
        "metrics": both,
        "curve": [
            {"epoch": 3.0 * i, "step": 51.0 * i, "train/loss": 2 - r, "val/accuracy": accuracy * r}
            for i, r in enumerate(rise, 1)
        ],
        "seconds": {"train": 1.5 + len(cell.arm) / 10, "total": 2.0 + len(cell.arm) / 10},
        "steps": 510,
        "parameters": 4810,
        "peak_memory": 310_000_000,
        "fingerprints": {
            **{kind: run_id(cell.task, kind, seed) for kind in ("split", "init", "order")},
            "data": run_id(cell.task, "data"),
            "loss": run_id(cell.arm, "source"),
        },
        "provenance": {
            "commit": "f" * 40,
            "dirty": False,
            "versions": {"python": "3.11.7", "torch": "2.15.0"},
            "device": "cpu",
            "started": f"2026-03-01T10:{seed % 60:02d}:00.000+00:00",
            "finished": f"2026-03-01T10:{seed % 60:02d}:02.000+00:00",
        },
    }
    return Record(**facts | changes)


def make_records(
    plan: Plan,
    gains: Mapping[str, float] | None = None,
    *,
    noise: float = 0.004,
    level: float = 0.9,
    seed: int = 0,
) -> dict[str, Record]:
    """Records of all runs: level + the seed's luck + the arm's gain + noise, drawn from `seed`."""
    draw = random.Random(seed)
    luck = {(task, s): draw.gauss(0, 0.01) for task in plan.tasks for s in plan.seeds}
    gains = gains or {}
    return {
        cell.runs[s]: make_record(
            plan,
            cell,
            s,
            level + luck[cell.task, s] + gains.get(cell.arm, 0.0) + draw.gauss(0, noise),
        )
        for cell in plan.cells
        for s in plan.seeds
    }


def lose(
    plan: Plan, records: Mapping[str, Record], arm: str, seeds: Sequence[int], status: str | None
) -> dict[str, Record]:
    """The records with some runs of an arm failed or diverged, or not there at all (None)."""
    changed = dict(records)
    for cell in plan.cells:
        for seed in seeds if cell.arm == arm else ():
            del changed[cell.runs[seed]]
            if status is not None:
                changed[cell.runs[seed]] = make_record(
                    plan, cell, seed, 0.0, status=status, metrics={}, curve=[], error="out of luck"
                )
    return changed


def tuned_plan(
    arms: Mapping[str, dict[str, Any]] = ARMS,
    *,
    number: int = 3,
    anew: bool = False,
    seeds: int = 2,
    **changes: Any,
) -> Plan:
    """A sweep whose arms have trials that differ in the learning rate; nothing is chosen yet."""
    plan = make_plan(arms, seeds=seeds, **changes)
    tuner = list(range(1000, 1000 + (seeds if anew else 2)))
    trials = [
        Trial(
            cell.task,
            cell.arm,
            i,
            {"optimizer.lr": 0.1**i},
            {**cell.config, "optimizer": {"lr": 0.1**i}, "trainer": {"test": True}},
            {seed: f"{_prefix(plan, cell)}{cell.arm}.{i}.{seed}" for seed in tuner},
            {seed: f"{_prefix(plan, cell)}{cell.arm}.{i}.final.{seed}" for seed in plan.seeds},
        )
        for cell in plan.cells
        for i in range(number)
    ]
    ranges: dict[str, Any] = {arm: {"optimizer.lr": "log(1e-3, 1)"} for arm in plan.arms}
    tuning = Tuning("val/accuracy", number, tuner, "spread", anew, ranges, trials)
    cells = [dataclasses.replace(cell, runs={}) for cell in plan.cells]
    return dataclasses.replace(plan, cells=cells, tuning=tuning)


def _prefix(plan: Plan, cell: Cell) -> str:
    return f"{cell.task}." if len(plan.tasks) > 1 else ""


def tried(plan: Plan, values: dict[tuple[str, int, int], float | None]) -> dict[str, Record]:
    """Records of trials by arm, number and seed; None for one that failed."""
    assert plan.tuning
    found = {}
    for trial in plan.tuning.trials:
        for seed, run in trial.tried.items():
            value = values.get((trial.arm, trial.number, seed), 0.5)
            changes: dict[str, Any] = {"id": run, "seconds": {"total": 2.0}}
            if value is None:
                changes |= {"status": "failed", "metrics": {}, "error": "out of luck"}
            cell = next(c for c in plan.cells if (c.task, c.arm) == (trial.task, trial.arm))
            cell = dataclasses.replace(cell, runs={seed: run})
            found[run] = make_record(plan, cell, seed, value or 0.0, **changes)
    return found


CONTROLS = {"null": 1.0, "identity": 1.0, "scale": 2.0, "constant": 1.0}
CAME_OUT = {"identity": 0.0, "scale": 0.0, "constant": -0.5}
"""What controls gain over the baseline where they come out as they must; `null` is another draw."""


def with_controls(
    plan: Plan, records: Mapping[str, Record], gains: Mapping[str, float] = CAME_OUT
) -> tuple[Plan, dict[str, Record]]:
    """The sweep with every control; `identity` and `scale` follow the baseline's own values."""
    found, cells = dict(records), list(plan.cells)
    bases = [cell for cell in plan.cells if cell.arm == plan.baseline]
    others = make_records(plan, seed=1)
    for base in bases:
        for word in CONTROLS:
            runs = {seed: run_id(base.task, word, seed) for seed in plan.seeds}
            cell = dataclasses.replace(base, arm=word, runs=runs)
            cells.append(cell)
            source = others if word == "null" else records
            for seed, run in runs.items():
                value = source[base.runs[seed]].metrics[plan.metric] + gains.get(word, 0.0)
                found[run] = make_record(plan, cell, seed, value)
    return dataclasses.replace(plan, cells=cells, controls=CONTROLS), found
