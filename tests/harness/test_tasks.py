"""What tasks judge by, against scikit-learn and numpy; what they refuse; shipped data."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import log_softmax
from sklearn import metrics as sk
from torch import Tensor, nn

import losses
from harness import tasks
from harness.batches import Batches
from harness.compose import compose
from harness.config import OptimizerConfig
from harness.data import Data, Part
from harness.doctor import fitting, own_tasks, together
from harness.objective import Objective
from harness.run import run
from harness.store import Store
from harness.tasks.base import Diverged, Task
from harness.tasks.classification import Classification
from harness.tasks.regression import Regression
from harness.terms import parse_objective

Array = npt.NDArray[Any]
ITEMS = 2500  # more than two batches of an evaluation
FLOAT32 = 2e-5  # metrics are sums of 2500 float32 numbers; the references use float64


def judge(
    kind: str,
    outputs: int,
    loss: str,
    logits: Array,
    target: Array,
    scale: tuple[Tensor, Tensor] | None = None,
) -> dict[str, float]:
    """The metrics of a model that answers with `logits`."""
    numbers = torch.from_numpy(target)
    part = Part(torch.from_numpy(logits), numbers if kind != "regression" else numbers.float())
    names = tuple(map(str, range(max(outputs, 2))))
    data = Data(kind, part, part, part, outputs, names, scale, {}, None)  # type: ignore[arg-type]
    task_class = Regression if kind == "regression" else Classification
    objective = Objective(parse_objective({loss: {}}))
    task: Task = task_class(data, nn.Identity(), objective, OptimizerConfig(), Batches(part, 10))
    return task.evaluate(part)


def assert_close(ours: dict[str, float], reference: dict[str, float]) -> None:
    assert ours.keys() == reference.keys()
    for name, value in reference.items():
        assert ours[name] == pytest.approx(value, rel=FLOAT32, abs=FLOAT32), name


def calibration_error(confidence: Array, right: Array) -> float:
    """Mean gap of confidence and accuracy in 15 bins of equal width, weighted by their items."""
    bins = np.clip(np.ceil(confidence * 15) - 1, 0, 14)
    gaps = [
        (bins == b).mean() * abs(confidence[bins == b].mean() - right[bins == b].mean())
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps))


# Probabilities in float32 as the metrics see them, or what is tied there would not be tied here.


def softmax32(logits: Array) -> Array:
    return torch.from_numpy(logits).softmax(1).double().numpy()


def sigmoid32(logits: Array) -> Array:
    return torch.from_numpy(logits).sigmoid().double().numpy()


def signed_nll(logits: Array, target: Array) -> float:
    """-log of the probability of labels, in float64 without cancellation."""
    return float(np.logaddexp(0, np.where(target == 1, -1, 1) * logits.astype(float)).mean())


def multiclass_reference(logits: Array, target: Array) -> dict[str, float]:
    p = softmax32(logits)
    guess, classes = p.argmax(1), np.arange(p.shape[1])
    wanted = target[:, None] == classes
    return {
        "accuracy": sk.accuracy_score(target, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(target, guess),
        "macro_f1": sk.f1_score(target, guess, average="macro", labels=classes, zero_division=0),
        "auroc": np.mean([sk.roc_auc_score(wanted[:, c], p[:, c]) for c in classes]),
        "average_precision": sk.average_precision_score(wanted, p, average="macro"),
        "ece": calibration_error(p.max(1), guess == target),
        "nll": float(-log_softmax(logits.astype(float), axis=1)[wanted].mean()),
        "brier": float(((p - wanted) ** 2).sum(1).mean()),
    }


def binary_reference(logits: Array, target: Array) -> dict[str, float]:
    p = sigmoid32(logits)
    guess = (p > 0.5).astype(int)
    return {
        "accuracy": sk.accuracy_score(target, guess),
        "balanced_accuracy": sk.balanced_accuracy_score(target, guess),
        "macro_f1": sk.f1_score(target, guess, average="macro", zero_division=0),
        "auroc": sk.roc_auc_score(target, p),
        "average_precision": sk.average_precision_score(target, p),
        "ece": calibration_error(p, target),
        "nll": signed_nll(logits, target),
        "brier": sk.brier_score_loss(target, p),
    }


def multilabel_reference(logits: Array, target: Array) -> dict[str, float]:
    p = sigmoid32(logits)
    guess = (p > 0.5).astype(int)
    return {
        "accuracy": float((guess == target).mean()),
        "exact_match": sk.accuracy_score(target, guess),
        "macro_f1": sk.f1_score(target, guess, average="macro", zero_division=0),
        "auroc": sk.roc_auc_score(target, p, average="macro"),
        "average_precision": sk.average_precision_score(target, p, average="macro"),
        "nll": signed_nll(logits, target),
        "brier": float(((p - target) ** 2).sum(1).mean()),
    }


def predictions(shape: tuple[int, ...], right: Array) -> dict[str, Array]:
    """Logits from honest to hopeless; `right` is +1 where a logit should be high, -1 elsewhere."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=shape)
    made = {
        "random": noise,
        "good": noise + 2 * right,
        "rounded": np.round(2 * (noise + right)) / 2,  # many ties
        "perfect": 20 * right,
        "all wrong": -20 * right,
        "sure": 1e4 * np.sign(noise),  # probabilities are 0 and 1 exactly
        "constant": np.zeros(shape),
    }
    return {name: logits.astype(np.float32) for name, logits in made.items()}


