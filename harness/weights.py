"""Which weights of a run stay in its folder: the last, and those of the best evaluation."""

import contextlib
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule

from harness import models
from harness.config import TrainerConfig
from harness.record import weights_kept
from harness.tasks.base import Task


class Weights(Callback):
    """Writes the model's weights where its evaluation is the best so far, and at the end.

    The best is by the first of the task's metrics that is evaluated while training, on the
    validation part; of equals it is the first. Without a finite one the last is the best.
    """

    def __init__(self, folder: Path, wanted: TrainerConfig) -> None:
        self.files = weights_kept(folder, kept(wanted))
        self.best: float | None = None

    def set_aside(self, folder: Path) -> None:
        """Rename what an earlier run of the same id has left, which this run's record is not of."""
        for path in weights_kept(folder, "both").values():
            with contextlib.suppress(FileNotFoundError):
                path.replace(path.with_name(f"{path.name}.earlier"))

    def state_dict(self) -> dict[str, Any]:
        """How good the best is."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """How good it was when the run was stopped; its weights are in the folder."""
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: Any, task: LightningModule) -> None:
        """Keep weights that are better than those before."""
        assert isinstance(task, Task)
        if "best" in self.files and trainer.is_global_zero:
            self._judge(task)

    def end(self, task: Task) -> None:
        """Keep the weights of a run that is done, whose curve has its last point."""
        if "best" in self.files:
            self._judge(task)
            if self.best is None:
                models.save(task.model, self.files["best"])
        if "last" in self.files:
            models.save(task.model, self.files["last"])

    def _judge(self, task: Task) -> None:
        metric, direction = _metric(task)
        value = task.curve[-1][f"val/{metric}"]
        gain = value if direction == "higher" else -value
        if math.isfinite(gain) and (self.best is None or gain > self.best):
            models.save(task.model, self.files["best"])
            self.best = gain


def kept(wanted: TrainerConfig) -> str:
    """What is to stay, with auto resolved."""
    automatic = "both" if wanted.checkpoint else "none"
    return automatic if wanted.keep == "auto" else wanted.keep


def _metric(task: Task) -> tuple[str, str | None]:
    """The metric that says which weights are the best, and which way is better."""
    judges = task.judges
    name = next(name for name in judges.cheap if judges.yardsticks[name].direction)
    return name, judges.yardsticks[name].direction
