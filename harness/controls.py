"""Control arms: runs whose outcome is known beforehand, one word each in a sweep file.

`null` is the baseline on other seeds, compared by position: seed 3 of the sweep with its own third
one; it must not differ. `identity` is the baseline with every weight sent through the composite as
a schedule that stays where it is; it must be identical to the last bit. `scale` is the baseline
times a number, 2 or as in `scale=10`; it tells whether the step size matters. `constant` is a model
that ignores its inputs, trained by the baseline's objective: the majority for a cross-entropy, the
mean for a squared error; it must be beaten.

Controls take the settings that the baseline's tuning chose. Importing this needs no torch.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.plan import Cell, Plan, Trial

if TYPE_CHECKING:
    from harness.config import RunConfig

WORDS = ("null", "identity", "scale", "constant")
SHIFT = 10_000  # from a seed of the sweep to that of `null`
FACTOR = 2.0


def parse(owner: str, words: Sequence[str], arms: Sequence[str]) -> dict[str, float]:
    """Controls by name, with the factor of `scale` (1 for others).

    Raises:
        ValueError: no such control, one twice, a factor that is none, or an arm of its name.
    """
    from losses.arguments import nearest

    found: dict[str, float] = {}
    for given in words:
        word, _, number = given.replace(" ", "").partition("=")
        if word not in WORDS or (number and word != "scale"):
            raise ValueError(
                f"{owner}.controls: there is no control '{given}'{nearest(word, WORDS)}"
            )
        if word in found:
            raise ValueError(f"{owner}.controls: {word} stands there twice")
        if word in arms:
            raise ValueError(f"{owner}.controls: an arm has the name of the control {word}")
        found[word] = _factor(owner, number) if word == "scale" else 1.0
    return found


def _factor(owner: str, number: str) -> float:
    try:
        factor = float(number or FACTOR)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf") or factor == 1:
        raise ValueError(f"{owner}.controls: scale needs a number > 0 other than 1, got '{number}'")
    return factor


def config_of(word: str, factor: float, baseline: "RunConfig") -> "RunConfig":
    """The config of a control.

    Raises:
        ValueError: every weight of the baseline moves, so that `identity` would change nothing.
    """
    from harness.config import check

    if word == "null":
        return baseline
    plain = baseline.plain()
    if word == "constant":
        return check(plain | {"model": {"name": "constant"}})
    terms = {key: value for key, value in plain["loss"].items() if key not in ("mix", "p")}
    if word == "identity" and all(isinstance(t["weight"], Mapping) for t in terms.values()):
        raise ValueError("control identity: every weight of the baseline is scheduled already")
    times = {k: {**t, "weight": _times(t["weight"], factor)} for k, t in terms.items()}
    return check(plain | {"loss": plain["loss"] | times})


def _times(weight: Any, factor: float) -> Any:
    """A weight times a factor; times 1 it is the same number as a schedule."""
    if isinstance(weight, Mapping):
        ends = {key: weight[key] * factor for key in ("start", "end")}
        return {**weight, **ends}
    if factor == 1:
        return {"schedule": "linear", "start": weight, "end": weight}
    return weight * factor


def shift(word: str, seeds: Sequence[int]) -> int:
    """What is added to the sweep's seeds: for `null` a constant that leads to no other of them."""
    if word != "null":
        return 0
    far = SHIFT
    while {seed + far for seed in seeds} & set(seeds):
        far += SHIFT
    return far


def cell(word: str, made: Cell, config: "RunConfig", seeds: Sequence[int]) -> Cell:
    """The cell of a control, with its runs by the sweep's seeds."""
    from harness.config import run_id

    far = shift(word, seeds)
    return dataclasses.replace(
        made, shift=far, runs={seed: run_id(config, seed + far) for seed in seeds}
    )


def mirrored(plan: Plan, trials: Sequence[Trial]) -> list[Trial]:
    """For every trial of the baseline the controls with its settings; nothing more is tried.

    The control's trial has the baseline's runs, so that what is chosen for one is chosen for both.
    """
    from harness.config import check, run_id

    found = []
    for trial in (trial for trial in trials if trial.arm == plan.baseline):
        for word, factor in plan.controls.items():
            config, far = config_of(word, factor, check(trial.config)), shift(word, plan.seeds)
            final = {seed: run_id(config, seed + far) for seed in plan.seeds}
            found.append(dataclasses.replace(trial, arm=word, config=config.shared(), runs=final))
    return found
