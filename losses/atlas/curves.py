"""Measurements on a loss's line: robustness, smoothness, convexity, saturation, scale, bounds."""

import math

import torch
from torch import Tensor

from losses.atlas.finding import Finding, brief, nothing, shown
from losses.atlas.line import Line, least, slopes, values
from losses.core import Loss

FAR = (1e2, 1e3)
GROWING = 0.05  # exponent of the pull up to which it counts as bounded
JUMP = 1e-3  # share of the steepest slope
BENT = -1e-6  # share of the largest curvature
WRONG = 50.0
FLAT = 1e-4  # of the conformance suite's property, too
HOMOGENEOUS = 1e-5  # width of the range of exponents
ENDS = (1e5, 1e6)
ENDLESS = 1e-3  # what a bounded loss may still rise between them, as a share
STILL = 1e-5  # of a gradient at the target
EVEN = 1e-6  # share of the largest value


def robust(entry: Loss, line: Line) -> Finding:
    """How an outlier's pull grows: the exponent k in |gradient| ~ distance^k between 100 and 1000.

    The pull at 1000 as a multiple of that of an ordinary mistake (residual 1, logit at the
    boundary) is shown beside it. For real losses it is the target that lies far out. Robust means
    that the pull does not grow, k <= 0.05; below 0 an outlier loses its pull.
    """
    pulls = [_pull(entry, line, way) for way in line.ways if _reaches(entry, line, way)]
    if not pulls:
        return nothing("no target may lie that far out")
    pull, exponent = max(pulls, key=lambda found: found)
    if math.isnan(exponent) or exponent == math.inf:
        return Finding(math.inf, "inf", False, "the gradient overflows where wrong by 1000")
    if math.isinf(pull):
        words = f"a mistake of {line.ordinary:g} does not pull; far out the pull grows as distance^"
        words += f"{exponent:.2f} (robust: at most ^{GROWING})"
        return Finding(exponent, f"^{brief(exponent)}", exponent <= GROWING, words)
    holds = exponent <= GROWING
    words = (
        f"a mistake of 1000 pulls {shown(pull)} times as hard as one of {line.ordinary:g}; its "
        f"pull {_growth(exponent)} (robust: grows at most as ^{GROWING})"
    )
    return Finding(pull, f"×{brief(pull)}", holds, words)


def _growth(exponent: float) -> str:
    if math.isinf(exponent):
        return "has vanished"
    return f"grows as distance^{exponent + 0.0:.2f}".replace("^-0.00", "^0.00")


def _reaches(entry: Loss, line: Line, way: int) -> bool:
    """Whether a target may lie 1000 away in this direction."""
    if line.outlying is None or entry.within is None:
        return True
    return float(line.outlying(torch.zeros(1), torch.tensor([way * FAR[1]]))[1]) in entry.within


def _pull(entry: Loss, line: Line, way: int) -> tuple[float, float]:
    """Gradient at 1000 over that of an ordinary mistake, and its exponent of growth."""
    distance = way * torch.tensor([line.ordinary, *FAR], dtype=torch.float64)
    outlying = line.outlying
    if outlying is None:
        _, slope = slopes(entry, line.inputs, distance)
    else:
        start = torch.zeros_like(distance)
        _, slope = slopes(entry, lambda nudge: outlying(nudge, distance), start)
    ordinary, far, farther = slope.abs().tolist()
    if farther < 1e-12:
        return 0.0, -math.inf
    if not math.isfinite(farther):
        return math.inf, math.inf
    exponent = math.log10(farther / far) / math.log10(FAR[1] / FAR[0]) if far else math.inf
    return (farther / ordinary if ordinary else math.inf), exponent


