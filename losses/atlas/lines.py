"""The line of every kind of target: a residual, a logit, a region's logits, a shift, a distance."""

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.atlas.fields import field_line
from losses.atlas.line import Inputs, Line
from losses.conformance.samples import CLASSES, FEATURES
from losses.core import Loss

SIDE, OBJECT = 6, slice(1, 5)
REST = 4.0
"""The logit by which a region's background is known while its object's logits move."""
STEPS = 3
"""Questions of an ordinal item, and neighbours of a bin."""


def line_of(entry: Loss) -> Line:
    """The line on which a loss of this kind is measured."""
    if entry.target == "fields":
        return field_line(entry)
    if entry.target == "real":
        return _residual(entry)
    if entry.target == "binary":
        return _object(entry) if entry.region else _logit(entry)
    if entry.target in ("ordinal", "place"):
        return _questions() if entry.target == "ordinal" else _bins(entry)
    if entry.target == "boxes":
        return _shift()
    if entry.target == "labels":
        return _pair(entry)
    return _class_region() if entry.region else _score(entry)


def real_target(entry: Loss) -> float:
    """A target that real losses are measured at: 0, or 1 where targets are limited."""
    bounds = entry.within
    options = (0.0,) if bounds is None else (1.0, 0.5, bounds.low + 1, bounds.high - 1)
    return next(number for number in options if bounds is None or number in bounds)


def real_output(entry: Loss, prediction: Tensor) -> Tensor:
    """The output [K, 1] that predicts a number [K]; further heads are 0: [K, 1, heads]."""
    output = prediction.log() if entry.point is torch.exp else prediction
    output = output.unsqueeze(1)
    if entry.heads == 1:
        return output
    return torch.stack([output, *[torch.zeros_like(output)] * (entry.heads - 1)], 2)


def _residual(entry: Loss) -> Line:
    """A real number's output moves away from its target."""
    goal = real_target(entry)
    start = real_output(entry, torch.tensor([goal], dtype=torch.float64))
    first = F.one_hot(torch.tensor(0), entry.heads).double() if entry.heads > 1 else torch.ones(1)

    def inputs(x: Tensor) -> Inputs:
        return start + _moved(x), torch.full((len(x), 1), goal, dtype=torch.float64)

    def outlying(nudge: Tensor, distance: Tensor) -> Inputs:
        return start + _moved(nudge), (goal + distance).unsqueeze(1)

    def _moved(x: Tensor) -> Tensor:
        return x.view(-1, *[1] * (start.ndim - 1)) * first

    log = entry.point is torch.exp
    low = -4.0 if log or entry.within is None else max(-4.0, 0.99 * (entry.within.low - goal))
    return Line(
        "log of the prediction over the target" if log else "residual",
        inputs,
        ways=(-1, 1) if low == -4.0 else (1,),  # predictions keep to the targets' limits, too
        right=0.0,
        ordinary=1.0,
        span=(low, -low),
        trade=(inputs, lambda x: inputs(-x)),
        symmetry="the sign of the residual",
        scaling="the residual",
        outlying=outlying,
    )


def _logit(entry: Loss) -> Line:
    """The logit of one yes-or-no question whose answer is yes."""
    shape = (-1, 1, 1) if entry.sum_classes else (-1, 1)

    def inputs(x: Tensor) -> Inputs:
        output = x.view(shape)
        return output, torch.ones_like(output, dtype=torch.long)

    def opposite(x: Tensor) -> Inputs:
        output = -x.view(shape)
        return output, torch.zeros_like(output, dtype=torch.long)

    return Line(
        "logit of the true answer",
        inputs,
        trade=(inputs, opposite),
        symmetry="yes and no",
        scaling="the logit",
    )


def mask() -> Tensor:
    """The object of a region, bool [side, side]."""
    found = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    found[OBJECT, OBJECT] = True
    return found


def _object(entry: Loss) -> Line:
    """All logits of an object move; its background is right, at minus REST."""
    shape = (1, 1, SIDE, SIDE) if entry.sum_classes else (1, SIDE, SIDE)

    def inputs(x: Tensor) -> Inputs:
        places = x.view(-1, *[1] * len(shape))
        output = torch.where(mask().view(shape), places, -REST)
        return output, mask().view(shape).long().expand_as(output)

    def scaled(x: Tensor, factor: float) -> Inputs:
        output, target = inputs(x)
        return factor * output, target

    def opposite(x: Tensor) -> Inputs:
        output, target = inputs(x)
        return -output, 1 - target

    return Line(
        "logit of all the object's pixels",
        inputs,
        trade=(inputs, opposite),
        symmetry="object and background",
        scaled=scaled,
        scaling="all logits",
    )


def _class_region() -> Line:
    """The scores of an object's class move; those of the background are right by REST."""

    def scores(x: Tensor) -> Tensor:
        second = torch.where(mask(), x.view(-1, 1, 1, 1), -REST)  # [K, 1, side, side]
        return torch.stack([torch.zeros_like(second), second], 2)

    def inputs(x: Tensor) -> Inputs:
        return scores(x), mask().long().expand(len(x), 1, SIDE, SIDE)

    def opposite(x: Tensor) -> Inputs:
        return scores(x).flip(2), 1 - mask().long().expand(len(x), 1, SIDE, SIDE)

    return Line(
        "score of the object's class in all its pixels",
        inputs,
        trade=(inputs, opposite),
        symmetry="the names of the two classes",
        scaled=lambda x, factor: (factor * scores(x), inputs(x)[1]),
        scaling="all scores",
    )