KINDS = ("random", "good", "rounded", "perfect", "all wrong", "sure", "constant")


@pytest.mark.parametrize("case", KINDS)
def test_multiclass_metrics_are_those_of_sklearn(case: str) -> None:
    target = np.random.default_rng(1).choice(4, size=ITEMS, p=[0.7, 0.2, 0.06, 0.04])
    right = 2.0 * (target[:, None] == np.arange(4)) - 1
    logits = predictions((ITEMS, 4), right)[case]
    ours = judge("multiclass", 4, "cross_entropy", logits, target)
    assert_close(ours, multiclass_reference(logits, target))


@pytest.mark.parametrize("case", KINDS)
def test_binary_metrics_are_those_of_sklearn(case: str) -> None:
    target = (np.random.default_rng(1).random(ITEMS) < 0.1).astype(np.int64)
    logits = predictions((ITEMS,), 2.0 * target - 1)[case]
    ours = judge("binary", 1, "bce", logits, target)
    assert_close(ours, binary_reference(logits, target))


@pytest.mark.parametrize("case", KINDS)
def test_multilabel_metrics_are_those_of_sklearn(case: str) -> None:
    target = (np.random.default_rng(1).random((ITEMS, 3)) < [0.5, 0.1, 0.8]).astype(np.int64)
    logits = predictions((ITEMS, 3), 2.0 * target - 1)[case]
    ours = judge("multilabel", 3, "bce", logits, target)
    assert_close(ours, multilabel_reference(logits, target))


