"""Which losses of other libraries can be arms, and what each compares: one row per convention.

Nothing here imports a library. A name that is not in a row cannot be asked for, so that no name in
a config reaches anything but a loss; a loss that a library adds is one more word in a row. Left out
are losses of probabilities, for a model here gives scores; those of more than an output and a
target; wrappers of other losses; and those whose forward pass changes their state.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import Bounds
from losses.core import Target

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Library:
    """Where a library's losses are, and what pip calls it."""

    pip: str
    namespaces: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """How a library's loss is called for one kind of target.

    Attributes:
        target: what it compares, see :data:`losses.core.Target`.
        fixed: arguments that decide what is compared, and so cannot be set.
        filled: values of arguments that the library leaves without default.
        adapt: from our output and target to what the library takes.
        items: whether `reduction="none"` gives values whose sum over `counts` is its own mean; else
            the library's scalar is taken for the batch as it is.
        counts: from target and settings to what each value counts in the mean; None for 1.
        facts: further fields of :class:`losses.core.Loss`.
        own: which of the module's parameters hold class vectors, and whether as columns.
    """

    target: Target
    fixed: Mapping[str, Any] = field(default_factory=dict)
    filled: Mapping[str, Any] = field(default_factory=dict)
    adapt: Callable[[Tensor, Tensor], Pair] | None = None
    items: bool = False
    counts: Callable[[Tensor, Mapping[str, Any]], Tensor] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, bool] = field(default_factory=dict)


LIBRARIES = {
    "torch": Library("torch", ("torch.nn", "torch.nn.functional")),
    "torchvision": Library("torchvision", ("torchvision.ops",)),
    "smp": Library("segmentation-models-pytorch", ("segmentation_models_pytorch.losses",)),
    "monai": Library("monai", ("monai.losses",)),
    "kornia": Library("kornia", ("kornia.losses",)),
    "pml": Library("pytorch-metric-learning", ("pytorch_metric_learning.losses",)),
    "timm": Library("timm", ("timm.loss",)),
}
"""Short names, as configs write them."""


def floating(output: Tensor, target: Tensor) -> Pair:
    """Yes or no as 1.0 or 0.0."""
    return output, target.to(output.dtype)


def signs(output: Tensor, target: Tensor) -> Pair:
    """Yes or no as 1 or -1."""
    return output, 2 * target.to(output.dtype) - 1


def as_rows(output: Tensor, target: Tensor) -> Pair:
    """Class indices [N, ...] as one-hot rows [N, C, ...]."""
    if target.is_floating_point():
        return output, target
    return output, F.one_hot(target.long(), output.shape[1]).movedim(-1, 1).to(output.dtype)


def class_list(output: Tensor, target: Tensor) -> Pair:
    """Scores [N, C, ...] as [M, C], labels [N, ...] as [M], M being all there are."""
    if output.ndim == 2:
        return output, target
    return output.movedim(1, -1).flatten(0, -2), target.long().flatten()


def class_image(output: Tensor, target: Tensor) -> Pair:
    """Scores [N, C, ...] as [N, C, H, W], labels [N, ...] as [N, H, W]."""
    if output.ndim == 4:
        return output, target
    return output.flatten(2).unsqueeze(2), target.flatten(1).unsqueeze(1)


def class_channel(output: Tensor, target: Tensor) -> Pair:
    """Scores [N, C, ...] as [N, C, H, W], labels [N, ...] as [N, 1, H, W]."""
    output, target = class_image(output, target)
    return output, target.unsqueeze(1)


def binary_channel(output: Tensor, target: Tensor) -> Pair:
    """Yes-or-no maps [N, ...] as [N, 1, H, W]."""
    output, target = binary_image(output, target)
    return output, target.unsqueeze(1)


def binary_image(output: Tensor, target: Tensor) -> Pair:
    """Yes-or-no maps [N, ...] as output [N, 1, H, W] and target [N, H, W]."""
    if output.ndim != 3:
        output, target = (t.flatten(1).unsqueeze(1) for t in (output, target))
    return output.unsqueeze(1), target.to(output.dtype)


