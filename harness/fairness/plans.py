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
SAME = {
    "nll": ("cross_entropy", "nll", "bce", "linear_softmax"),
    "brier": ("brier", "multiclass_brier"),
    "mae": ("mae",),
    "rmse": ("mse", "rmse"),
    "r2": ("mse", "rmse"),
    "dice": ("dice", "binary_dice", "batch_dice", "binary_batch_dice"),
    "dice_per_image": ("dice", "binary_dice"),
    "iou": ("jaccard", "binary_jaccard"),
    "miou": ("jaccard", "binary_jaccard"),
    "matched_iou": ("iou",),
}
"""Losses whose value is a metric, or puts models in the same order."""


def notes(plan: Plan) -> Iterator[Note]:
    """All notes that follow from the plan."""
    for check in (configs, gradients, own_metric, steps, late_seeds, rates):
        yield from check(plan)


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


def own_metric(plan: Plan) -> Iterator[Note]:
    """Arms that train on the very metric they are judged by (R4)."""
    metric = plan.metric.rpartition("/")[2]
    for task in plan.tasks:
        found = []
        for cell in cells_of(plan, task):
            terms = cell.config.get("loss", {})
            named = [t.get("loss", key) for key, t in terms.items() if isinstance(t, Mapping)]
            if any(name in (metric, *SAME.get(metric, ())) for name in named):
                found.append(cell.arm)
        if found and len(found) < len(cells_of(plan, task)):
            yield Note(
                "warning",
                f"{where(plan, task)}{plan.metric} is what {listed(found)} "
                f"{'trains' if len(found) == 1 else 'train'} on, and not what others do",
            )


def steps(plan: Plan) -> Iterator[Note]:
    """Arms that are to take more steps than others (R5)."""
    for task in plan.tasks:
        planned = {cell.arm: cell.steps for cell in cells_of(plan, task) if cell.steps}
        if len(set(planned.values())) > 1:
            each = listed(f"{arm} {number}" for arm, number in planned.items())
            yield Note("warning", f"{where(plan, task)}unequal steps: {each}")


def late_seeds(plan: Plan) -> Iterator[Note]:
    """Seeds added when the results of others could be seen (R12)."""
    late = [seed for seed in plan.seeds if seed in plan.late]
    if late:
        days = sorted({plan.planned[seed][:10] for seed in late})
        yield Note(
            "warning",
            f"{'seed' if len(late) == 1 else 'seeds'} {spans(late)} of {len(plan.seeds)} "
            f"{'was' if len(late) == 1 else 'were'} added on {listed(days)}, when results of other "
            "seeds could be seen: p values and intervals do not allow for looking first",
        )


def rates(plan: Plan) -> Iterator[Note]:
    """Says that nothing was tuned, and that one learning rate served all arms if so (R3)."""
    if plan.tuning or len(plan.arms) < 2:
        return
    settings = [flat(cell.config) for task in plan.tasks for cell in cells_of(plan, task)]
    used = {str(keys[key]) for keys in settings for key in keys if key.split(".")[-1] == "lr"}
    if len(used) == 1:
        yield Note(
            "note",
            f"all arms share one untuned learning rate ({used.pop()}), which may suit one loss "
            "better than another",
        )
    else:
        yield Note("note", "no arm was tuned: its settings may suit one loss better than another")
