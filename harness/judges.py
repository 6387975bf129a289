"""The metrics of a task: fixed yardsticks, the same for every arm, updated batch by batch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torchmetrics import Metric

from harness.plan import Direction


@dataclass(frozen=True)
class Yardstick:
    """One metric of a task: which way is better, and the torchmetrics object that computes it.

    A number without a direction is reported and cannot be compared by, such as a threshold.
    `cheap` metrics are evaluated while training, for the curve; the others once, at the end. `raw`
    ones are given the model's outputs, the others what `predict` makes of them. A metric object
    that computes several numbers stands in several yardsticks, each with its `key`.
    """

    direction: Direction | None
    metric: Metric
    cheap: bool = False
    raw: bool = False
    key: str | None = None


class Judges:
    """Yardsticks at work on one part of the data."""

    def __init__(self, yardsticks: Mapping[str, Yardstick]) -> None:
        self.yardsticks = yardsticks
        self.all = list(yardsticks)
        self.cheap = [name for name, yardstick in yardsticks.items() if yardstick.cheap]

    def reset(self, names: Iterable[str], device: torch.device) -> None:
        """Forget what was seen."""
        for yardstick in self._once(names):
            yardstick.metric.to(device).reset()

    def update(self, output: Any, prediction: Any, truth: Any, names: Iterable[str]) -> None:
        """See one batch."""
        for yardstick in self._once(names):
            yardstick.metric.update(output if yardstick.raw else prediction, truth)

    def compute(self, names: Iterable[str]) -> dict[str, float]:
        """Every metric over all batches since the reset."""
        values = {}
        for name in names:
            yardstick = self.yardsticks[name]
            value = yardstick.metric.compute()
            values[name] = float(value if yardstick.key is None else value[yardstick.key])
        return values

    def _once(self, names: Iterable[str]) -> Iterable[Yardstick]:
        """Each metric object once."""
        return {id(y.metric): y for y in (self.yardsticks[name] for name in names)}.values()
