"""What a run leaves behind: one versioned JSON file, written last and at once. Needs no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

VERSION = 1
Status = Literal["done", "failed", "diverged"]


@dataclass(frozen=True)
class Record:
    """Everything about one run that a reader may ask for, without this code at hand.

    Attributes:
        id: hash of what decides the outcome.
        status: done; failed (an error); diverged (NaN or infinity while training).
        config: the resolved config, seed left out.
        seed: the repetition.
        metrics: final value per metric, as `split/name`; may lack some where status is not done.
        curve: one mapping per evaluation while training: `epoch`, `step`, `train/loss`,
            `train/TERM` (raw) and `train/TERM.weighted` where there are several terms or schedules,
            `val/METRIC`.
        start: at the first step `loss`, and `gradient`, the norm by the model's parameters before
            clipping; without what is not finite.
        gradients: with `trainer.gradients`, those of the objective's terms: `every`, `terms`, and
            one entry per measured step of `steps`, `weights` and what
            :class:`harness.gradients.Pulls` says; null where undefined or not finite.
        references: metrics, as in `metrics`, of what has learnt nothing: the raw inputs, say.
        seconds: `train` and `total` wall time, and `gradients`, which `train` is without.
        steps: optimiser steps taken.
        parameters: number of trainable parameters of the model.
        peak_memory: peak memory in bytes (device memory on a GPU, resident set otherwise).
        error: why the run is not done, in one line; None where it is.
        seeds: the named sub-seeds drawn from the seed.
        fingerprints: sha256 of `data`, `split`, `composed` (items, if the data set composes them),
            `init` (initial weights), `order` (first batches), `loss` (source).
        notes: what was left out of the data, and why; operations that need not give the same bits
            again, if there were any.
        provenance: git commit and dirty flag, package versions, platform, device, threads, the
            `flags` that may decide the last bits, what of the trainer's settings is no part of the
            config `beside` it, where it is not the default, `started` and `finished` (ISO 8601,
            UTC).
    """

    id: str
    status: Status
    config: dict[str, Any]
    seed: int
    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    start: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, Any] = field(default_factory=dict)
    references: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    parameters: int = 0
    peak_memory: int = 0
    error: str | None = None
    seeds: dict[str, int] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION


def lacks_gradients(record: Record, every: int) -> bool:
    """Whether a run must be trained again because its record has none and they are asked for.

    Those that were measured answer every request, at whatever steps.
    """
    return bool(every) and record.status == "done" and not record.gradients


def weights_kept(folder: Path, keep: str) -> dict[str, Path]:
    """The files of weights that stay in a run's folder, as `trainer.keep` says."""
    names = {"last": ("last",), "best": ("best",), "both": ("last", "best")}.get(keep, ())
    return {name: folder / f"weights-{name}.pt" for name in names}


def lacks_weights(record: Record, folder: Path, keep: str) -> bool:
    """Whether a run must be trained again because weights that are asked for by name are gone.

    What `trainer.keep=auto` stands for is kept where a run is trained, and trains none anew.
    """
    return record.status == "done" and not all(
        path.exists() for path in weights_kept(folder, keep).values()
    )
