"""What the plan of a sweep tells about its fairness before anything has run."""

from collections.abc import Iterator, Mapping
from typing import Any

from harness.comparison import Note
from harness.fairness.words import listed, spans, where
from harness.nested import flat
from harness.plan import Plan
from harness.summary import cells_of

FARTHEST_GRADIENT = 3.0  # times the baseline's at the first batch, beyond which arms are warned of
LOSS_KEYS = ("objective", "loss")  # of Plan.differences: what an arm is about


def configs(plan: Plan) -> Iterator[Note]:
    """Arms that differ from the baseline beyond their loss (R5)."""
    for arm, changes in plan.differences.items():
        other = [f"{k}={v}" for k, v in changes.items() if k.split(".")[0] not in LOSS_KEYS]
        if other:
            yield Note(
                "warning", f"{arm} differs from {plan.baseline} beyond its loss: {listed(other)}"
            )


def gradients(plan: Plan) -> Iterator[Note]:
    """Arms whose first gradients are far from the baseline's in size (R5).

    Only where the step follows the size of the gradient: Adam divides by it, unless it is clipped.
    """
    if plan.tuning and all("optimizer.lr" in keys for keys in plan.tuning.ranges.values()):
        return  # every arm finds the step size that suits its gradients
    for task in plan.tasks:
        cells = {cell.arm: cell for cell in cells_of(plan, task)}
        base = cells.get(plan.baseline)
        if base is None or not base.gradient or not _scaled(flat(base.config)):
            continue
        ratios = {
            arm: cell.gradient / base.gradient for arm, cell in cells.items() if cell.gradient
        }
        low, high = 1 / FARTHEST_GRADIENT, FARTHEST_GRADIENT
        far = [f"{arm} ({ratio:.2g}x)" for arm, ratio in ratios.items() if not low <= ratio <= high]
        if far:
            text = f"{where(plan, task)}first gradients differ from the baseline's by more than "
            yield Note("warning", f"{text}{high:g}x at one step size: {listed(far)}")


def _scaled(config: Mapping[str, Any]) -> bool:
    clipped = config.get("trainer.gradient_clip")
    return config.get("optimizer.name") == "sgd" or bool(clipped)
