"""Maps of classes from images: a mask, rare or not, or several classes."""

from typing import Any

import torch
from torch import Tensor

from harness.data import Data, Part
from harness.judges import Yardstick
from harness.objective import OUTPUT, Compared, Subject
from harness.samples import Array, Samples
from harness.tasks import _maps as maps
from harness.tasks._shown import of_maps
from harness.tasks.base import Task, subject
from losses import IGNORING, Loss, edge_distance, get, signed_distance
from losses.inputs import IGNORE_INDEX

OF_MAPS = ("distance", "target_distance", "output_distance")
"""Fields that are computed where a loss asks for them."""


class Segmentation(Task):
    """Logits in, classes of pixels out. A mask: [N, H, W]; several classes: [N, C, H, W]."""

    kinds = ("mask", "semantic")
    gives = "map"
    fields = ("logits", "target", *OF_MAPS)
    evaluation_batch = 64

    @classmethod
    def refusal(cls, loss: Loss, kind: str, term: str = "") -> str | None:
        several = kind == "semantic"
        if loss.target == "fields":
            return cls.refusal_of_fields(loss) or _of_the_other_kind(loss, several)
        if loss.target not in IGNORING:
            return (
                f"{loss.name} compares {subject(loss)}, and a {kind} model gives logits of pixels"
            )
        if loss.output_within:
            return f"{loss.name} takes log-probabilities, and a {kind} model gives logits"
        if loss.target == "binary" and several:
            return f"{loss.name} is for one mask, and the data has several classes"
        if loss.target == "binary" and loss.sum_classes:
            return f"{loss.name} is for several labels of an item, and the data is one mask"
        if loss.target != "binary" and not several:
            return (
                f"{loss.name} is for several classes of which one is true, and the data is a mask"
            )
        return None

    @classmethod
    def yardsticks(cls, data: Data) -> dict[str, Yardstick]:
        names = ("background", "foreground") if data.kind == "mask" else data.target_names
        overlap, per_image = maps.Overlap(names), maps.OverlapPerImage(len(names))
        keys = ["dice", "iou", "miou", "accuracy", "precision", "recall"]
        cheap = ("dice", "miou", "accuracy")
        if data.kind == "semantic":
            keys = [key for key in keys if key != "iou"] + [maps.key_of(name) for name in names]
        judged = {k: Yardstick("higher", overlap, cheap=k in cheap, key=k) for k in keys}
        judged |= {
            "dice_per_image": Yardstick("higher", per_image, key="dice"),
            "empty_kept": Yardstick("higher", per_image, key="empty"),
            "boundary_iou": Yardstick("higher", maps.BoundaryIoU(len(names))),
            "nll": Yardstick("lower", maps.NegativeLogLikelihoodOfPixels(), cheap=True, raw=True),
        }
        if data.kind == "mask":
            best = maps.DiceAtThreshold()
            judged["dice_best"] = Yardstick("higher", best, raw=True, key="dice")
            judged["threshold"] = Yardstick(None, best, raw=True, key="threshold")
        return judged

    def choose(self) -> None:
        for yardstick in self.judges.yardsticks.values():
            if isinstance(yardstick.metric, maps.DiceAtThreshold):
                yardstick.metric.choose()

    def compare(self, inputs: Tensor, target: Tensor) -> Compared:
        output = self(inputs)
        return Compared({OUTPUT: Subject((output, target))}, self._fields(output, target))

    def _fields(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What losses of fields ask for; distances are 0 where a pixel is ignored, so none counts.

        An ignored pixel lies outside every region.
        """
        terms = self.objective.config.losses().values()
        asked = {name for term in terms for name in get(term.loss).inputs}
        if not asked.intersection(self.fields):
            return {}
        wanted: dict[str, Any] = {
            "logits": lambda: output,
            "target": lambda: target.clamp(min=0).to(output.dtype),
            "distance": lambda: self._signed_distance(target, output),
            "target_distance": lambda: edge_distance(target == 1).to(output.dtype),
            "output_distance": lambda: edge_distance(output.detach() > 0).to(output.dtype),
        }
        made = {name: wanted[name]() for name in asked.intersection(self.fields)}
        kept = target != IGNORE_INDEX
        for name in asked.intersection(OF_MAPS):
            made[name] = made[name] * (kept if made[name].ndim == kept.ndim else kept.unsqueeze(1))
        return made

    def _signed_distance(self, target: Tensor, output: Tensor) -> Tensor:
        """To the boundary of each class, of the output's shape."""
        if self.data.kind == "mask":
            return signed_distance(target == 1).to(output.dtype)
        classes = torch.arange(output.shape[1], device=target.device).view(-1, 1, 1)
        masks = target.unsqueeze(1) == classes  # [N, C, H, W]
        return signed_distance(masks.flatten(0, 1)).view_as(masks).to(output.dtype)

    def samples(self, part: Part, images: Array) -> Samples:
        output, target = self.answered(part, len(images))
        said, true, scores = of_maps(self.predict(output), target)
        return Samples("maps", images, {"labels": true}, {"labels": said}, scores)

    def predict(self, output: Tensor) -> Tensor:
        return (output > 0).long() if self.data.kind == "mask" else output.argmax(1)


def _of_the_other_kind(loss: Loss, several: bool) -> str | None:
    """Of losses that name their inputs, those of classes declare an axis C of their logits."""
    if ("C" in loss.fields["logits"].split()[2:3]) == several:
        return None
    words = ("several classes", "the data is a mask"), ("one mask", "the data has several classes")
    return "{} is for {}, and {}".format(loss.name, *words[several])


TASK = Segmentation
