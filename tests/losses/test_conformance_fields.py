"""The suite for losses of named fields: every property holds for a sound one and can fail."""

import pytest
import torch

import losses
from losses.arguments import Bounds, parameters_of
from losses.conformance import PROPERTIES, check, examine
from losses.conformance.fields import BEYOND_FIELDS, OF_FIELDS
from losses.core import Loss, Parts

SHAPES = {"guess": "float N T", "truth": "float N T", "row": "int<T N", "mask": "bool N T"}


def example(generator):
    return (
        torch.randn(7, 3, generator=generator, dtype=torch.float64),
        torch.rand(7, 3, generator=generator, dtype=torch.float64),
        torch.randint(3, (7,), generator=generator),
        torch.rand(7, 3, generator=generator) < 0.7,
    )


def errors(guess, truth, row, mask):
    r"""Squared errors that count, :math:`m (f - y)^2`.

    Args:
        guess: float [N, T].
        truth: float [N, T].
        row: int [N].
        mask: bool [N, T].
    """
    values = (guess - truth.detach()).square() * (1 + row[:, None])
    return Parts(torch.where(mask, values, 0), mask.to(values))


def make(function, kind=Loss, **facts):
    facts = {
        "fields": SHAPES,
        "example": example,
        "limits": {"truth": Bounds(0, 1)},
        "detached": "truth, which is data",
        **facts,
    }
    return kind("broken", function, "fields", "nowhere", parameters_of(function), **facts)


def changed(change, **facts):
    """The sound loss with its values changed."""

    def function(guess, truth, row, mask):
        values, counts = errors(guess, truth, row, mask)
        return Parts(change(values, guess), counts)

    function.__doc__ = errors.__doc__
    return make(function, **facts)


class Trusting(Loss):
    """Hands everything to the function unchecked, in the dtype it has."""

    def _parts_of_fields(self, inputs, parameters):
        return Parts(*self.function(*inputs, **parameters))


def branching(values, guess):
    return values if guess.sum() > 0 else 2 * values


def mutating(guess, truth, row, mask):
    return errors(guess.mul_(2), truth, row, mask)


def counting():
    calls = []

    def change(values, _):
        calls.append(1)
        return values * len(calls)

    return change


def by_type(guess, truth, row, mask):
    return errors(guess, truth, row + (row.dtype == torch.uint8), mask)


LOOSE = {**SHAPES, "guess": "float N ...", "truth": "float N ..."}


def one(*, generator):
    return torch.tensor(1.0)


def unlearnt(guess, truth, row, mask, scale):
    return errors(guess, truth, row, mask) * scale.detach()


BROKEN = [
    ("finite", changed(lambda v, x: v + x.exp() - x.exp())),
    ("finite", changed(lambda v, x: v, unbounded="a claim that is not true")),
    ("finite", changed(lambda v, x: v + x.abs().sqrt() * 0)),
    ("internal precision", changed(lambda v, x: v.float())),
    ("internal precision", make(errors, kind=Trusting)),
    ("large sums", changed(lambda v, x: v / v.half().sum())),
    ("gradcheck", changed(lambda v, x: v * x.detach())),
    ("gradcheck", changed(lambda v, x: v, detached=None)),
    ("gradcheck", make(lambda guess, truth, row, mask: (guess - truth).square())),
    ("not below the minimum", changed(lambda v, x: v - 1)),
    ("empty batch", changed(lambda v, x: v * x.max() / x.max())),
    ("reductions", changed(lambda v, x: v.mean())),
    ("additive", changed(lambda v, x: v * len(x))),
    ("gradient accumulation", changed(lambda v, x: v * x.mean(0))),
    ("order of items", changed(lambda v, x: v * x[:1])),
    ("compile", changed(branching)),
    ("compile", changed(lambda v, x: v, opaque="a claim that is not true")),
    ("vmap", changed(lambda v, x: v * x.max().item())),
    ("no synchronisation", changed(branching)),
    ("no synchronisation", changed(lambda v, x: v + x[x > 0].sum())),
    ("no mutation", make(mutating)),
    ("determinism", changed(lambda v, x: v * torch.rand_like(x))),
    ("target types", make(by_type, kind=Trusting)),
    ("clear errors", make(errors, kind=Trusting)),
    ("clear errors", make(lambda *given: errors(*given))),
    ("no broadcasting", make(errors, fields={**SHAPES, "mask": "bool N ..."})),
    ("no broadcasting", make(errors, kind=Trusting)),
    ("state", changed(counting())),
    ("own tensors", make(unlearnt, own={"scale": one})),
    ("documented", make(lambda guess, truth, row, mask: errors(guess, truth, row, mask))),
]


