"""The optimiser of a run, as its config says it."""

from typing import Any

import torch
from torch import nn

from harness.config import OptimizerConfig


def optimizer_of(
    chosen: OptimizerConfig, model: nn.Module, objective: nn.Module, steps: int
) -> Any:
    """What Lightning wants of a task: an optimiser, and with a schedule over all steps both.

    Tensors that a loss learns itself are a group of their own, with a step size of their own.
    """
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    own = list(objective.parameters())
    if own:
        groups.append({"params": own, "lr": chosen.own_lr or chosen.lr})
    common: dict[str, Any] = {"lr": chosen.lr, "weight_decay": chosen.weight_decay}
    optimizer: torch.optim.Optimizer
    if chosen.name == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=chosen.momentum, **common)
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[chosen.name]
        optimizer = kind(groups, **common)
    if chosen.schedule == "constant":
        return optimizer
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}