def class_scores(entry: Loss, scores: Tensor) -> Tensor:
    """Scores over axis 2 as the loss takes them: as they are, or as log-probabilities."""
    return scores.log_softmax(2) if entry.output_within else scores


def _score(entry: Loss) -> Line:
    """The score of the true one of two classes, above the other's."""

    def scores(x: Tensor) -> Tensor:
        rows = torch.stack([x, torch.zeros_like(x)], 1).unsqueeze(1)  # [K, 1, 2]
        return class_scores(entry, rows)

    def inputs(x: Tensor) -> Inputs:
        return scores(x), torch.zeros(len(x), 1, dtype=torch.long)

    def other(x: Tensor) -> Inputs:
        return scores(x).flip(2), torch.ones(len(x), 1, dtype=torch.long)

    fixed = torch.tensor([1.0], dtype=torch.float64)

    def there(x: Tensor) -> Inputs:
        return scores(x), scores(fixed).softmax(2).expand(len(x), 1, 2)

    def back(x: Tensor) -> Inputs:
        return scores(fixed).expand(len(x), 1, 2), scores(x).softmax(2)

    divergence = entry.target == "probabilities"
    return Line(
        "score of the true class above the other's",
        inputs,
        trade=(there, back) if divergence else (inputs, other),
        symmetry="output and target" if divergence else "the names of the two classes",
        scaling="the scores",
    )


def _questions() -> Line:
    """All questions of the highest grade move together."""

    def inputs(x: Tensor) -> Inputs:
        output = x.view(-1, 1, 1).expand(-1, 1, STEPS)
        return output, torch.full((len(x), 1), STEPS)

    def opposite(x: Tensor) -> Inputs:
        return -inputs(x)[0].flip(2), torch.zeros(len(x), 1, dtype=torch.long)

    return Line(
        "logit of every right answer",
        inputs,
        trade=(inputs, opposite),
        symmetry="the highest and the lowest grade",
        scaling="the logits",
    )


def _bins(entry: Loss) -> Line:
    """The score of the bin that a number falls on."""

    def inputs(x: Tensor) -> Inputs:
        rows = [torch.zeros_like(x), x, *[torch.zeros_like(x)] * (STEPS - 1)]
        return class_scores(entry, torch.stack(rows, 1).unsqueeze(1)), torch.ones(len(x), 1).long()

    def opposite(x: Tensor) -> Inputs:
        return inputs(x)[0].flip(2), torch.full((len(x), 1), STEPS - 1)

    return Line(
        "score of the true bin above the others'",
        inputs,
        trade=(inputs, opposite),
        symmetry="the order of the bins",
        scaling="the scores",
    )


def _boxes(x: Tensor, corners: tuple[float, ...]) -> Tensor:
    """Boxes [K, 1, 4] of these corners, shifted to the right by x."""
    sideways = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    return torch.tensor(corners, dtype=torch.float64) + x.view(-1, 1, 1) * sideways


def shifted(x: Tensor, true: Tensor) -> Inputs:
    """Squares of side 1 at x and at true places, [K, 1, 4] each."""
    return _boxes(x, (0, 0, 1, 1)), _boxes(true, (0, 0, 1, 1))


def _shift() -> Line:
    """A square moves sideways off its like."""

    def inputs(x: Tensor) -> Inputs:
        return shifted(x, torch.zeros_like(x))

    def scaled(x: Tensor, factor: float) -> Inputs:
        box, true = inputs(x)
        return factor * box, factor * true

    def there(x: Tensor) -> Inputs:
        return _boxes(x, (0, 0, 1, 1)), _boxes(torch.zeros_like(x), (0, 0.2, 1.5, 1.4))

    return Line(
        "shift of the box, in its widths",
        inputs,
        ways=(-1, 1),
        right=0.0,
        ordinary=0.5,
        span=(-2.0, 2.0),
        trade=(there, lambda x: there(x)[::-1]),
        symmetry="output and target",
        scaled=scaled,
        scaling="both boxes",
    )


def _pair(entry: Loss) -> Line:
    """One embedding moves away from its like, or from its class vector towards another's."""
    unit = torch.eye(CLASSES, FEATURES, dtype=torch.float64)
    if entry.own:  # class vectors at right angles, as conformance.bind makes them
        start, moving, labels = unit[:1], unit[1:2], torch.tensor([0])
    else:
        start, labels = unit[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
        moving = F.pad(torch.ones(1, 1), (FEATURES - 1, 0, 1, 2))  # the second, along the last

    def embeddings(x: Tensor) -> Tensor:
        return start + x.view(-1, 1, 1) * moving

    def inputs(x: Tensor) -> Inputs:
        return embeddings(x), labels.repeat(len(x), 1)

    return Line(
        "distance from its class vector, towards another" if entry.own else "distance of a pair",
        inputs,
        ways=(1,) if entry.own else (-1, 1),
        right=0.0,
        ordinary=1.0,
        span=(-4.0, 4.0),
        trade=None
        if entry.own
        else (inputs, lambda x: (embeddings(x)[:, [1, 0, 2, 3]], inputs(x)[1])),
        symmetry="a class vector and an embedding are not alike" if entry.own else "the two items",
        scaled=lambda x, factor: (factor * embeddings(x), inputs(x)[1]),
        scaling="the embeddings",
    )
