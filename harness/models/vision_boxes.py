"""torchvision's detectors by name, with new weights or those of a file; nothing is downloaded."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from torch import Tensor, nn

from harness.models import vision_learn as learn
from harness.models.base import TORCHVISION, Adapted, Model, Shape
from harness.models.boxes import Detections, Subjects, padded, present
from harness.models.vision_learn import Objects
from losses.arguments import Bounds, Count, Positive, Share, nearest, parameters_of

Layers = Annotated[int, Bounds(0, 5)]
BOTH = {"classification": "index", "box": "boxes"}
DENSE = {"classification": "binary", "box": "boxes"}
REGIONS = {"objectness": "binary", "proposal": "boxes", **BOTH}
SUBJECTS = {
    "fasterrcnn": REGIONS,
    "maskrcnn": {**REGIONS, "mask": "binary"},
    "retinanet": DENSE,
    "fcos": {**DENSE, "centerness": "binary"},
    "ssd": BOTH,
    "ssdlite": BOTH,
}
"""By the first word of a name, to its digits."""
BODY = ("layer4", "layer3", "layer2", "layer1", "conv1")


def entry(name: str, names: Sequence[str]) -> Model:
    """The torchvision detector of that name, of these names, with new weights.

    Raises:
        ValueError: one of keypoints.
    """
    family = name.removeprefix(TORCHVISION).partition("_")[0].rstrip("0123456789")
    if family not in SUBJECTS:
        known = [TORCHVISION + each for each in names]
        raise ValueError(f"{name} detects more than boxes and masks{nearest(name, known)}")
    function = _regional if "rcnn" in family else _fixed if "ssd" in family else _dense
    made = functools.partial(function, name)
    return Model(name, made, parameters_of(function), "boxes", SUBJECTS[family])


class VisionDetector(Adapted):
    """One of torchvision's, between padded batches and its lists of images.

    Attributes:
        heads: names, or beginnings of names, of weights that depend on the number of classes.
        normalises: it subtracts the mean of colours and divides by their sd itself.
    """

    normalises = True

    def __init__(
        self,
        inner: nn.Module,
        subjects: Callable[[Any, list[Tensor], Objects], Subjects],
        first_label: int,
        heads: tuple[str, ...],
    ) -> None:
        super().__init__(inner)
        self.subjects, self.first_label, self.heads = subjects, first_label, heads

    def forward(self, images: Tensor) -> Detections:  # type: ignore[override]
        """What is found in images [N, C, H, W]."""
        return padded(self.inner(_listed(images)), self.first_label)

    def compare(self, images: Tensor, target: Mapping[str, Tensor]) -> Subjects:
        """What its own losses compare, and the same boxes as corners."""
        objects = [
            {key: rows[image][there] for key, rows in target.items()}
            for image, there in enumerate(present(target))
        ]
        for each in objects:
            each["labels"] = each["labels"] + self.first_label
            each["boxes"] = each["boxes"].to(images)
        return self.subjects(self.inner, _listed(images), objects)


def _listed(images: Tensor) -> list[Tensor]:
    """Each by itself; a grey one as three equal channels."""
    return [*(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images)]


def _regional(
    name: str,
    input_shape: Shape,
    outputs: int,
    *,
    min_size: Count | None = None,
    max_size: Count | None = None,
    anchor_scale: Positive = 1.0,
    proposals: Count = 2000,
    samples: Count = 512,
    trainable_layers: Layers = 5,
    frozen_norm: bool = False,
    score_threshold: Share = 0.05,
    nms: Share = 0.5,
    detections: Count = 100,
) -> nn.Module:
    """Faster R-CNN, or Mask R-CNN.

    Args:
        name: of torchvision's model.
        input_shape: [3, H, W], or [1, H, W] repeated to three channels, values from 0 to 1.
        outputs: classes without the background.
        min_size: images are enlarged until the shorter side is so long; None leaves them.
        max_size: but not so that the longer side exceeds this; None for no limit.
        anchor_scale: factor of the sizes of torchvision's anchors.
        proposals: kept per image, before and after duplicates are dropped, while it trains.
        samples: proposals per image of the second stage, and half as many anchors of the first.
        trainable_layers: of the five of a ResNet, from its end.
        frozen_norm: keep statistics of batches as they are, as published weights of the first
            versions need it.
        score_threshold: detections with a lower score are dropped.
        nms: two detections of one class that overlap more are one.
        detections: at most, per image.
    """
    options = {
        "rpn_pre_nms_top_n_train": proposals,
        "rpn_post_nms_top_n_train": proposals,
        "rpn_batch_size_per_image": max(samples // 2, 1),
        "box_batch_size_per_image": samples,
    }
    built = _made(name, input_shape, outputs + 1, (min_size, max_size), **options)
    _keep(built.roi_heads, score_threshold, nms, detections)
    _scale_anchors(built.rpn, anchor_scale)
    _adapt_body(name, built, trainable_layers, frozen_norm)
    heads = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
    return VisionDetector(built, learn.regional, 1, heads)


def _dense(
    name: str,
    input_shape: Shape,
    outputs: int,
    *,
    min_size: Count | None = None,
    max_size: Count | None = None,
    anchor_scale: Positive = 1.0,
    trainable_layers: Layers = 5,
    frozen_norm: bool = False,
    score_threshold: Share = 0.05,
    nms: Share = 0.5,
    detections: Count = 100,
) -> nn.Module:
    """RetinaNet, or FCOS, whose anchors are places and cannot be scaled; see :func:`_regional`."""
    built = _made(name, input_shape, outputs, (min_size, max_size))
    _keep(built, score_threshold, nms, detections)
    is_fcos = name.removeprefix(TORCHVISION).startswith("fcos")
    if is_fcos and anchor_scale != 1:
        raise ValueError(f"{name} has no anchors to scale, got anchor_scale={anchor_scale:g}")
    _scale_anchors(built, anchor_scale)
    _adapt_body(name, built, trainable_layers, frozen_norm)
    heads = ("head.classification_head.cls_logits.",)
    return VisionDetector(built, learn.placed if is_fcos else learn.anchored, 0, heads)


def _fixed(
    name: str,
    input_shape: Shape,
    outputs: int,
    *,
    score_threshold: Share = 0.01,
    nms: Share = 0.45,
    detections: Count = 200,
) -> nn.Module:
    """SSD: images of any size become 300 or 320 pixels wide and high; see :func:`_regional`."""
    built = _made(name, input_shape, outputs + 1, None)
    _keep(built, score_threshold, nms, detections)
    return VisionDetector(built, learn.fixed, 1, ("head.classification_head.",))


def _made(
    name: str,
    shape: Shape,
    classes: int,
    sizes: tuple[int | None, int | None] | None,
    **options: Any,
) -> Any:
    """torchvision's model with new weights, for images of this shape."""
    from torchvision.models import get_model

    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            f"{name} needs images [3, H, W], or [1, H, W] repeated to 3 channels, got {list(shape)}"
        )
    plain = name.removeprefix(TORCHVISION)
    built = get_model(plain, weights=None, weights_backbone=None, num_classes=classes, **options)
    if sizes is not None:
        least, most = sizes
        shorter, longer = min(shape[1:]), max(shape[1:])
        least = least or shorter
        built.transform.min_size = (least,)
        built.transform.max_size = most or -(-longer * least // shorter)
    return built


def _keep(part: Any, threshold: float, overlap: float, most: int) -> None:
    part.score_thresh, part.nms_thresh, part.detections_per_img = threshold, overlap, most


def _scale_anchors(owner: Any, factor: float) -> None:
    generator = owner.anchor_generator
    if factor == 1:
        return
    sizes = tuple(tuple(side * factor for side in level) for level in generator.sizes)
    owner.anchor_generator = type(generator)(sizes, generator.aspect_ratios)


def _adapt_body(name: str, built: Any, layers: int, frozen_norm: bool) -> None:
    """Freeze the first layers of a ResNet, and the statistics of batches everywhere."""
    from torchvision.ops import FrozenBatchNorm2d

    body = built.backbone.body
    if layers < len(BODY):
        if not hasattr(body, "layer4"):
            raise ValueError(f"{name} has no ResNet, so trainable_layers must be 5, got {layers}")
        for key, weight in body.named_parameters():
            weight.requires_grad_(key.startswith(BODY[:layers]))
    for parent in [*built.modules()] if frozen_norm else []:
        for key, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, key, FrozenBatchNorm2d(child.num_features, eps=0.0))
