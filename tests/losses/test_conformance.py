"""Every registered loss has every property, and every property catches a loss that lacks it."""

import importlib
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import losses
from losses.arguments import ClassCounts, Count, parameters_of
from losses.conformance import PROPERTIES, Finding, bind, check, examine
from losses.core import Loss, Parts
from losses.proxy import class_vectors

OTHER_SETTINGS = [  # and the properties that these settings are meant to give up
    ("asymmetric", {"positive_gamma": 0.5, "negative_gamma": 0.5}, set()),
    ("asymmetric", {"margin": 0.0}, {"wrong and confident"}),  # without a margin none saturates
    ("arcface", {"margin": 1.5}, {"perfect prediction"}),  # out of reach of a length of 64
    ("batch_hard", {"distance": "cosine", "margin": 0.2}, set()),
    ("batch_hard", {"distance": "squared_euclidean"}, set()),
    ("beta_nll", {"beta": 1.0}, set()),
    ("bi_tempered", {"t1": 1.0, "t2": 1.0}, set()),
    ("bi_tempered", {"t1": 1.0, "t2": 1.3}, set()),
    ("bi_tempered", {"t1": 0.0, "t2": 4.0}, {"perfect prediction"}),  # its tail is that heavy
    ("binary_focal", {"gamma": 0.5, "alpha": 0.25}, set()),
    ("cross_entropy", {"smoothing": 0.1}, {"perfect prediction", "monotone"}),
    ("cross_entropy", {"class_weight": torch.arange(1.0, 5)}, set()),
    ("focal", {"gamma": 0.5}, set()),
    ("gce", {"q": 1.0}, set()),
    ("gaussian_nll", {"floor": 1e-3}, set()),
    ("huber", {"delta": 1e-3}, set()),
    ("ldam", {"scale": 30.0, "class_weight": torch.arange(1.0, 5)}, set()),
    ("logit_adjusted", {"class_counts": [5, 0, 3, 0], "tau": 2.0}, set()),
    ("msle", {"floor": -0.5}, set()),
    ("multi_similarity", {"mining": None, "threshold": 0.5}, {"perfect prediction"}),
    ("poly1", {"epsilon": -1.0}, set()),
    ("pseudo_huber", {"delta": 1e-3}, set()),
    ("quality_focal", {"beta": 1.0}, set()),
    ("quantile", {"q": 0.9}, set()),
    ("smooth_l1", {"beta": 0.0}, set()),
    ("smooth_l1", {"beta": 1e-3}, set()),
    ("triplet", {"distance": "cosine"}, set()),
    ("triplet", {"distance": "squared_euclidean"}, set()),
    ("tweedie", {"power": 1.01}, set()),
    ("tweedie", {"power": 1.99}, set()),
    ("varifocal", {"gamma": 0.5}, set()),
]


@pytest.mark.parametrize("prop", PROPERTIES)
@pytest.mark.parametrize("name", losses.names())
def test_registered_losses_conform(name, prop):
    finding = examine(prop, bind(losses.get(name)))
    assert finding.verdict != "fail", finding.reason


@pytest.mark.parametrize(("name", "given", "lost"), OTHER_SETTINGS)
def test_losses_conform_at_other_settings(name, given, lost):
    assert {f.property for f in check(name, **given) if f.verdict == "fail"} == lost


def test_every_loss_has_a_numpy_reference():
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    modules = [importlib.import_module(f"tests.losses.{file.stem}") for file in files]
    written = [name for module in modules for name in getattr(module, "REFERENCES", ())]
    assert sorted(written) == losses.names()


# The suite itself. Each loss below differs from a sound one in one thing.


def make(function, target="real", kind=Loss, **facts):
    return kind("broken", function, target, "nowhere", parameters_of(function), **facts)


def squares(output, target):
    r"""Squared error, :math:`(f - y)^2`.

    Args:
        output: float [...].
        target: float [...].
    """
    return (output - target) ** 2


def softmax(output, target):
    r"""Negative log-likelihood, :math:`-\log p_t`.

    Args:
        output: scores, float [N, C, ...].
        target: indices, int [N, ...], or rows, float [N, C, ...].
    """
    return F.cross_entropy(output, target, reduction="none")


