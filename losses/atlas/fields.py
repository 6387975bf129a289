"""Lines of losses that take named fields, by the names of these; any other goes up its gradient."""

import contextlib
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.atlas.line import Inputs, Line, values
from losses.boundary import edge_distance, signed_distance
from losses.conformance.fields import learnt
from losses.core import Loss

DIM = 5
NOISE = 0.2  # a pixel's deviation at amplitude 1
FRAMES = (0, 1, 0, 2, 0)  # an alignment of the symbols 1, 2 with the blank 0 around them


def field_line(entry: Loss) -> Line:
    """The line for these names; where none is known, from the example up the loss's gradient."""
    build = BUILDERS.get(entry.inputs, _policy if "advantage" in entry.inputs else _uphill)
    with contextlib.suppress(Exception):  # fields of these names that mean something else
        line = build(entry)
        values(entry, line.inputs(line.grid(3)))
        return line
    return _uphill(entry)


def _uphill(entry: Loss) -> Line:
    """From the loss's own example along the direction in which it rises fastest."""
    if entry.example is None:
        raise ValueError(f"{entry.name} declares no example, so there is nothing to measure it on")
    given = entry.example(torch.Generator().manual_seed(0))
    moved = learnt(entry, given)
    leaves = [given[i].clone().requires_grad_() for i in moved]
    start = [leaves[moved.index(i)] if i in moved else field for i, field in enumerate(given)]
    risen = entry.divide(entry.fraction(*start))
    found = torch.autograd.grad(risen, leaves, allow_unused=True, materialize_grads=True)
    length = math.sqrt(sum(float(g.square().sum()) for g in found)) or 1.0
    steps = {i: slope / length for i, slope in zip(moved, found, strict=True)}

    def inputs(x: Tensor) -> Inputs:
        rows = [field.expand(len(x), *field.shape) for field in given]
        for i, step in steps.items():
            rows[i] = rows[i] + x.view(-1, *[1] * step.ndim) * step
        return tuple(rows)

    size = sum(field.numel() for field in given)
    return Line(
        "distance from the loss's example, up its gradient",
        inputs,
        ways=(1,),
        right=None,
        ordinary=1.0,
        span=(-4.0, 4.0),
        points=1025 if size < 2000 else 65,
    )


def _unit(place: int, like: Tensor) -> Tensor:
    """One unit vector [K, 1, DIM] for every place."""
    return F.one_hot(torch.tensor(place), DIM).double().expand(len(like), 1, DIM)


def _away(x: Tensor, start: int = 0, towards: int = 1) -> Tensor:
    return _unit(start, x) + x.view(-1, 1, 1) * _unit(towards, x)


def _distance(coordinate: str, inputs: Callable[[Tensor], Inputs], floats: int) -> Line:
    """The distance of a pair of embeddings; the first two fields trade places."""

    def scaled(x: Tensor, factor: float) -> Inputs:
        given = inputs(x)
        return (*(factor * field for field in given[:floats]), *given[floats:])

    def traded(x: Tensor) -> Inputs:
        first, second, *rest = inputs(x)
        return second, first, *rest

    return Line(
        coordinate,
        inputs,
        ways=(-1, 1),
        right=0.0,
        ordinary=1.0,
        span=(-4.0, 4.0),
        trade=(inputs, traded),
        symmetry="the two items of the pair",
        scaled=scaled,
        scaling="the embeddings",
    )


def _triplet(_: Loss) -> Line:
    """The positive moves off the anchor; the negative is 1 away."""
    return _distance(
        "distance of the positive from its anchor",
        lambda x: (_unit(0, x), _away(x), _unit(0, x) + _unit(2, x)),
        3,
    )


def _similar(_: Loss) -> Line:
    return _distance(
        "distance of a similar pair",
        lambda x: (_unit(0, x), _away(x), torch.ones(len(x), 1, dtype=torch.long)),
        2,
    )


def _views(_: Loss) -> Line:
    """Four pairs at right angles; in one of them the second view moves towards another pair."""
    unit = torch.eye(4, DIM, dtype=torch.float64)
    step = torch.zeros(4, DIM, dtype=torch.float64)
    step[0, 1] = 1.0
    return _distance(
        "distance of one pair of views, towards another",
        lambda x: (unit.expand(len(x), 4, DIM), unit + x.view(-1, 1, 1) * step),
        2,
    )


def _column(x: Tensor) -> Tensor:
    return x.view(-1, 1)


def _margin(coordinate: str, inputs: Callable[[Tensor], Inputs], right: float | None) -> Line:
    return Line(coordinate, inputs, right=right)


def _answers(entry: Loss) -> Line:
    """Log-probabilities of two answers whose difference is x; their references are equal."""

    def inputs(x: Tensor) -> Inputs:
        pair = F.logsigmoid(_column(x)), F.logsigmoid(-_column(x))
        return (*pair, *[torch.full_like(pair[0], -1.0)] * (len(entry.inputs) - 2))

    return _margin("log-probability of the chosen answer above the other's", inputs, None)


def _policy(entry: Loss) -> Line:
    """The log-ratio of the new policy to the old one, for what turned out well."""
    masked = "mask" in entry.inputs

    def inputs(x: Tensor) -> Inputs:
        new = x.view(-1, 1, 1) if masked else x.view(-1, 1)
        old = torch.zeros_like(new)
        single = torch.ones(len(x), 1, dtype=torch.float64)
        made = {"log_prob": new, "advantage": single, "mask": torch.ones_like(new).bool()}
        return tuple(made.get(name, old) for name in entry.inputs)

    return _margin("log-ratio to the old policy, advantage 1", inputs, None)


