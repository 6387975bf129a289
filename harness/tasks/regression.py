"""Real values from inputs, one or several at once, judged in the target's own units."""

import torch
from torch import Tensor
from torchmetrics import CatMetric, MeanAbsoluteError, MeanSquaredError, R2Score

from harness.data import Data
from harness.judges import Yardstick
from harness.tasks.base import Task, subject
from losses import Loss


class MedianAbsoluteError(CatMetric):
    """Median of the absolute errors over all values."""

    def update(self, prediction: Tensor, truth: Tensor) -> None:  # type: ignore[override]
        super().update((prediction - truth).abs().flatten())

    def compute(self) -> Tensor:
        errors = super().compute().sort().values
        # torch's own median is the lower of two in the middle
        return errors[[(len(errors) - 1) // 2, len(errors) // 2]].mean()


class Regression(Task):
    """Predictions of standardised targets; metrics are in the units the data came in."""

    kinds = ("regression",)

    @classmethod
    def refusal(cls, loss: Loss, kind: str, term: str = "") -> str | None:
        if loss.target != "real":
            return f"{loss.name} compares {subject(loss)}, and the data is {kind}"
        return None

    @classmethod
    def yardsticks(cls, _: Data) -> dict[str, Yardstick]:
        return {
            "rmse": Yardstick("lower", MeanSquaredError(squared=False), cheap=True),
            "mae": Yardstick("lower", MeanAbsoluteError(), cheap=True),
            "median_absolute_error": Yardstick("lower", MedianAbsoluteError()),
            "r2": Yardstick("higher", R2Score()),
        }

    def predict(self, output: Tensor) -> Tensor:
        return self._in_units(output.float()).contiguous()

    def truth(self, target: Tensor) -> Tensor:
        return self._in_units(target.float())

    def _in_units(self, values: Tensor) -> Tensor:
        if self.data.scale is None:
            return values
        mean, sd = (torch.as_tensor(part).to(values) for part in self.data.scale)
        return values * sd + mean


TASK = Regression
