"""What the terms of an objective pull at while it trains, measured on demand.

The gradients are taken from the graph of the training step before its own backward pass, so that
nothing is drawn anew, nothing is stepped or accumulated, and training goes on to the last bit as it
would have. They are those of the model's parameters; tensors that a loss learns itself are left
out. They are what the optimiser would be given before clipping: at full scale under a GradScaler,
and of the whole batch where several processes share it.
"""

import itertools
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from harness import across
from harness.objective import Evaluated, Objective
from harness.tasks.base import Task

DIGITS = 6
"""Significant digits that a record keeps."""
ROUNDING = 1e-7
"""A whole below this share of its parts has been cancelled to rounding: it has no direction."""


class Pulls(NamedTuple):
    """Gradients of T terms at one step; what is undefined or not finite is None.

    Attributes:
        norms: Euclidean norm of every term's gradient before its weight.
        shares: of the weighted gradients in the whole :math:`g`, :math:`w_i g_i \\cdot g / |g|^2`;
            they add up to 1, and a term that pulls against the whole has a negative one.
        cosines: of the angle between two terms, in the order of `itertools.combinations`.
        whole: norm of the whole gradient.
    """

    norms: list[float | None]
    shares: list[float | None]
    cosines: list[float | None]
    whole: float | None


def pulls(
    terms: Sequence[Tensor],
    weights: Sequence[float],
    parameters: Iterable[Tensor],
    scale: float = 1.0,
) -> Pulls:
    """Norms, shares and cosines of the terms' gradients; keeps their graph for the step's own pass.

    Args:
        terms: scalars of one graph.
        weights: what each is multiplied by in the whole.
        parameters: what is differentiated by; those without a gradient are left out.
        scale: what gradients of half precision are multiplied by on their way.
    """
    gram = _products(terms, [p for p in parameters if p.requires_grad], scale)
    factors = torch.tensor(weights, dtype=gram.dtype, device=gram.device)
    along = factors * (gram @ factors)  # [T], of each weighted term with the whole
    norms = gram.diagonal().sqrt()
    square, least = float(along.sum()), float((norms * factors).sum()) * ROUNDING
    square = 0.0 if square <= least * least else square
    cosines = gram / torch.outer(norms, norms)
    pairs = itertools.combinations(range(len(terms)), 2)
    return Pulls(
        norms=[_finite(norm) for norm in norms.tolist()],
        shares=[_finite(value / square) if square else None for value in along.tolist()],
        cosines=[_finite(float(cosines[pair].clamp(-1, 1))) for pair in pairs],
        whole=_finite(math.sqrt(square)),
    )


def _products(terms: Sequence[Tensor], parameters: Sequence[Tensor], scale: float) -> Tensor:
    """Inner products of the terms' gradients in float64 [T, T], summed over all parameters."""
    gram = terms[0].new_zeros(len(terms), len(terms), dtype=torch.float64)
    if not parameters:
        return gram
    gradients = [_gradient(term, parameters, scale) for term in terms]
    world = across.processes()
    for parts in zip(*gradients, strict=True):  # one parameter, every term
        rows = torch.stack([part.flatten() for part in parts])  # [T, numel]
        rows = across.total(rows) / world if world else rows
        wide = rows.double() / scale
        gram += wide @ wide.T
    return gram


def _gradient(term: Tensor, parameters: Sequence[Tensor], scale: float) -> Sequence[Tensor]:
    if not term.requires_grad:  # nothing in it depends on what is learnt
        return [torch.zeros_like(p) for p in parameters]
    slope = torch.full_like(term, scale)
    with torch.autocast(term.device.type, enabled=False):  # as in the step's own backward pass
        return torch.autograd.grad(
            term, parameters, slope, retain_graph=True, allow_unused=True, materialize_grads=True
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(values: Any) -> Any:
    """The same with `DIGITS` significant digits."""
    if isinstance(values, list):
        return [_short(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if isinstance(values, float) else values


class Gradients(Callback):
    """Notes the scale of the loss at the first step and, every so many steps, the pulls of terms.

    Attributes:
        start: `loss`, and `gradient`, the norm before clipping; without what is not finite.
        found: as in :class:`harness.record.Record`; empty where nothing was asked for.
        seconds: spent on it.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.start: dict[str, float] = {}
        self.found: dict[str, Any] = {}
        self.seconds = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What was measured, for a run that goes on in another process."""
        return {"start": self.start, "found": self.found, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self.start.update(state_dict["start"])
        self.found.update(state_dict["found"])
        self.seconds = state_dict["seconds"]

    def on_fit_start(self, trainer: Any, task: LightningModule) -> None:
        """Have the objective show its terms, if that is wanted."""
        assert isinstance(task, Task)
        if not self.every:
            return

        def look(objective: nn.Module, _: Any, evaluated: Evaluated) -> None:
            assert isinstance(objective, Objective)
            if task.global_step % self.every == 0:
                self._look(trainer, task, objective, evaluated)

        task.objective.register_forward_hook(look)

    def _look(self, trainer: Any, task: Task, objective: Objective, evaluated: Evaluated) -> None:
        if task.device.type == "cuda":
            torch.cuda.synchronize(task.device)
        began = time.perf_counter()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        weights = objective.current()
        seen = pulls(
            list(evaluated.terms.values()),
            weights,
            task.model.parameters(),
            scaler.get_scale() if scaler else 1.0,
        )
        if not self.found:
            columns = ("steps", "weights", *Pulls._fields)
            self.found |= {"every": self.every, "terms": list(evaluated.terms)}
            self.found |= {column: [] for column in columns}
        row = {"steps": task.global_step, "weights": weights, **seen._asdict()}
        for column, value in row.items():
            self.found[column].append(_short(value))
        self.seconds += time.perf_counter() - began

    def on_before_optimizer_step(self, trainer: Any, task: LightningModule, _: Any) -> None:
        """Note the first loss and its gradient: before clipping, at full scale, of all devices."""
        assert isinstance(task, Task)
        if trainer.global_step:
            return
        squares = [p.grad.double().square().sum() for p in task.model.parameters()
                   if p.grad is not None]  # fmt: skip
        norm = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
        scale = {"loss": float(task.sums["train/loss"]), "gradient": norm}
        self.start |= {name: value for name, value in scale.items() if math.isfinite(value)}
