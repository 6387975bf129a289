"""Classes from inputs: binary, multiclass (balanced or not) and multilabel."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics import classification as tm

from harness.data import Data
from harness.judges import Yardstick
from harness.objective import OUTPUT, Compared, Subject
from harness.tasks.base import Task, subject
from losses import IGNORING, Loss

MOST = 200
"""Classes up to which there are metrics of each: some fill a table of C x C, or sort C times."""


class Brier(MeanMetric):
    """Squared distance of predicted probabilities from the truth, summed over classes.

    One value per item, so a binary item counts (p - y)^2 once, not twice.
    """

    def update(self, prediction: Tensor, truth: Tensor) -> None:  # type: ignore[override]
        wanted = F.one_hot(truth, prediction.shape[1]) if truth.ndim < prediction.ndim else truth
        squares = (prediction - wanted).square()
        super().update(squares.sum(1) if squares.ndim > 1 else squares)


class NegativeLogLikelihood(MeanMetric):
    """Mean of -log of the probability given to what is true: the reference loss of every arm.

    From logits, since 1 - p has no digits left in float32 where a wrong answer is given with
    certainty.
    """

    def update(self, output: Tensor, truth: Tensor) -> None:  # type: ignore[override]
        logits = output.float()
        if truth.ndim < logits.ndim:
            values = F.cross_entropy(logits, truth, reduction="none")
        else:
            wanted = truth.to(logits)
            values = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        super().update(values)


class TwoClasses(Metric):
    """A multiclass metric on binary probabilities, the negative class's made explicit."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        self.metric.update(torch.stack([1 - prediction, prediction], 1), truth.long())

    def compute(self) -> Tensor:
        return self.metric.compute()  # type: ignore[no-any-return]

    def reset(self) -> None:
        super().reset()
        self.metric.reset()


def _multiclass(classes: int) -> dict[str, Metric]:
    fast: dict[str, Any] = {"num_classes": classes, "validate_args": False}
    each: dict[str, Metric] = {
        "balanced_accuracy": tm.MulticlassRecall(average="macro", **fast),
        "macro_f1": tm.MulticlassF1Score(average="macro", **fast),
        "auroc": tm.MulticlassAUROC(average="macro", **fast),
        "average_precision": tm.MulticlassAveragePrecision(average="macro", **fast),
    }
    return {
        "accuracy": tm.MulticlassAccuracy(average="micro", **fast),
        **(each if classes <= MOST else {}),
        "ece": tm.MulticlassCalibrationError(n_bins=15, **fast),
    }


def _binary() -> dict[str, Metric]:
    shared = ("accuracy", "balanced_accuracy", "macro_f1")
    return {
        name: TwoClasses(metric) for name, metric in _multiclass(2).items() if name in shared
    } | {
        "auroc": tm.BinaryAUROC(validate_args=False),
        "average_precision": tm.BinaryAveragePrecision(validate_args=False),
        "ece": tm.BinaryCalibrationError(n_bins=15, validate_args=False),
    }


def _multilabel(labels: int) -> dict[str, Metric]:
    fast: dict[str, Any] = {"num_labels": labels, "validate_args": False}
    return {
        "accuracy": tm.MultilabelAccuracy(average="micro", **fast),
        "exact_match": tm.MultilabelExactMatch(**fast),
        "macro_f1": tm.MultilabelF1Score(average="macro", **fast),
        "auroc": tm.MultilabelAUROC(average="macro", **fast),
        "average_precision": tm.MultilabelAveragePrecision(average="macro", **fast),
    }


class Classification(Task):
    """Logits in, class probabilities out. Binary: [N]; multiclass: [N, C]; multilabel: [N, L]."""

    kinds = ("binary", "multiclass", "multilabel")
    fields = ("student", "teacher", "target")

    @classmethod
    def refusal(cls, loss: Loss, kind: str, term: str = "") -> str | None:
        if loss.target == "fields" and kind == "multiclass" and "student" in loss.inputs:
            return cls.refusal_of_fields(loss)
        if loss.target not in IGNORING or loss.region:
            return f"{loss.name} compares {subject(loss)}, and a {kind} model gives logits per item"
        if loss.output_within:
            return f"{loss.name} takes log-probabilities, and a {kind} model gives logits"
        if kind == "binary" and loss.sum_classes:
            return f"{loss.name} is for several labels of an item, and the data is binary"
        if kind == "multiclass" and loss.target == "binary":
            return f"{loss.name} is for independent yes-or-no targets, and the data is multiclass"
        if kind != "multiclass" and loss.target != "binary":
            return (
                f"{loss.name} is for several classes of which one is true, and the data is {kind}"
            )
        return None

    @classmethod
    def yardsticks(cls, data: Data) -> dict[str, Yardstick]:
        made = {"binary": lambda _: _binary(), "multiclass": _multiclass, "multilabel": _multilabel}
        library: dict[str, Metric] = made[data.kind](data.outputs)
        cheap = ("accuracy", "balanced_accuracy", "macro_f1")
        judged = {
            name: Yardstick("lower" if name == "ece" else "higher", metric, cheap=name in cheap)
            for name, metric in library.items()
        }
        return judged | {
            "nll": Yardstick("lower", NegativeLogLikelihood(), cheap=True, raw=True),
            "brier": Yardstick("lower", Brier()),
        }

    def compare(self, inputs: Tensor, target: Tensor) -> Compared:
        output = self(inputs)
        fields = {"student": output, "target": target}
        for teacher in self.teacher:
            with torch.no_grad():
                fields["teacher"] = teacher.to(self.device)(inputs)
        return Compared({OUTPUT: Subject((output, target))}, fields)

    def predict(self, output: Tensor) -> Tensor:
        output = output.float()
        return output.softmax(1) if self.data.kind == "multiclass" else output.sigmoid()

    def truth(self, target: Tensor) -> Tensor:
        return target.long()


TASK = Classification