def logistic(output, target):
    r"""Binary cross-entropy, :math:`-y \log p - (1 - y) \log(1 - p)`.

    Args:
        output: log-odds, float [...].
        target: 0 to 1 [...].
    """
    return F.binary_cross_entropy_with_logits(output, target, reduction="none")


class Trusting(Loss):
    """Hands everything to the function unchecked and unmasked."""

    def parts(self, output, target, ignore_index=-100, **parameters):
        return Parts(self.function(output, target.to(output)), None)


class Multiplying(Loss):
    """Masks by multiplication, which NaN survives."""

    def parts(self, output, target, ignore_index=-100, **parameters):
        kept = (target != ignore_index).to(output)
        return Parts(self.function(output, target.clamp(0, 1).to(output)) * kept, kept)


def steps(output, target):
    """Binary cross-entropy of every question whether the class lies above a step."""
    above = target.unsqueeze(1) > torch.arange(output.shape[1], device=output.device).view(
        -1, *[1] * (output.ndim - 2)
    )
    return F.binary_cross_entropy_with_logits(output, above.to(output), reduction="none").sum(1)


def places(output, target):
    """Squared distance of the mean bin."""
    bins = torch.arange(output.shape[1], device=output.device).to(output)
    mean = (output.softmax(1) * bins.view(-1, *[1] * (output.ndim - 2))).sum(1)
    return squares(mean, target)


def centres(output, target, weight):
    """Squared distance from the vector of the class."""
    return (output - weight[target]).square().sum(1)


def unlearnt(output, target, weight):
    return centres(output, target, weight.detach())


def unsorted(output, target, weight):
    return centres(output, target, weight) * (target + 1)


def drawn_anywhere(*, classes: Count, features: Count):
    return torch.randn(classes, features)


def counted(output, target, *, class_counts: ClassCounts = "data"):
    """Weighs each item by the count of another class than its own."""
    return softmax(output, target) * class_counts.roll(1)[target] * class_counts[0]


def branching(output, target):
    return squares(output, target) if output.sum() > 0 else 2 * squares(output, target)


def mutating(output, target):
    return output.sub_(target).square()


def counting():
    calls = []

    def function(output, target):
        calls.append(1)
        return squares(output, target) * len(calls)

    return function


def halving(output, target, *, kept):
    """A Dice loss with sums in float16, whatever it is given."""
    p, y = (tensor.flatten(1) for tensor in (output.sigmoid(), target))
    both, total = (rows.half().sum(1, keepdim=True).to(p) for rows in (p * y, p + y))
    return Parts(1 - 2 * both / total, torch.ones_like(both))


