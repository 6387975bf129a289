"""Boxes and classes of objects in images, by models whose losses are terms of an objective."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from harness.data import Data, Part
from harness.judges import Yardstick
from harness.models import Model
from harness.models.boxes import CODE, QUALITY, Detections, Detector
from harness.objective import Compared, Facts
from harness.samples import Array, Samples
from harness.tasks._boxes import Coco, Matched
from harness.tasks._shown import of_boxes
from harness.tasks.base import Task, subject
from losses import IGNORING, Loss

OF_BOXES = ("box", "proposal")
SUBJECTS = (*OF_BOXES, "classification", "objectness", "centerness", "mask")
"""What a model may have for terms to compare; a term of such a name is for that."""


class Detection(Task):
    """Detections out, judged as COCO does; each subject of the model needs a term."""

    kinds = ("boxes",)
    gives = "boxes"
    evaluation_batch = 64

    @classmethod
    def reads(cls, term: str, loss: Loss) -> str:
        """Its own name if that is one, else boxes for losses of boxes and numbers, else classes."""
        of_boxes = "box" if loss.target in ("boxes", "real") else "classification"
        wanted = term if term in SUBJECTS else of_boxes
        if wanted in OF_BOXES:
            return f"{wanted}/{CODE}" if loss.target == "real" else wanted
        return f"{wanted}/{QUALITY}" if loss.quality else wanted

    @classmethod
    def refusal(cls, loss: Loss, kind: str, term: str = "") -> str | None:
        wanted = _subject(cls.reads(term, loss))
        if wanted in OF_BOXES:
            return _refusal_of_boxes(loss)
        if loss.target == "fields":
            return cls.refusal_of_fields(loss)
        if loss.target not in IGNORING or loss.target == "ordinal":
            return f"{loss.name} compares {subject(loss)}, and a detector gives scores and boxes"
        if loss.output_within:
            return f"{loss.name} takes log-probabilities, and a detector gives logits"
        if loss.quality and wanted != "classification":
            return f"{loss.name} is for scores of classes, and term {term} is of {wanted}"
        if wanted == "mask" and loss.target == "binary" and not loss.sum_classes:
            return None
        if loss.region:
            return f"{loss.name} compares {subject(loss)}, and a detector's scores are of boxes"
        if not loss.additive:
            return f"{loss.name} compares items with one another, of which a detector has thousands"
        return None

    @classmethod
    def refusal_together(cls, terms: Mapping[str, Loss], model: Model) -> str | None:
        there = model.subjects
        for term, loss in terms.items():
            wanted = _subject(cls.reads(term, loss))
            if wanted not in there:
                return f"{model.name} has no {wanted} for term {term}; it has {', '.join(there)}"
            if there[wanted] == "index" and loss.target == "binary":
                return (
                    f"{loss.name} is for yes or no, and {wanted} of {model.name} is one of several "
                    "classes"
                )
            if there[wanted] == "binary" and loss.target != "binary":
                return (
                    f"{loss.name} is for several classes of which one is true, and {wanted} of "
                    + (f"{model.name} is yes or no")
                )
        read = {_subject(cls.reads(term, loss)) for term, loss in terms.items()}
        for missing in [name for name in there if name not in read]:
            return (
                f"{model.name} learns {', '.join(there)}, and no term is for {missing}: "
                f"name a loss beside, such as loss=[...,LOSS] or +loss.{missing}={{loss: LOSS}}"
            )
        return None

    @classmethod
    def facts(cls, data: Data, settings: Any, seed: int) -> Facts:
        """Objects per class; losses with tensors of their own are told the number of classes."""
        return Facts(data.class_counts, {"classes": len(data.target_names)}, seed)

    @classmethod
    def yardsticks(cls, data: Data) -> dict[str, Yardstick]:
        coco, matched = Coco(), Matched()
        cheap = ("map", "map_50")
        judged = {
            name: Yardstick("higher", coco, cheap=name in cheap, key=name)
            for name in ("map", "map_50", "map_75", "mar_100")
        }
        return judged | {
            name: Yardstick("higher", matched, cheap=True, key=name)
            for name in ("recall_50", "matched_iou")
        }

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs)

    def compare(self, inputs: Tensor, target: Mapping[str, Tensor]) -> Compared:
        return Compared(cast(Detector, self.model).compare(inputs, target))

    def samples(self, part: Part, images: Array) -> Samples:
        said, true, scores = of_boxes(*self.answered(part, len(images)))
        return Samples("boxes", images, true, said, scores)

    def predict(self, output: Any) -> Any:
        return output

    def truth(self, target: Any) -> Any:
        return target

    def _watch_output(self, output: Detections) -> None:
        self._watch(output.scores.sum() + output.boxes.sum(), "the model's output")
        # a model drops what is no number, and would be judged as one that finds nothing
        sums = torch.stack([p.detach().sum() for p in self.model.parameters()])
        self._watch(sums, "a parameter of the model")


def _subject(read: str) -> str:
    """Without the form in which it is read."""
    return read.partition("/")[0]


def _refusal_of_boxes(loss: Loss) -> str | None:
    if loss.target == "boxes":
        return None
    if loss.target != "real":
        return f"{loss.name} compares {subject(loss)}, not boxes"
    if loss.heads > 1 or loss.point:
        return f"{loss.name} reads several numbers for each that is wanted, and a box has one"
    if loss.within or loss.output_within:
        return f"{loss.name} needs numbers {loss.within or loss.output_within}, and a box's are any"
    if not loss.additive:
        return f"{loss.name} compares items with one another, and boxes stand alone"
    return None


TASK = Detection
