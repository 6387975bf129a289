"""Losses of policies and preferences against numpy, and what their papers say of them."""

import math

import numpy as np
import pytest
import torch

import losses
from tests.losses.named import assert_agrees, draw


def clipped(log_prob, old, advantage, low, high):
    ratio = math.exp(log_prob - old)
    return -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def ppo_clip(log_prob, old_log_prob, advantage, clip=0.2):
    items = zip(log_prob, old_log_prob, advantage, strict=True)
    return np.array([clipped(*item, clip, clip) for item in items])


def tokens(log_prob, old, advantage, mask, low, high):
    values = np.zeros_like(log_prob)
    for n, t in np.ndindex(mask.shape):
        if mask[n, t]:
            values[n, t] = clipped(log_prob[n, t], old[n, t], advantage[n], low, high)
    return values


def grpo(log_prob, reference, old, advantage, mask, clip=0.2, beta=0.04):
    values = tokens(log_prob, old, advantage, mask, clip, clip)
    for n, t in np.ndindex(mask.shape):
        if mask[n, t]:
            q = reference[n, t] - log_prob[n, t]
            values[n, t] += beta * (math.exp(q) - q - 1)
    return np.array([v.sum() / max(m.sum(), 1) for v, m in zip(values, mask, strict=True)])


def dr_grpo(log_prob, old, advantage, mask, clip=0.2, longest=1024):
    return tokens(log_prob, old, advantage, mask, clip, clip).sum(1) / longest


def dapo(log_prob, old, advantage, mask, clip_low=0.2, clip_high=0.28):
    return tokens(log_prob, old, advantage, mask, clip_low, clip_high)


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
    "ppo_clip": ppo_clip,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "dpo": dpo,
    "ipo": ipo,
    "kto": kto,
    "simpo": simpo,
    "orpo": orpo,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("ppo_clip", {"clip": 0.5}),
    ("grpo", {"clip": 0.1, "beta": 1.0}),
    ("dr_grpo", {"longest": 4}),
    ("dapo", {"clip_low": 0.5, "clip_high": 0.1}),
    ("dpo", {"beta": 0.5}),
    ("ipo", {"beta": 0.02}),
    ("kto", {"beta": 1.0, "desirable_weight": 0.5, "undesirable_weight": 2.0}),
    ("simpo", {"beta": 1.0, "margin": 0.0}),
    ("orpo", {"odds_weight": 1.0}),
]
POLICIES = ["ppo_clip", "grpo", "dr_grpo", "dapo"]


@pytest.mark.parametrize(("name", "given"), CASES)
@pytest.mark.parametrize("seed", [1, 2])
def test_values_and_gradients_are_the_reference(name, given, seed):
    assert_agrees(name, REFERENCES[name], *draw(name, seed), **given)


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_at_the_old_policy_it_is_the_policy_gradient():
    log_prob = numbers(-1.0, -0.2, -3.0).requires_grad_()
    advantage = numbers(2.0, -1.0, 0.0)
    value = losses.ppo_clip(log_prob, log_prob.detach(), advantage, reduction="sum")
    value.backward()
    assert value == -advantage.sum()
    assert torch.equal(log_prob.grad, -advantage)


@pytest.mark.parametrize(
    ("change", "advantage", "value", "slope"),
    [
        (0.1, 2.0, -2 * math.exp(0.1), -2 * math.exp(0.1)),
        (1.0, 2.0, -2 * 1.2, 0.0),  # gained enough
        (-1.0, 2.0, -2 * math.exp(-1), -2 * math.exp(-1)),  # wrong way: never clipped
        (-1.0, -2.0, 2 * 0.8, 0.0),  # lost enough
        (1.0, -2.0, 2 * math.exp(1), 2 * math.exp(1)),  # wrong way: never clipped
        (1e4, 2.0, -2 * 1.2, 0.0),  # the ratio overflows and leaves no NaN
        (1e4, 0.0, 0.0, 0.0),
        (-1e4, -2.0, 2 * 0.8, 0.0),
    ],
)
def test_the_clip_takes_away_what_has_been_gained(change, advantage, value, slope):
    log_prob = numbers(change).requires_grad_()
    loss = losses.ppo_clip(log_prob, numbers(0.0), numbers(advantage))
    loss.backward()
    assert loss.item() == pytest.approx(value)
    assert log_prob.grad.item() == pytest.approx(slope)


@pytest.mark.parametrize("name", POLICIES)
def test_minimising_makes_good_actions_likelier(name):
    """The published objective is to be maximised; as printed it would do the opposite."""
    fields = list(draw(name))
    inputs = losses.get(name).inputs
    places = {key: inputs.index(key) for key in ("log_prob", "old_log_prob", "advantage")}
    fields[places["old_log_prob"]] = fields[places["log_prob"]].clone()
    if "reference_log_prob" in inputs:
        fields[inputs.index("reference_log_prob")] = fields[places["log_prob"]].clone()
    log_prob = fields[places["log_prob"]] = fields[places["log_prob"]].clone().requires_grad_()
    advantage = fields[places["advantage"]].reshape(-1, *[1] * (log_prob.ndim - 1))
    losses.build(name, reduction="sum")(*fields).backward()
    assert (log_prob.grad * advantage <= 0).all()
    assert log_prob.grad.any()


def test_answers_are_averaged_each_by_its_length_by_the_longest_or_together():
    log_prob, _, advantage, mask = draw("dapo")
    lengths = mask.sum(1)
    assert (lengths == 0).any()
    tokens = -advantage[:, None] * mask  # at the old policy every ratio is 1
    fields = (log_prob, log_prob, advantage, mask)
    weighed = losses.grpo(log_prob, *fields, beta=0.0)
    each = (tokens.sum(1) / lengths.clamp(min=1))[lengths > 0]
    torch.testing.assert_close(weighed, each.mean())  # an empty answer does not count
    torch.testing.assert_close(losses.dapo(*fields), tokens.sum() / lengths.sum())
    constant = losses.dr_grpo(*fields, longest=10, reduction="sum")
    torch.testing.assert_close(constant, tokens.sum() / 10)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("junk", [1e9, -math.inf, math.nan])
def test_what_the_mask_leaves_out_does_not_matter(name, junk):
    def evaluate(filling):
        fields, mask = draw(name), draw(name)[-1]
        leaf = torch.where(mask, fields[0], filling).requires_grad_()
        value = losses.build(name)(leaf, *fields[1:])
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    (value, slope), (expected, theirs) = evaluate(junk), evaluate(-1.0)
    assert value == expected
    assert torch.equal(slope, theirs)
    assert not slope[~draw(name)[-1]].any()


def test_the_divergence_of_grpo_is_not_negative_and_unbiased():
    """Under samples of the policy its mean is KL(policy, reference)."""
    policy, reference = (numbers(*row).log_softmax(0) for row in ((1, 0, 2), (0.5, 1, 0)))
    probabilities = policy.exp()

    def estimate(ours, theirs):
        column = ours[:, None]
        given = {"beta": 1.0, "reduction": "none"}
        mask = torch.ones_like(column, dtype=torch.bool)
        return losses.grpo(column, theirs[:, None], column, 0 * ours, mask, **given)

    values = estimate(policy, reference)
    assert (values >= 0).all()
    expected = (probabilities * (policy - reference)).sum()
    torch.testing.assert_close((probabilities * values).sum(), expected)
    assert not estimate(policy, policy).any()


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
