"""Losses of preferences against numpy, and what their papers say of them."""

import math

import numpy as np
import pytest
import torch

import losses
from tests.losses.named import assert_agrees, draw


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def margin(chosen, rejected, reference_chosen, reference_rejected):
    """The logarithm of the ratio of ratios, from probabilities."""
    policy = np.exp(chosen) / np.exp(rejected)
    return np.log(policy / (np.exp(reference_chosen) / np.exp(reference_rejected)))


def dpo(*answers, beta=0.1):
    return -np.log(sigmoid(beta * margin(*answers)))


def ipo(*answers, beta=0.1):
    return (margin(*answers) - 1 / (2 * beta)) ** 2


def kto(
    log_prob,
    reference,
    point,
    desirable,
    beta=0.1,
    desirable_weight=1.0,
    undesirable_weight=1.0,
):
    values = []
    for gain, good in zip(log_prob - reference - point, desirable, strict=True):
        if good:
            values.append(desirable_weight - desirable_weight * sigmoid(beta * gain))
        else:
            values.append(undesirable_weight - undesirable_weight * sigmoid(-beta * gain))
    return np.array(values)


def simpo(chosen, rejected, beta=2.0, margin=1.0):
    return -np.log(sigmoid(beta * chosen - beta * rejected - margin))


def orpo(chosen, rejected, odds_weight=0.1):
    odds = [np.exp(x) / (1 - np.exp(x)) for x in (chosen, rejected)]
    return -chosen - odds_weight * np.log(sigmoid(np.log(odds[0] / odds[1])))


REFERENCES = {
    "dpo": dpo,
    "ipo": ipo,
    "kto": kto,
    "simpo": simpo,
    "orpo": orpo,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("dpo", {"beta": 0.5}),
    ("ipo", {"beta": 0.02}),
    ("kto", {"beta": 1.0, "desirable_weight": 0.5, "undesirable_weight": 2.0}),
    ("simpo", {"beta": 1.0, "margin": 0.0}),
    ("orpo", {"odds_weight": 1.0}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_values_and_gradients_are_the_reference(name, given, seed):
    assert_agrees(name, REFERENCES[name], *draw(name, seed), **given)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_preferences_start_at_their_known_values():
    """Where policy and reference agree, or where chosen and rejected do."""
    chosen, rejected, *_ = draw("dpo")
    start = (chosen, rejected, chosen, rejected)
    assert losses.dpo(*start).item() == pytest.approx(math.log(2))
    assert losses.ipo(*start, beta=0.1).item() == pytest.approx(25)
    point = torch.zeros_like(chosen)
    good = torch.arange(7) < 3
    value = losses.kto(chosen, chosen, point, good, desirable_weight=0.5, reduction="none")
    assert value.tolist() == [0.25] * 3 + [0.5] * 4
    same = losses.orpo(chosen, chosen, odds_weight=1.0)
    torch.testing.assert_close(same, -chosen.mean() + math.log(2))
    torch.testing.assert_close(losses.orpo(chosen, rejected, odds_weight=0.0), -chosen.mean())


def test_dpo_against_a_reference_without_opinion_is_simpo_without_margin():
    chosen, rejected, *_ = draw("dpo")
    same = torch.full_like(chosen, -3.0)
    ours = losses.dpo(chosen, rejected, same, same, beta=0.7)
    torch.testing.assert_close(ours, losses.simpo(chosen, rejected, beta=0.7, margin=0.0))


def test_dpo_is_logistic_regression_on_the_implied_reward():
    answers = draw("dpo")
    h = torch.from_numpy(margin(*(field.numpy() for field in answers)))
    torch.testing.assert_close(losses.dpo(*answers), losses.soft_margin(0.1 * h, torch.ones(7)))


def test_dpo_pushes_on_where_ipo_stops():
    h = numbers(5.0).requires_grad_()
    zero = numbers(0.0)
    for name, falling in (("dpo", True), ("ipo", False)):
        slope = torch.autograd.grad(losses.build(name, beta=0.1)(h, zero, zero, zero), h)[0]
        assert (slope < -1e-3) == falling
        assert slope <= 0
    assert losses.ipo(numbers(6.0), zero, zero, zero) == 1


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo", "orpo"])
def test_the_chosen_answer_becomes_likelier(name):
    """From the reference itself, where every one of them pulls."""
    start = -torch.ones(2, 4, dtype=torch.float64)
    chosen, rejected = start.requires_grad_()
    fields = (chosen, rejected, *start.detach())[: len(losses.get(name).inputs)]
    slopes = torch.autograd.grad(losses.build(name)(*fields), [chosen, rejected])
    assert (slopes[0] < 0).all()
    assert (slopes[1] > 0).all()


def test_kto_pulls_good_answers_up_and_bad_ones_down_most_at_the_reference_point():
    log_prob = numbers(0.3, 30.0, 0.3, 30.0).requires_grad_()
    fields = (torch.zeros(4), torch.full((4,), 0.3), torch.tensor([True, True, False, False]))
    losses.kto(log_prob, *(f.double() if f.is_floating_point() else f for f in fields)).backward()
    near_good, far_good, near_bad, far_bad = log_prob.grad.tolist()
    assert near_good < far_good < 0 < far_bad < near_bad
    assert near_good == pytest.approx(-0.1 / 4 / 4)  # beta times the sigmoid's slope, over 4 items


@pytest.mark.parametrize("sure", ["chosen", "rejected"])
def test_orpo_bears_a_sure_answer_and_corrects_it(sure):
    fields = {"chosen": numbers(-1.0), "rejected": numbers(-1.0)}
    leaf = fields[sure] = numbers(0.0).requires_grad_()
    value = losses.orpo(fields["chosen"], fields["rejected"])
    value.backward()
    assert value.isfinite()
    assert leaf.grad.isfinite()
    assert (leaf.grad > 0) == (sure == "rejected")
    with pytest.raises(ValueError, match=r"orpo needs chosen <= 0\.0001"):
        losses.orpo(numbers(0.5), numbers(-1.0))