def test_a_sound_loss_passes_and_every_property_is_there():
    findings = {finding.property: finding for finding in check(make(errors))}
    assert set(OF_FIELDS) | set(BEYOND_FIELDS) == set(findings) == set(PROPERTIES)
    assert not set(OF_FIELDS) & set(BEYOND_FIELDS)
    applied = {name for name, finding in findings.items() if finding.verdict == "pass"}
    assert applied == set(OF_FIELDS) - {"own tensors"}  # it has none


@pytest.mark.parametrize(("prop", "broken"), BROKEN)
def test_a_property_catches_what_lacks_it(prop, broken):
    finding = examine(prop, broken)
    assert finding.verdict == "fail"
    assert finding.reason


def test_every_property_is_seen_to_fail():
    assert {prop for prop, _ in BROKEN} == set(OF_FIELDS)


@pytest.mark.parametrize("name", losses.names())
def test_fields_are_declared(name):
    entry = losses.get(name)
    if entry.target == "fields":
        assert tuple(name for name in entry.fields if name not in entry.own) == entry.inputs
        assert set(entry.limits) <= set(entry.inputs)
        drawn = entry.example(torch.Generator().manual_seed(0))
        again = entry.example(torch.Generator().manual_seed(0))
        assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
        assert len(drawn[0]) >= 5  # enough rows for uneven parts


def fails(message, *fields, **facts):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared below
        make(errors, **facts).fraction(*fields)
    assert message in str(error.value)


def test_what_does_not_fit_is_named():
    guess, truth, row, mask = example(torch.Generator().manual_seed(0))
    fails("broken needs guess, truth, row, mask; got 3 tensors", guess, truth, row)
    shapes = "got guess [7, 3], truth [7, 1], row [7], mask [7, 3]"
    needed = "broken needs guess [N, T], truth [N, T], row [N], mask [N, T]; "
    fails(needed + shapes, guess, truth[:, :1], row, mask)
    fails("broken needs one row per item", guess, truth[:1], row, mask)
    fails("broken needs bool values in mask, got torch.int64", guess, truth, row, mask.long())
    message = "broken needs row from 0 to 2 (T is 3), got values from 3 to "
    fails(message, guess, truth, row % 3 + 3, mask)
    fails("broken needs truth >= 0 and <= 1, got values from", guess, truth - 1, row, mask)
    fails(
        "broken needs guess [N, ...], truth [N, ...]", guess, truth[:, :2], row, mask, fields=LOOSE
    )


OTHER_SETTINGS = [
    ("charbonnier", {"eps": 1e-8}),
    ("ctc", {"zero_infinity": False, "per_symbol": True}),
    ("dapo", {"clip_low": 0.9, "clip_high": 0.01}),
    ("distillation", {"temperature": 0.1}),
    ("dkd", {"temperature": 0.5, "target_weight": 0.0}),
    ("dpo", {"beta": 10.0}),
    ("grpo", {"clip": 0.01, "beta": 0.0}),
    ("ipo", {"beta": 1e-3}),
    ("kto", {"beta": 5.0, "desirable_weight": 0.0}),
    ("lsgan_discriminator", {"fake_label": -1.0}),
    ("ms_ssim", {"scales": 2, "window": 4, "sigma": 0.8, "data_range": 255.0}),
    ("orpo", {"odds_weight": 1.0}),
    ("simpo", {"margin": 0.0}),
    ("ssim", {"window": 3, "data_range": 2.0}),
]


@pytest.mark.parametrize(("name", "given"), OTHER_SETTINGS)
def test_losses_conform_at_other_settings(name, given):
    assert [finding for finding in check(name, **given) if finding.verdict == "fail"] == []