BROKEN = [
    ("derivative", make(squares, derivative=lambda x, y: ((x - y) ** 2, 3 * (x - y)))),
    ("finite", make(lambda x, y: torch.log(1 + torch.exp(x)) - x * y, "binary")),
    ("finite", make(lambda x, y: x.abs().sqrt() * 0 + squares(x, y))),
    ("finite", make(squares, unbounded="a claim that is not true")),
    ("internal precision", make(lambda x, y: squares(x, y).float())),
    ("internal precision", make(squares, kind=Trusting)),
    ("large sums", make(squares, kind=Trusting)),
    ("large sums", make(lambda x, y: squares(x, y) / squares(x, y).half().sum())),
    ("large sums", make(halving, "binary", region=True)),
    ("gradcheck", make(lambda x, y: squares(x, y) * x.detach())),
    ("perfect prediction", make(lambda x, y: squares(x, y).sqrt())),
    ("perfect prediction", make(lambda x, y: squares(x, y) + 1)),
    ("not below the minimum", make(lambda x, y: squares(x, y) - 1)),
    ("wrong and confident", make(lambda x, y: (x.sigmoid() - y) ** 2, "binary")),
    ("wrong and confident", make(squares, saturating="a claim that is not true")),
    ("monotone", make(lambda x, y: -squares(x, y))),
    ("monotone", make(lambda x, y: -logistic(x, y), "binary")),
    ("monotone", make(lambda x, y: -softmax(x, y), "index")),
    ("monotone", make(lambda x, y: steps(-x, y), "ordinal")),
    ("perfect prediction", make(lambda x, y: steps(x, y - 1), "ordinal")),
    ("perfect prediction", make(lambda x, y: places(x, y / 2), "place")),
    ("wrong and confident", make(places, "place")),
    ("all ignored", make(logistic, "binary", kind=Trusting)),
    ("ignored items do not matter", make(logistic, "binary", kind=Multiplying)),
    ("ignored items are absent", make(lambda x, y: logistic(x, y) * len(x), "binary")),
    ("empty batch", make(lambda x, y: squares(x, y) * x.max() / x.max())),
    ("reductions", make(lambda x, y: squares(x, y).mean())),
    ("reductions", make(lambda x, y: F.cross_entropy(x, y), "index")),
    ("reductions", make(lambda x, y: logistic(x, y), "probabilities")),
    ("additive", make(lambda x, y: squares(x, y) * len(x))),
    ("additive", make(lambda x, y: squares(x.softmax(0), y))),
    ("gradient accumulation", make(lambda x, y: squares(x, y.mean(0)))),
    ("order of items", make(lambda x, y: squares(x, x[:1] + y))),
    ("names of classes", make(lambda x, y: softmax(x, y) * (y + 1), "index")),
    ("names of classes", bind(make(counted, "index"))),
    ("names of classes", make(lambda x, y: x.square().sum(1) * (y + 1), "labels")),
    ("names of classes", bind(make(unsorted, "labels", own={"weight": class_vectors}))),
    ("names of classes", make(lambda x, y: logistic(x.cumsum(1), y), "binary", sum_classes=True)),
    (
        "wrong and confident",  # in one label of many
        make(
            lambda x, y: logistic(x, y) * y + (1 - y) * x.sigmoid() ** 2,
            "binary",
            sum_classes=True,
        ),
    ),
    ("shift of scores", make(lambda x, y: softmax(x, y) + x.square().sum(1), "index")),
    ("compile", make(branching)),
    ("vmap", make(lambda x, y: squares(x, y) * x.max().item())),
    ("no synchronisation", make(branching)),
    ("no synchronisation", make(lambda x, y: squares(x, y) + x[x > 0].sum())),
    ("no mutation", make(mutating)),
    ("no mutation", make(lambda x, y: squares(x, y.add_(1)))),
    ("determinism", make(lambda x, y: squares(x, y) * torch.rand_like(x))),
    (
        "target types",
        make(
            lambda x, y: softmax(x, y) * (2 if y.is_floating_point() else 1),
            "index or probabilities",
        ),
    ),
    ("clear errors", make(squares, kind=Trusting)),
    ("no broadcasting", make(squares, kind=Trusting)),
    ("state", make(counting())),
    ("own tensors", make(unlearnt, "labels", own={"weight": class_vectors})),
    ("own tensors", make(centres, "labels", own={"weight": drawn_anywhere})),
    ("documented", make(lambda output, target: squares(output, target))),
]


@pytest.mark.parametrize(
    "sound",
    [
        make(squares),
        make(logistic, "binary"),
        make(softmax, "index or probabilities"),
        make(softmax, "index"),
        make(softmax, "probabilities"),
    ],
    ids=lambda entry: entry.target,
)
def test_sound_losses_pass(sound):
    assert [finding for finding in check(sound) if finding.verdict == "fail"] == []


@pytest.mark.parametrize(("prop", "broken"), BROKEN)
def test_a_property_catches_what_lacks_it(prop, broken):
    finding = examine(prop, broken)
    assert finding.verdict == "fail"
    assert finding.reason


def test_every_property_is_seen_to_fail():
    assert {prop for prop, _ in BROKEN} == set(PROPERTIES)


def test_declared_exceptions_do_not_apply_and_say_why():
    gentle = make(lambda x, y: (x.sigmoid() - y) ** 2, "binary", saturating="the sigmoid is flat")
    finding = examine("wrong and confident", gentle)
    assert finding == Finding("wrong and confident", "does not apply", finding.reason)
    assert "the sigmoid is flat" in finding.reason


def test_check_takes_names_and_settings():
    findings = check("focal", gamma=0.5)
    assert [f.property for f in findings] == list(PROPERTIES)
    message = "focal has no parameter 'gama'; did you mean 'gamma'?"
    with pytest.raises(ValueError, match=re.escape(message)):
        check("focal", gama=0.5)
    with pytest.raises(ValueError, match=r"there is no loss 'focl'; did you mean 'focal'\?"):
        check("focl")