def counted(target: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """What torch divides a cross-entropy by: kept items, times their classes' weights."""
    weight: Tensor | None = settings["weight"]
    if target.is_floating_point():  # distributions
        rows = target[:, 0]
        return torch.ones_like(rows)
    kept: Tensor = target != settings["ignore_index"]
    if weight is None:
        return kept.to(torch.get_default_dtype())
    return torch.where(kept, weight[torch.where(kept, target, 0)], 0)


def two_images(size: int) -> dict[str, Any]:
    """What losses of two images [N, C, H, W] with values from 0 to 1 say of themselves."""

    def example(generator: torch.Generator) -> tuple[Tensor, ...]:
        shape = (2, 4, 1, size, size)
        first, second = torch.rand(shape, generator=generator, dtype=torch.float64)
        return first, second

    inputs = {"prediction": "float N C H W", "target": "float N C H W"}
    return {"fields": inputs, "example": example}


def _rows(form: Form, names: str) -> dict[str, Form]:
    return dict.fromkeys(names.split(), form)


OVERLAP = "with a softmax or sigmoid the overlap is flat where a prediction is surely wrong"
REGION: dict[str, Any] = {"region": True, "saturating": OVERLAP}
LOG_PROBABILITIES = {"output_within": Bounds(high=0)}
PIXELS = {"region": True}

_PER_ITEM = {"reduction": "batchmean", "log_target": False}
TORCH = {
    **_rows(
        Form("real", items=True),
        "L1Loss MSELoss SmoothL1Loss HuberLoss l1_loss mse_loss smooth_l1_loss huber_loss",
    ),
    **_rows(
        Form(
            "real",
            fixed={"log_input": True},
            items=True,
            facts={"within": Bounds(0), "point": torch.exp},
        ),
        "PoissonNLLLoss poisson_nll_loss",
    ),
    **_rows(
        Form("index or probabilities", items=True, counts=counted),
        "CrossEntropyLoss cross_entropy",
    ),
    **_rows(Form("index", items=True, counts=counted, facts=LOG_PROBABILITIES), "NLLLoss nll_loss"),
    **_rows(Form("index", adapt=class_list, items=True), "MultiMarginLoss multi_margin_loss"),
    **_rows(
        Form("probabilities", _PER_ITEM, adapt=as_rows, facts=LOG_PROBABILITIES),
        "KLDivLoss kl_div",
    ),
    **_rows(
        Form("binary", adapt=floating, items=True),
        "BCEWithLogitsLoss binary_cross_entropy_with_logits",
    ),
    **_rows(Form("binary", adapt=signs, items=True), "SoftMarginLoss soft_margin_loss"),
    **_rows(
        Form("binary", adapt=floating, items=True, facts={"sum_classes": True}),
        "MultiLabelSoftMarginLoss multilabel_soft_margin_loss",
    ),
}
TORCHVISION = {
    **_rows(
        Form("boxes", items=True),
        "generalized_box_iou_loss distance_box_iou_loss complete_box_iou_loss",
    ),
    "sigmoid_focal_loss": Form("binary", adapt=floating, items=True),
}
_CLASSES = {"mode": "multiclass", "from_logits": True}
_TWO = {"mode": "binary", "from_logits": True}
SMP = {
    **_rows(
        Form("index", _CLASSES, adapt=class_image, facts=REGION),
        "DiceLoss JaccardLoss TverskyLoss LovaszLoss",
    ),
    **_rows(
        Form("binary", _TWO, adapt=floating, facts=REGION),
        "DiceLoss/binary JaccardLoss/binary TverskyLoss/binary LovaszLoss/binary",
    ),
    "FocalLoss": Form("index", _CLASSES),
    "FocalLoss/binary": Form("binary", _TWO, adapt=floating),
    "SoftBCEWithLogitsLoss": Form("binary", adapt=floating),
    "SoftCrossEntropyLoss": Form("index", {"dim": 1}, {"smooth_factor": 0.1}),
}
_OVERLAPS = """DiceLoss GeneralizedDiceLoss TverskyLoss HausdorffDTLoss LogHausdorffDTLoss
BoundaryLoss SoftclDiceLoss SoftDiceclDiceLoss MCCLoss"""
_MIXED = "DiceCELoss DiceFocalLoss GeneralizedDiceFocalLoss"
_MULTI = {"softmax": True, "sigmoid": False, "to_onehot_y": True}
_YES_NO = {"softmax": False, "sigmoid": True, "to_onehot_y": False}
MONAI = {
    **_rows(Form("index", _MULTI, adapt=class_channel, facts=REGION), _OVERLAPS),
    **_rows(Form("index", _MULTI, adapt=class_channel, facts=PIXELS), _MIXED),
    **_rows(
        Form("binary", _YES_NO, adapt=binary_channel, facts=REGION),
        " ".join(f"{name}/binary" for name in _OVERLAPS.split()),
    ),
    **_rows(
        Form("binary", _YES_NO, adapt=binary_channel, facts=PIXELS),
        " ".join(f"{name}/binary" for name in _MIXED.split()),
    ),
    "FocalLoss": Form(
        "index", {"use_softmax": True, "to_onehot_y": True}, adapt=class_channel, facts=PIXELS
    ),
    "FocalLoss/binary": Form(
        "binary", {"use_softmax": False, "to_onehot_y": False}, adapt=binary_channel, facts=PIXELS
    ),
    "BoxGIoULoss": Form("boxes"),
    "SSIMLoss": Form("fields", {"spatial_dims": 2}, facts=two_images(13)),
}
KORNIA = {
    **_rows(Form("index", adapt=class_image, facts=REGION), "DiceLoss LovaszSoftmaxLoss"),
    "TverskyLoss": Form(
        "index", filled={"alpha": 0.5, "beta": 0.5}, adapt=class_image, facts=REGION
    ),
    "FocalLoss": Form(
        "index",
        {"reduction": "mean"},
        filled={"alpha": None},
        adapt=class_image,
        facts=PIXELS,
    ),
    "LovaszHingeLoss": Form("binary", adapt=binary_image, facts=PIXELS),
    "BinaryFocalLossWithLogits": Form(
        "binary", {"reduction": "mean"}, filled={"alpha": 0.25}, adapt=binary_channel, facts=PIXELS
    ),
    **_rows(Form("real", items=True), "CharbonnierLoss CauchyLoss GemanMcclureLoss WelschLoss"),
    "SSIMLoss": Form("fields", filled={"window_size": 11}, facts=two_images(13)),
    "MS_SSIMLoss": Form("fields", facts=two_images(33)),
    "PSNRLoss": Form("fields", filled={"max_val": 1.0}, facts=two_images(13)),
}
PML = {
    **_rows(
        Form("labels"),
        """AngularLoss CircleLoss ContrastiveLoss FastAPLoss GeneralizedLiftedStructureLoss
        IntraPairVarianceLoss LiftedStructureLoss MultiSimilarityLoss NCALoss NPairsLoss NTXentLoss
        SignalToNoiseRatioContrastiveLoss SupConLoss TripletMarginLoss
        TupletMarginLoss""",
    ),
    **_rows(
        Form("labels", own={"W": True}),
        "ArcFaceLoss CosFaceLoss LargeMarginSoftmaxLoss NormalizedSoftmaxLoss",
    ),
    **_rows(Form("labels", own={"proxies": False}), "ProxyAnchorLoss ProxyNCALoss"),
}
_BY_LABEL = {"sum_classes": True}
TIMM = {
    **_rows(
        Form("index", adapt=class_list), "LabelSmoothingCrossEntropy AsymmetricLossSingleLabel"
    ),
    "PolyCrossEntropy": Form("index", adapt=class_list, items=True),
    "SoftTargetCrossEntropy": Form("probabilities", adapt=as_rows),
    **_rows(
        Form("binary", adapt=floating, items=True), "BinaryCrossEntropy PolyBinaryCrossEntropy"
    ),
    "AsymmetricLossMultiLabel": Form(
        "binary", {"reduction": "batchmean"}, adapt=floating, facts=_BY_LABEL
    ),
    **_rows(Form("binary", adapt=floating, facts=_BY_LABEL), "TwoWayLoss ZlprLoss"),
}
PEERS = {
    "torch": TORCH,
    "torchvision": TORCHVISION,
    "smp": SMP,
    "monai": MONAI,
    "kornia": KORNIA,
    "pml": PML,
    "timm": TIMM,
}
"""Rows by library, then by name; `NAME/binary` is the yes-or-no form of a loss of classes."""
