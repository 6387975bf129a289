"""Losses of policies against numpy, and what their papers say of them."""

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


def ppo_value(value, old_value, returns, clip=0.2):
    values = []
    for v, old, r in zip(value, old_value, returns, strict=True):
        clipped = min(max(v, old - clip), old + clip)
        values.append(max((v - r) ** 2, (clipped - r) ** 2))
    return np.array(values)


def policy_entropy(logits):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return (p * np.log(p)).sum(1)


REFERENCES = {
    "ppo_clip": ppo_clip,
    "ppo_value": ppo_value,
    "policy_entropy": policy_entropy,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("ppo_clip", {"clip": 0.5}),
    ("ppo_value", {"clip": 1.0}),
    ("grpo", {"clip": 0.1, "beta": 1.0}),
    ("dr_grpo", {"longest": 4}),
    ("dapo", {"clip_low": 0.5, "clip_high": 0.1}),
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


@pytest.mark.parametrize(
    ("value", "returns", "expected", "slope"),
    [
        (1.1, 3.0, 1.9**2, -2 * 1.9),  # within the clip of the old value of 1
        (2.0, 3.0, 1.8**2, 0.0),  # has come near enough
        (0.0, 3.0, 3.0**2, -2 * 3.0),  # wrong way: never clipped
        (9.0, 3.0, 6.0**2, 2 * 6.0),  # beyond the return by more than is missing at the clip
        (1.0, 1.0, 0.0, 0.0),
    ],
)
def test_the_clip_holds_a_value_that_comes_nearer_and_no_other(value, returns, expected, slope):
    value = numbers(value).requires_grad_()
    loss = losses.ppo_value(value, numbers(1.0), numbers(returns))
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert value.grad.item() == pytest.approx(slope)


def test_a_value_without_clip_has_the_mean_squared_error():
    value, old, returns = draw("ppo_value")
    far = losses.ppo_value(value, old, returns, clip=1e9)
    torch.testing.assert_close(far, losses.mse(value, returns))


def test_entropy_is_that_of_torchs_distribution_and_highest_for_equal_actions():
    (logits,) = draw("policy_entropy")
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(losses.policy_entropy(logits, reduction="none"), -expected)
    even = losses.policy_entropy(torch.zeros(3, 5, 2))
    assert even.item() == pytest.approx(-math.log(5))


def test_actions_that_are_not_allowed_have_no_share_in_the_entropy():
    (logits,) = draw("policy_entropy")
    barred = torch.cat([logits, torch.full((7, 2), -torch.inf)], 1).double().requires_grad_()
    value = losses.policy_entropy(barred)
    torch.testing.assert_close(value, losses.policy_entropy(logits))
    value.backward()
    assert barred.grad.isfinite().all()
    assert not barred.grad[:, 4:].any()