def smooth(entry: Loss, line: Line) -> Finding:
    """The largest jump of the gradient: steps of a fine grid, halved until they are 1e-9 wide.

    Smooth means that it is below 0.001 of the steepest slope on the line's span.
    """
    x = line.grid()
    _, slope = slopes(entry, line.inputs, x)
    if not bool(slope.isfinite().all()):
        return Finding(math.inf, "inf", False, "the gradient is not finite on the line")
    steps = (slope[1:] - slope[:-1]).abs()
    uneven = (steps[1:] - steps[:-1]).abs()
    most = 16 if line.points > 256 else 2
    found = torch.cat([steps.topk(most).indices, uneven.topk(most).indices + 1])
    low, high = x[found], x[found + 1]
    while float((high - low).max()) > 1e-9:
        low, high = _steeper_half(entry, line, low, high)
    jumps = (slopes(entry, line.inputs, high)[1] - slopes(entry, line.inputs, low)[1]).abs()
    size, place = float(jumps.max()), float(low[jumps.argmax()])
    limit = JUMP * float(slope.abs().max())
    words = f"the gradient jumps by {shown(size)} at most (smooth: {shown(limit)} or less)"
    if size > limit:
        words = words.replace(" at most", f" at {shown(place)}")
    return Finding(size, brief(size), size <= limit, words)