def _desired(_: Loss) -> Line:
    def inputs(x: Tensor) -> Inputs:
        zero = torch.zeros_like(_column(x))
        return _column(x), zero, zero, zero == 0

    return _margin("log-ratio of a desirable answer to its reference", inputs, math.inf)


def _student(entry: Loss) -> Line:
    """The student's score of a class that the teacher scores 2 above two others."""

    def row(x: Tensor) -> Tensor:
        return torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)], 1).unsqueeze(1)

    def inputs(x: Tensor) -> Inputs:
        made = (row(x), row(torch.full_like(x, 2.0)), torch.zeros(len(x), 1, dtype=torch.long))
        return made[: len(entry.inputs)]

    def traded(x: Tensor) -> Inputs:
        student, teacher, *rest = inputs(x)
        return teacher, student, *rest

    return Line(
        "student's score of the class that the teacher scores 2",
        inputs,
        ways=(-1, 1),
        right=2.0,
        trade=(inputs, traded),
        symmetry="student and teacher",
    )


def _discriminator(_: Loss) -> Line:
    return Line(
        "score of a real item, the generated one's being its opposite",
        lambda x: (_column(x), -_column(x)),
        right=None,
        trade=(
            lambda x: (_column(x), torch.zeros_like(_column(x))),
            lambda x: (torch.zeros_like(_column(x)), -_column(x)),
        ),
        symmetry="a real and a generated item",
    )


def _generator(_: Loss) -> Line:
    return _margin("score of a generated item", lambda x: (_column(x),), None)


def _code(_: Loss) -> Line:
    def inputs(x: Tensor) -> Inputs:
        mean = x.view(-1, 1, 1)
        return mean, torch.zeros_like(mean)

    line = Line("mean of a code of variance 1", inputs, (-1, 1), 0.0, 1.0, (-4.0, 4.0))
    return Line(**{**vars(line), "trade": (inputs, lambda x: inputs(-x)), "symmetry": "the sign"})


def _object_fields(entry: Loss) -> Line:
    """The logits of an object's pixels, with the maps that its mask makes; the rest is at -4."""
    object_ = torch.zeros(6, 6, dtype=torch.long)
    object_[1:5, 1:5] = 1
    classes = entry.fields["logits"].startswith("float N C")

    def inputs(x: Tensor) -> Inputs:
        logits = torch.where(object_ == 1, x.view(-1, 1, 1, 1), -4.0)  # [K, 1, 6, 6]
        masks = object_.expand_as(logits)
        maps = {"logits": logits, "target": masks.double()}
        if "distance" in entry.inputs:
            maps["distance"] = signed_distance(object_[None])[0].double().expand_as(logits)
        else:
            true = edge_distance(object_[None])[0].double()
            maps |= {"target_distance": true.expand_as(logits)}
            maps |= {"output_distance": true.expand_as(logits)}
        if classes:
            maps = {k: torch.stack([torch.zeros_like(v), v], 2) for k, v in maps.items()}
        return tuple(maps[name] for name in entry.inputs)

    return _margin("logit of all the object's pixels", inputs, None)


def _image(entry: Loss) -> Line:
    """Noise of a growing amplitude on an image."""
    assert entry.example is not None
    shape = entry.example(torch.Generator().manual_seed(0))[0][:1].shape
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    noise = NOISE * torch.randn(shape, generator=generator, dtype=torch.float64)

    def inputs(x: Tensor) -> Inputs:
        steps = x.view(-1, 1, 1, 1, 1) * noise
        return (target + steps, target.expand_as(steps)) if len(entry.inputs) > 1 else (steps,)

    def traded(x: Tensor) -> Inputs:
        image, true = inputs(x)
        return true, image

    pair = len(entry.inputs) > 1
    return Line(
        "amplitude of noise on an image, in deviations of 0.2",
        inputs,
        ways=(-1, 1),
        right=0.0,
        ordinary=1.0,
        span=(-4.0, 4.0),
        trade=(inputs, traded) if pair else (inputs, lambda x: inputs(-x)),
        symmetry="output and target" if pair else "the image and its negative",
        points=33 if target.numel() > 2000 else 257,
    )


def _alignment(_: Loss) -> Line:
    """The score of the right symbol in each frame of one alignment."""

    def inputs(x: Tensor) -> Inputs:
        rows = F.one_hot(torch.tensor(FRAMES), 3).double()
        symbols = torch.tensor([s for s in FRAMES if s])
        long = torch.tensor([len(FRAMES)]), torch.tensor([len(symbols)])
        fixed = (field.expand(len(x), *field.shape) for field in (symbols[None], *long))
        return (x.view(-1, 1, 1, 1) * rows, *fixed)

    return _margin("score of the right symbol in every frame", inputs, math.inf)


BUILDERS: dict[tuple[str, ...], Callable[[Loss], Line]] = {
    ("anchor", "positive", "negative"): _triplet,
    ("first", "second", "similar"): _similar,
    ("first", "second"): _views,
    ("chosen", "rejected"): _answers,
    ("chosen", "rejected", "reference_chosen", "reference_rejected"): _answers,
    ("log_prob", "reference_log_prob", "reference_point", "desirable"): _desired,
    ("student", "teacher"): _student,
    ("student", "teacher", "target"): _student,
    ("real", "fake"): _discriminator,
    ("fake",): _generator,
    ("mean", "log_variance"): _code,
    ("logits", "distance"): _object_fields,
    ("logits", "target", "target_distance", "output_distance"): _object_fields,
    ("image",): _image,
    ("prediction", "target"): _image,
    ("logits", "target", "frames", "symbols"): _alignment,
}
