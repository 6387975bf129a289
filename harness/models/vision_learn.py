"""What torchvision's detectors learn from a batch, laid open as subjects.

What they sample, match and encode is done by their own parts, in their own order. With the losses
of their papers the terms of an objective are torchvision's own, see the YAML files of `loss`, but
that RetinaNet's sums are divided by the positives of a batch, where torchvision takes the mean over
images of sums divided by the positives of each.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.models.boxes import Subjects, boxes_subject, centre_sampled, scores_subject
from harness.objective import Subject
from losses.inputs import IGNORE_INDEX

Objects = list[dict[str, Tensor]]
"""Boxes [M, 4], labels [M] and, where there are, masks [M, H, W] of each image."""


def regional(model: Any, images: list[Tensor], objects: Objects) -> Subjects:
    """Faster R-CNN: anchors become proposals, and some of these are classified and refined."""
    batch, objects = model.transform(images, objects)
    features = model.backbone(batch.tensors)
    subjects, proposals = _proposals(model.rpn, batch, features, objects)
    heads = model.roi_heads
    chosen, matches, labels, code = heads.select_training_samples(proposals, objects)
    pooled = heads.box_head(heads.box_roi_pool(features, chosen, batch.image_sizes))
    logits, moves = heads.box_predictor(pooled)
    classes, regions, true_code = torch.cat(labels), torch.cat(chosen), torch.cat(code)
    positive = (classes > 0).nonzero().squeeze(1)
    moved = moves.view(len(moves), -1, 4)[positive, classes[positive]]
    true = torch.cat([_matched(o["boxes"], m) for o, m in zip(objects, matches, strict=True)])
    corners = heads.box_coder.decode_single(moved, regions[positive])
    subjects["classification"] = Subject((logits, classes))
    subjects |= boxes_subject(
        "box",
        (corners, true[positive]),
        (moved, true_code[positive]),
        _number(len(classes), logits),
    )
    if heads.has_mask():
        subjects["mask"] = _masks(heads, features, batch, objects, (chosen, matches, labels))
    return subjects


def _proposals(
    rpn: Any, batch: Any, features: Mapping[str, Tensor], objects: Objects
) -> tuple[Subjects, list[Tensor]]:
    """Subjects of the first stage, and its proposals for the second."""
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    levels = [*features.values()]
    scores, moves = rpn.head(levels)
    anchors = rpn.anchor_generator(batch, levels)
    per_level = [score[0].numel() for score in scores]
    scores, moves = concat_box_prediction_layers(scores, moves)
    boxes = rpn.box_coder.decode(moves.detach(), anchors).view(len(anchors), -1, 4)
    proposals, _ = rpn.filter_proposals(boxes, scores, batch.image_sizes, per_level)
    labels, matched = rpn.assign_targets_to_anchors(anchors, objects)
    positive, negative = (torch.cat(c).nonzero().squeeze(1) for c in rpn.fg_bg_sampler(labels))
    chosen = torch.cat([positive, negative])
    places, true = torch.cat(anchors)[positive], torch.cat(matched)[positive].to(moves)
    coder, moved = rpn.box_coder, moves[positive]
    subjects = {"objectness": Subject((scores.flatten()[chosen], torch.cat(labels)[chosen]))}
    subjects |= boxes_subject(
        "proposal",
        (coder.decode_single(moved, places), true),
        (moved, coder.encode_single(true, places)),
        _number(len(chosen), scores),
    )
    return subjects, proposals


def _masks(
    heads: Any,
    features: Mapping[str, Tensor],
    batch: Any,
    objects: Objects,
    chosen: tuple[list[Tensor], list[Tensor], list[Tensor]],
) -> Subject:
    """Masks of the positive regions, each of the class of its object: [P, h, w]."""
    from torchvision.models.detection.roi_heads import project_masks_on_boxes

    if not all("masks" in each for each in objects):
        raise ValueError("a model that learns masks needs data with masks")
    positive = [labels > 0 for labels in chosen[2]]
    regions, matches, labels = (
        [rows[there] for rows, there in zip(part, positive, strict=True)] for part in chosen
    )
    pooled = heads.mask_roi_pool(features, regions, batch.image_sizes)
    logits = heads.mask_predictor(heads.mask_head(pooled))
    rows = torch.arange(len(logits), device=logits.device)
    targets = [
        project_masks_on_boxes(each["masks"], boxes, match, logits.shape[-1])
        for each, boxes, match in zip(objects, regions, matches, strict=True)
        if len(boxes)
    ]
    wanted = torch.cat(targets) if targets else logits.new_zeros(0, *logits.shape[2:])
    return Subject((logits[rows, torch.cat(labels)], wanted))


def anchored(model: Any, images: list[Tensor], objects: Objects) -> Subjects:
    """RetinaNet: every anchor that is neither for an object nor against one is left out."""
    outputs, anchors, objects = _dense_outputs(model, images, objects)
    logits, moves = outputs["cls_logits"], outputs["bbox_regression"]
    match = _matches(model.proposal_matcher, anchors, objects)
    asked = match != model.proposal_matcher.BETWEEN_THRESHOLDS
    image, place = (match >= 0).nonzero(as_tuple=True)
    true, labels = _objects_of(objects, match, logits)
    anchor, moved = torch.stack(anchors)[image, place], moves[image, place]
    corners = (model.box_coder.decode_single(moved, anchor), true)
    rows = asked.flatten().cumsum(0).view_as(asked)[image, place] - 1
    positives = (match >= 0).sum()
    return scores_subject(logits[asked], (rows, labels), corners, positives) | boxes_subject(
        "box", corners, (moved, model.box_coder.encode_single(true, anchor)), positives
    )


def placed(model: Any, images: list[Tensor], objects: Objects) -> Subjects:
    """FCOS: a place is for the smallest object near whose centre it is, at a level of its size."""
    outputs, anchors, objects = _dense_outputs(model, images, objects)
    logits, sides = outputs["cls_logits"], outputs["bbox_regression"]
    cells = anchors[0]  # the same in every image
    points, side = (cells[:, :2] + cells[:, 2:]) / 2, cells[:, 2] - cells[:, 0]
    bounds = _ranges(side)
    match = centre_sampled(points, model.center_sampling_radius * side, _padded(objects), bounds)
    image, place = (match >= 0).nonzero(as_tuple=True)
    true, labels = _objects_of(objects, match, logits)
    anchor, found = cells[place], sides[image, place]
    corners = (model.box_coder.decode(found, anchor), true)
    code = model.box_coder.encode(anchor, true)
    positives = (match >= 0).sum()
    across, along = code[:, [0, 2]], code[:, [1, 3]]
    central = (across.amin(1) / across.amax(1) * along.amin(1) / along.amax(1)).sqrt()
    rows = image * len(cells) + place
    centre = outputs["bbox_ctrness"][image, place].squeeze(1)
    return (
        scores_subject(logits.flatten(0, 1), (rows, labels), corners, positives)
        | boxes_subject("box", corners, (found, code), positives)
        | {"centerness": Subject((centre, central), positives)}
    )


def fixed(model: Any, images: list[Tensor], objects: Objects) -> Subjects:
    """SSD: of the boxes for no object, three for each that is for one, the worst classified."""
    outputs, anchors, objects = _dense_outputs(model, images, objects)
    logits, moves = outputs["cls_logits"], outputs["bbox_regression"]
    match = _matches(model.proposal_matcher, anchors, objects)
    image, place = (match >= 0).nonzero(as_tuple=True)
    true, labels = _objects_of(objects, match, logits)
    classes = torch.zeros_like(match)
    classes[image, place] = labels
    hardness = F.cross_entropy(logits.detach().transpose(1, 2), classes, reduction="none")
    order = hardness.masked_fill(match >= 0, -torch.inf).argsort(1, descending=True).argsort(1)
    number = model.neg_to_pos_ratio * (match >= 0).sum(1, keepdim=True)
    chosen = (match >= 0) | (order < number)
    anchor, moved = torch.stack(anchors)[image, place], moves[image, place]
    positives = (match >= 0).sum()
    return {
        "classification": Subject((logits[chosen], classes[chosen]), positives)
    } | boxes_subject(
        "box",
        (model.box_coder.decode_single(moved, anchor), true),
        (moved, model.box_coder.encode_single(true, anchor)),
        positives,
    )


def _dense_outputs(
    model: Any, images: list[Tensor], objects: Objects
) -> tuple[dict[str, Tensor], list[Tensor], Objects]:
    """What the head gives, the anchors of each image, and objects in the units of both."""
    batch, objects = model.transform(images, objects)
    features = model.backbone(batch.tensors)
    levels = [features] if isinstance(features, Tensor) else [*features.values()]
    return model.head(levels), model.anchor_generator(batch, levels), objects


def _matches(matcher: Any, anchors: list[Tensor], objects: Objects) -> Tensor:
    """Which object each anchor is for [N, A]; below 0 for none."""
    from torchvision.ops import box_iou

    found = [
        matcher(box_iou(each["boxes"], places))
        if len(each["boxes"])
        else torch.full((len(places),), -1, device=places.device)
        for places, each in zip(anchors, objects, strict=True)
    ]
    return torch.stack(found)


def _objects_of(objects: Objects, match: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [P, 4] and labels [P] of what is matched, image after image."""
    chosen = [numbers[numbers >= 0] for numbers in match]
    boxes, labels = (
        torch.cat([each[key][numbers] for each, numbers in zip(objects, chosen, strict=True)])
        for key in ("boxes", "labels")
    )
    return boxes.to(like), labels


def _matched(boxes: Tensor, numbers: Tensor) -> Tensor:
    """Rows of these numbers; zeros where an image has no object."""
    return boxes[numbers] if len(boxes) else boxes.new_zeros(len(numbers), 4)


def _padded(objects: Objects) -> dict[str, Tensor]:
    """As :class:`harness.data.Data` has them."""
    most = max(len(each["labels"]) for each in objects)
    boxes = [F.pad(each["boxes"], (0, 0, 0, most - len(each["labels"]))) for each in objects]
    labels = [
        F.pad(each["labels"], (0, most - len(each["labels"])), value=IGNORE_INDEX)
        for each in objects
    ]
    return {"boxes": torch.stack(boxes), "labels": torch.stack(labels)}


def _ranges(side: Tensor) -> tuple[Tensor, Tensor]:
    """Least and most distance to a side at each level: 4 to 8 cells, without end at both ends."""
    low = torch.where(side == side[0], 0, 4 * side)
    high = torch.where(side == side[-1], torch.inf, 8 * side)
    return low, high


def _number(count: int, like: Tensor) -> Tensor:
    return torch.tensor(count, device=like.device)
