"""The one training step that every task shares, and what a task has to say for itself."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.batches import Batches, Draw
from harness.config import OptimizerConfig
from harness.data import Data, Part
from harness.judges import Judges, Yardstick
from harness.models import Model
from harness.objective import OUTPUT, Compared, Facts, Objective, Subject
from harness.optimizer import optimizer_of
from harness.samples import Array, Samples
from losses import Loss, Projection

EVALUATED = 2**24
"""Numbers in the inputs of a batch while evaluating, at most: 111 images of 3x224x224."""


class Diverged(Exception):  # noqa: N818 - a state of the run, not an error of the program
    """Training met NaN or infinity; `step` says where."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} is not finite at step {step}")
        self.step = step


def subject(loss: Loss) -> str:
    """What a loss compares, in words."""
    if loss.region:
        return "regions of images"
    words = {
        "real": "real values",
        "boxes": "boxes",
        "labels": "embeddings of items that belong together",
        "place": "distributions over places",
        "fields": " and ".join(loss.inputs),
    }
    return words.get(loss.target, "classes")


@dataclass(frozen=True)
class NoSettings:
    """The settings of a task that has none."""


class Task(LightningModule):
    """Model, objective and metrics on one data set. Subclasses say what outputs mean.

    A subclass defines `kinds`, `refusal`, `predict` and `yardsticks`, and names no loss.

    Attributes:
        kinds: of data it can learn from, see :class:`harness.data.Data`.
        unseen: whether it can be judged on classes that it has not trained on.
        gives: what its models give, see :func:`harness.models.model`.
        fields: names of the tensors it has for losses that name their inputs.
        Settings: a dataclass of what a config may say under `task` beside the name.
        evaluation_batch: items per batch while evaluating, fewer if they exceed EVALUATED numbers.
        parts: in how many the model sees a training batch, see `accumulate` in
            :class:`harness.config.TrainerConfig`.
    """

    kinds: tuple[str, ...] = ()
    unseen = False
    gives: str = "values"
    fields: tuple[str, ...] = ()
    Settings: type[Any] = NoSettings
    evaluation_batch = 1024

    def __init__(
        self,
        data: Data,
        model: nn.Module,
        objective: Objective,
        optimizer: OptimizerConfig,
        batches: Batches,
        settings: Any = None,
        teacher: nn.Module | None = None,
        projections: Sequence[Projection] = (),
    ) -> None:
        super().__init__()
        self.data, self.model, self.objective = data, model, objective
        self.optimizing, self.batches = optimizer, batches
        self.settings = settings or self.Settings()
        # in a list torch does not see it: no gradient, no train(), not in a checkpoint
        self.teacher = [teacher.requires_grad_(False).eval()] if teacher else []
        self.judges = Judges(self.yardsticks(data))
        self.projections = projections
        self.curve: list[dict[str, float]] = []
        self.sums: dict[str, Tensor] = {}
        self.added = 0
        self.parts = 1

    @classmethod
    def refusal(cls, loss: Loss, kind: str, term: str = "") -> str | None:
        """Why this loss, under this name of its term, does not fit data of this kind, if so."""
        raise NotImplementedError

    @classmethod
    def refusal_of_fields(cls, loss: Loss) -> str | None:
        """The same for a loss that names its inputs."""
        lacking = [name for name in loss.inputs if name not in cls.fields]
        return f"{loss.name} needs {' and '.join(lacking)}" if lacking else None

    @classmethod
    def refusal_together(cls, terms: Mapping[str, Loss], model: Model) -> str | None:
        """Why losses that fit the data, by their terms' names, cannot train this model together."""
        return None

    @classmethod
    def reads(cls, term: str, loss: Loss) -> str:
        """Which subject a term compares, where the task has several."""
        return OUTPUT

    @classmethod
    def outputs(cls, data: Data, settings: Any) -> int:
        """Numbers a model gives per item, before a loss asks for more."""
        return data.outputs

    @classmethod
    def facts(cls, data: Data, settings: Any, seed: int) -> Facts:
        """What losses must know before the first batch."""
        sizes = {"classes": len(data.target_names), "features": cls.outputs(data, settings)}
        return Facts(data.class_counts, sizes, seed)

    @classmethod
    def draw(cls, data: Data, size: int, settings: Any) -> Draw | None:
        """How a task composes its batches, if not from a random order of all items."""
        return None

    @classmethod
    def yardsticks(cls, data: Data) -> dict[str, Yardstick]:
        """Metrics by name, the same for every arm."""
        raise NotImplementedError

    def references(self, part: Part) -> dict[str, dict[str, float]]:
        """Metrics of what has learnt nothing, by its name and theirs; asked before the first step.

        For tasks whose metrics are high without any training; they are printed beside the table.
        """
        return {}

    def predict(self, output: Tensor) -> Tensor:
        """What the metrics are given: probabilities, or values in the target's units.

        `output` is what the losses take the model's output to predict, see :meth:`Objective.point`.
        """
        raise NotImplementedError

    def truth(self, target: Tensor) -> Tensor:
        """The target in the units of `predict`."""
        return target

    def choose(self) -> None:
        """Settle by what the judges have seen of the validation part what others are judged by."""

    def train_dataloader(self) -> Batches:
        """Batches on this process's device; each process takes its share of every batch."""
        part = self.batches.part.to(self.device)
        share = {"rank": self.global_rank, "world": self.trainer.world_size}
        own = self.batches
        return Batches(part, own.size, own.seed, own.draw, own.augment, **share)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["lossbench.task"] = {
            "curve": self.curve,
            "sums": self.sums,
            "added": self.added,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["lossbench.task"]
        self.curve[:], self.sums, self.added = kept["curve"], kept["sums"], kept["added"]

    def val_dataloader(self) -> Batches:
        """Every process evaluates every item, so that each is counted exactly once."""
        return self._in_order(self.data.val)

    def _in_order(self, part: Part) -> Batches:
        size = min(self.evaluation_batch, EVALUATED // math.prod(part.inputs.shape[1:]))
        return Batches(part.to(self.device), max(1, size))

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor
        if self.training and torch.is_grad_enabled() and len(inputs) > self.parts > 1:
            parts = inputs.tensor_split(self.parts)  # what each keeps is computed again when needed
            output = torch.cat([checkpoint(self.model, one, use_reentrant=False) for one in parts])
        else:
            output = self.model(inputs)
        if self.objective.heads > 1 and self.data.outputs > 1:
            output = output.reshape(len(output), self.objective.heads, -1)  # [N, heads, K]
        return output

    def compare(self, inputs: Tensor, target: Any) -> Compared:
        """Push a training batch through the model; what the terms of the objective then compare."""
        return Compared({OUTPUT: Subject((self(inputs), target))})

    def training_step(self, batch: tuple[Tensor, Any], _: int) -> Tensor:
        inputs, target = batch
        if self.objective.scheduled:
            self.objective.advance(self.global_step / self.trainer.estimated_stepping_batches)
        total, terms = self.objective(self.compare(inputs, target), self.model)
        self._watch(total, "the training loss")
        self.added += 1
        self._add("train/loss", total)
        if len(terms) > 1 or self.objective.scheduled:
            for weight, (name, term) in zip(self.objective.weights, terms.items(), strict=True):
                self._add(f"train/{name}", term)
                self._add(f"train/{name}.weighted", term * weight)
        return torch.as_tensor(total)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        optimizer = args[2] if len(args) > 2 else kwargs["optimizer"]
        for projection in self.projections:
            projection(self.model, optimizer.param_groups[0]["lr"])

    def _watch(self, values: Tensor, what: str) -> None:
        # a sum is finite unless a value is not (or all are absurdly large), and costs one pass;
        # in half precision it would overflow at 65504
        wide = torch.promote_types(values.dtype, torch.float32)
        if not math.isfinite(values.detach().sum(dtype=wide).item()):
            raise Diverged(what, self.global_step)

    def _add(self, name: str, value: Tensor) -> None:
        value = value.detach()
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def on_validation_epoch_start(self) -> None:
        self.judges.reset(self.judges.cheap, self.device)

    def validation_step(self, batch: tuple[Tensor, Any], _: int) -> None:
        self._judge(batch, self.judges.cheap)

    def on_validation_epoch_end(self) -> None:
        self._add_point(self.current_epoch + 1, self.judges.compute(self.judges.cheap))

    def end_curve(self, metrics: Mapping[str, float]) -> None:
        """Add the last epoch to the curve, if it was not one after which evaluation was due."""
        if self.added:
            self._add_point(self.current_epoch, {name: metrics[name] for name in self.judges.cheap})

    def _add_point(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Means of the training terms since the last point, and metrics of the validation part."""
        means = {name: float(value) / self.added for name, value in self.sums.items()}
        judged = {f"val/{name}": value for name, value in metrics.items()}
        point = {"epoch": epoch, "step": self.global_step, **means, **judged}
        self.curve.append({key: float(value) for key, value in point.items()})
        self.sums, self.added = {}, 0

    def evaluate(self, part: Part) -> dict[str, float]:
        """All metrics on one part of the data, computed without gradients and in eval mode."""
        was_training = self.training
        self.eval()
        self.judges.reset(self.judges.all, self.device)
        with torch.no_grad():
            for inputs, target in self._in_order(part):
                # in float64 where the model is, as the Trainer does while training
                self._judge((inputs.to(self.dtype), target), self.judges.all)
        if part is self.data.val:
            self.choose()
        self.train(was_training)
        return self.judges.compute(self.judges.all)

    def _judge(self, batch: tuple[Tensor, Any], names: Iterable[str]) -> None:
        inputs, target = batch
        output = self(inputs)
        self._watch_output(output)
        output = self.objective.point(output)
        prediction, truth = self.predict(output), self.truth(target)
        self.judges.update(output, prediction, truth, names)

    def _watch_output(self, output: Any) -> None:
        """Raise :class:`Diverged` if the output is not finite."""
        self._watch(output, "the model's output")

    def samples(self, part: Part, images: Array) -> Samples | None:
        """What the model makes of the first items of a part, whose pictures are given.

        Asked in eval mode, without gradients; None where there is nothing to look at.
        """
        return None

    def answered(self, part: Part, number: int) -> tuple[Any, Any]:
        """The model's output for the first items of a part, and their target."""
        first = part.first(number).to(self.device)
        inputs, target = first.take(torch.arange(len(first)))
        return self.objective.point(self(inputs.to(self.dtype))), target

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        return optimizer_of(self.optimizing, self.model, self.objective, steps)