def _steeper_half(entry: Loss, line: Line, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Of each interval the half in which the gradient changes more."""
    middle = (low + high) / 2
    _, slope = slopes(entry, line.inputs, torch.cat([low, middle, high]))
    left, centre, right = slope.chunk(3)
    first = (centre - left).abs() >= (right - centre).abs()
    return torch.where(first, low, middle), torch.where(first, middle, high)


def convex(entry: Loss, line: Line) -> Finding:
    """The least second difference along the line, over the square of its step, and its place.

    Convex means that it is not below 0, by more than a millionth of the largest.
    """
    x = line.grid(min(line.points, 513))
    step = float(x[1] - x[0])
    value = values(entry, line.inputs(x))
    bend = (value[2:] - 2 * value[1:-1] + value[:-2]) / step**2
    lowest, place = float(bend.min()), float(x[1:-1][bend.argmin()])
    noise = 1e-14 * float(value.abs().max()) / step**2
    limit = BENT * float(bend.abs().max()) - noise
    lowest = 0.0 if limit <= lowest < 0 else lowest
    words = f"the least curvature is {shown(lowest)} at {shown(place)} (convex: 0 or more)"
    return Finding(lowest, brief(lowest), lowest >= limit, words)


def saturates(entry: Loss, line: Line) -> Finding:
    """The gradient 50 away on the wrong side, in the coordinate's units.

    Below 0.0001 it saturates: what is surely wrong is no longer learnt from.
    """
    x = torch.tensor([way * WRONG for way in line.ways], dtype=torch.float64)
    size = float(slopes(entry, line.inputs, x)[1].abs().min())
    words = f"the gradient is {shown(size)} where wrong by 50 (saturates: below {FLAT})"
    return Finding(size, brief(size), size < FLAT, words)


def scale(entry: Loss, line: Line) -> Finding:
    """The exponent k in L(c r) = c^k L(r), for c of 2 and 10 and r from 0.1 to 4 times ordinary.

    One exponent means that the loss is homogeneous: a change of units is a change of its weight.
    """
    size = line.ordinary or 1.0
    far = torch.tensor([size * way * f for way in line.ways for f in (0.1, 1.0, 4.0)])
    x = far.double()
    scaled = line.scaled or (lambda places, factor: line.inputs(places * factor))
    base = values(entry, line.inputs(x))
    if not bool((base > 0).all()):
        return nothing("the loss is not positive at all of these sizes")
    found = []
    for factor in (2.0, 10.0):
        ratio = values(entry, scaled(x, factor)) / base
        found += [math.log(r) / math.log(factor) for r in ratio.tolist() if 0 < r < math.inf]
    if len(found) < 2 * len(x):
        return nothing("the loss is not positive, or overflows, at larger sizes")
    low, high = min(found) + 0.0, max(found) + 0.0
    if high - low <= HOMOGENEOUS:
        k = shown((low + high) / 2)
        words = f"scaling {line.scaling} by c multiplies the loss by c^{k}"
        return Finding((low + high) / 2, f"^{k}", True, words)
    ends = brief(low), brief(high)
    words = (
        f"scaling {line.scaling} by c multiplies the loss by c^{low:.3g} to c^{high:.3g} "
        f"(homogeneous: a range of at most {HOMOGENEOUS})"
    )
    return Finding(high - low, "…".join(ends) if len({*ends}) > 1 else f"≈^{ends[0]}", False, words)


def bounded(entry: Loss, line: Line) -> Finding:
    """The largest value on the line, out to a million; or the exponent with which it grows there.

    Bounded means that it rises from 100 000 to a million by no more than 0.001 of itself.
    """
    out = torch.tensor([way * d for way in line.ways for d in ENDS], dtype=torch.float64)
    near = values(entry, line.inputs(line.grid(min(line.points, 257))))
    far = values(entry, line.inputs(out))
    ends = far.reshape(-1, 2)
    rise = ends[:, 1] - ends[:, 0]
    if bool((~ends.isfinite()).any()):
        return Finding(math.inf, "inf", False, "it overflows at a million")
    if bool((rise <= ENDLESS * (1 + ends[:, 0].abs())).all()):
        top = max(float(near.max()), float(far.max()))
        words = f"it is {shown(top)} at most (bounded: from 1e5 to 1e6 it rises by less than 0.1%)"
        return Finding(top, brief(top), True, words)
    way = int(rise.argmax())
    start, end = ends[way].abs().tolist()
    exponent = math.log10(end / start) if start and end else math.inf
    words = f"it grows without end, as distance^{exponent:.2f} from 1e5 to 1e6"
    return Finding(exponent, f"^{brief(exponent)}", False, words)


def at_target(entry: Loss, line: Line) -> Finding:
    """The gradient 1e-12 to the left and right of the target, or 50 beyond the boundary.

    A gradient of 0 means that a right answer is left in peace.
    """
    place, where = line.right, "at the target"
    if place is None:
        low, high = line.span
        place = float(least(lambda z: values(entry, line.inputs(z[:, 0])), low, high, 1))
        where = f"at the least value of the line, {shown(place)}"
        if place in line.span:
            place = math.copysign(math.inf, place)
    if math.isinf(place):
        place = math.copysign(WRONG, -line.ways[0] if line.right else place)
        where = f"at {place:g}, where it is surely right,"
    sides = torch.tensor([place - 1e-12, place + 1e-12], dtype=torch.float64)
    left, right = slopes(entry, line.inputs, sides)[1].tolist()
    size = max(abs(left), abs(right))
    level = abs(left - right) <= STILL * (1 + size)
    short = "0" if size <= STILL else brief(right) if level else _pair(left, right)
    words = f"the gradient {where} is {shown(left)} from the left and {shown(right)} from the right"
    return Finding(size, short, size <= STILL, f"{words} (at rest: below {STILL})")


def _pair(left: float, right: float) -> str:
    if abs(left + right) <= STILL:
        return f"±{brief(abs(right))}"
    return f"{brief(left)}|{brief(right)}"


def symmetric(entry: Loss, line: Line) -> Finding:
    """The largest difference when two things trade places, over the line's span.

    What they are depends on the target: the sign of a residual, yes and no, the names of classes,
    object and background, output and target. Symmetric means below a millionth of the largest
    value.
    """
    if line.trade is None:
        return nothing(line.symmetry)
    there, back = line.trade
    x = line.grid(min(line.points, 129))
    first, second = values(entry, there(x)), values(entry, back(x))
    size = float((first - second).abs().max())
    limit = EVEN * max(1.0, float(first.abs().max()))
    words = (
        f"trading {line.symmetry} changes the loss by up to {shown(size)} "
        f"(symmetric: {shown(limit)} or less)"
    )
    if limit <= 1e-6:
        words = words.replace(f"{shown(limit)} or less", "1e-06 or less")
    return Finding(size, brief(size), size <= limit, words)