@pytest.mark.parametrize("columns", [None, 3])
@pytest.mark.parametrize("case", ["random", "good", "constant", "perfect", "far off"])
@pytest.mark.parametrize("standardised", [True, False])
def test_regression_metrics_are_in_the_units_of_the_data(
    case: str, columns: int | None, standardised: bool
) -> None:
    rng = np.random.default_rng(2)
    shape = (ITEMS,) if columns is None else (ITEMS, columns)
    target = rng.normal(size=shape).astype(np.float32)
    answer = {
        "random": rng.normal(size=shape),
        "good": target + 0.1 * rng.normal(size=shape),
        "constant": np.zeros(shape),
        "perfect": target,
        "far off": target + 1e3,
    }[case].astype(np.float32)
    mean, sd = (rng.uniform(1, 100, size=shape[1:]) for _ in range(2))
    scale = (torch.as_tensor(mean), torch.as_tensor(sd)) if standardised else None
    ours = judge("regression", columns or 1, "mse", answer, target, scale)
    wanted, given = (
        (v.astype(float) * sd + mean if standardised else v.astype(float)) for v in (target, answer)
    )
    reference = {
        "rmse": math.sqrt(sk.mean_squared_error(wanted.ravel(), given.ravel())),
        "mae": sk.mean_absolute_error(wanted.ravel(), given.ravel()),
        "median_absolute_error": sk.median_absolute_error(wanted.ravel(), given.ravel()),
        "r2": sk.r2_score(wanted, given),
    }
    assert ours.keys() == reference.keys()
    for name, value in reference.items():
        # a target of size 100 in float32 is off by up to 1e-5, what is left where all is right
        assert ours[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name


def test_the_median_of_an_even_number_of_errors_lies_between_the_middle_two() -> None:
    target = np.zeros(4, np.float32)
    answer = np.array([1, -10, 4, 2], np.float32)
    ours = judge("regression", 1, "mae", answer, target)["median_absolute_error"]
    assert ours == sk.median_absolute_error(target, answer) == 3


@pytest.mark.parametrize("columns", [None, 3])
def test_of_several_heads_the_prediction_is_judged(columns: int | None) -> None:
    """Gaussian NLL: a mean and a variance per target, the mean first."""
    rng = np.random.default_rng(3)
    shape = (50,) if columns is None else (50, columns)
    target, mean, spread = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    heads = np.stack([mean, spread], 1)  # [N, 2] or [N, 2, K]
    one = judge("regression", columns or 1, "mse", mean, target)
    flat = heads.reshape(50, -1)  # as a model gives it
    assert judge("regression", columns or 1, "gaussian_nll", flat, target) == one


def test_evaluating_twice_gives_the_same_and_leaves_the_mode_alone() -> None:
    task = small_task()
    first, again = (task.evaluate(task.data.val) for _ in range(2))
    assert first == again
    assert task.training
    task.eval()
    task.evaluate(task.data.val)
    assert not task.training


def small_task() -> Task:
    from harness.prepare import prepare

    config = compose(["task=classification/iris", "loss=focal", "model.dropout=0.5"])
    return prepare(config).task


def test_outputs_that_are_not_finite_are_a_divergence() -> None:
    task = small_task()
    part = task.data.val
    for bad in (math.nan, math.inf, -math.inf):
        inputs = part.inputs.clone()
        inputs[3, 2] = bad
        with pytest.raises(Diverged, match="the model's output is not finite at step 0"):
            task.evaluate(Part(inputs, part.target))


def test_large_values_in_half_precision_are_no_divergence() -> None:
    """Their sum overflows at 65504."""
    task = small_task()
    task._watch(torch.full((1024, 10), 100.0, dtype=torch.float16), "outputs")
    with pytest.raises(Diverged, match="outputs is not finite"):
        task._watch(torch.full((3,), math.inf, dtype=torch.float16), "outputs")


def test_every_task_judges_every_metric_in_a_direction() -> None:
    for name in tasks.names():
        task = tasks.get(name)
        for kind in task.kinds:
            data = dataclasses.replace(small_task().data, kind=kind)  # type: ignore[arg-type]
            yardsticks = task.yardsticks(data)
            assert any(yardstick.cheap for yardstick in yardsticks.values())
            for metric, yardstick in yardsticks.items():
                errors = ("ece", "nll", "brier", "rmse", "mae", "median_absolute_error")
                assert (yardstick.direction == "lower") == (metric in errors)


@pytest.mark.parametrize(
    ("kind", "loss", "words"),
    [
        ("multiclass", "mse", ["mse", "multiclass"]),
        ("binary", "huber", ["huber", "binary"]),
        ("multiclass", "bce", ["bce", "independent", "multiclass"]),
        ("binary", "cross_entropy", ["cross_entropy", "several classes", "binary"]),
        ("multilabel", "focal", ["focal", "several classes", "multilabel"]),
        ("binary", "multilabel_bce", ["multilabel_bce", "several labels", "binary"]),
        ("multiclass", "nll", ["nll", "log-probabilities", "multiclass"]),
    ],
)
def test_classification_says_why_it_refuses(kind: str, loss: str, words: list[str]) -> None:
    reason = Classification.refusal(losses.get(loss), kind)
    assert reason is not None
    assert all(word in reason for word in words)


def test_regression_says_why_it_refuses() -> None:
    for loss in ("cross_entropy", "bce", "hinge"):
        reason = Regression.refusal(losses.get(loss), "regression")
        assert reason is not None
        assert loss in reason
    assert Regression.refusal(losses.get("mse"), "regression") is None


def test_there_is_no_task_of_another_name() -> None:
    assert {"classification", "regression"} <= set(tasks.names())
    with pytest.raises(ValueError, match="no task 'clasification'; did you mean 'classification'"):
        tasks.get("clasification")


@pytest.mark.parametrize("task", own_tasks())
def test_metrics_are_finite_on_shipped_data_after_an_epoch(task: str, tmp_path: Path) -> None:
    fits = fitting(task)
    loss = next((name for name in ("cross_entropy", "bce", "mse") if name in fits), fits[0])
    record = run(
        compose([f"task={task}", together(task, loss), "trainer.epochs=1"]), Store(tmp_path)
    )
    assert record.status == "done", record.error
    assert all(math.isfinite(value) for value in record.metrics.values())
    by_split = [
        {name.removeprefix(f"{split}/") for name in record.metrics if name.startswith(split)}
        for split in ("val", "test")
    ]
    assert by_split[0] == by_split[1] != set()
    (point,) = record.curve
    assert all(math.isfinite(value) for value in point.values())
    assert (point["epoch"], point["step"]) == (1, record.steps)
