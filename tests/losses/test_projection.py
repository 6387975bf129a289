"""Projections: closed forms, what they leave alone, and what they are the least of."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import nn

import losses
from losses.projection import PROJECTIONS


def by_hand_max_norm(w, lr, limit):
    rows = w.reshape(len(w), -1).copy()
    for row in rows:
        length = np.sqrt(sum(row**2))
        if length > limit:
            row *= limit / length
    return rows.reshape(w.shape)


BY_HAND = {
    "max_norm": by_hand_max_norm,
    "clip_weights": lambda w, lr, limit: np.maximum(-limit, np.minimum(limit, w)),
    "proximal_l1": lambda w, lr, strength: np.where(
        w > lr * strength, w - lr * strength, np.where(w < -lr * strength, w + lr * strength, 0)
    ),
}
GIVEN = {
    "max_norm": {"limit": 1.5},
    "clip_weights": {"limit": 0.1},
    "proximal_l1": {"strength": 2.0},
}
LR = 0.05


def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))
    return net


def project(name, tensor, **given):
    """By the public function."""
    lr = [LR] if name == "proximal_l1" else []
    return getattr(losses, name)(tensor, *lr, **(GIVEN[name] | given))


def test_every_projection_has_a_form_by_hand():
    assert sorted(BY_HAND) == sorted(GIVEN) == losses.projection_names()


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_a_model_is_projected_by_hand(name, biases):
    net = model()
    before = copy.deepcopy(net.state_dict())
    losses.build_projection(name, biases=biases, **GIVEN[name])(net, LR)
    touched = {id(parameter) for parameter in losses.penalised(net, biases)}
    changed = 0
    for key, parameter in net.named_parameters():
        old, new = before[key].numpy(), parameter.detach().numpy()
        if id(parameter) in touched:
            np.testing.assert_allclose(new, BY_HAND[name](old, LR, **GIVEN[name]), rtol=1e-14)
            changed += not np.array_equal(old, new)
        else:
            np.testing.assert_array_equal(new, old)
    assert changed >= 2
    assert len(touched) == (6 if biases else 2)
    for key, buffer in net.named_buffers():
        assert torch.equal(buffer, before[key])


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_functions_are_pure_and_stay_in_their_dtype(name):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        weights = torch.linspace(-2, 3, 12, dtype=dtype).view(3, 4)
        before = weights.clone()
        made = project(name, weights)
        assert made.dtype == dtype
        assert made.data_ptr() != weights.data_ptr()
        assert torch.equal(weights, before)
        double = project(name, weights.double())
        assert torch.equal(made, double.to(dtype)) or dtype == torch.float32
        torch.testing.assert_close(
            made.double(), double, rtol=2 * torch.finfo(dtype).eps, atol=1e-7
        )


@pytest.mark.parametrize("name", ["max_norm", "clip_weights"])
def test_projecting_twice_is_projecting_once(name):
    weights = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    once = project(name, weights)
    torch.testing.assert_close(project(name, once), once, rtol=1e-15, atol=0)  # the last bit


# Max-norm


def test_max_norm_never_lengthens_and_leaves_short_rows_as_they_are():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(200, 3, 5, generator=generator) * torch.linspace(0, 2, 200).view(-1, 1, 1)
    made = losses.max_norm(weights, limit=3.0)
    lengths, after = (w.flatten(1).double().norm(dim=1) for w in (weights, made))
    short = lengths <= 3 * (1 - 1e-6)
    assert 50 < short.sum() < 150
    assert torch.equal(made[short], weights[short])
    assert (after <= lengths * (1 + 1e-7)).all()
    assert (after <= 3 * (1 + 1e-6)).all()
    torch.testing.assert_close(after[~short], torch.full_like(after[~short], 3), rtol=1e-6, atol=0)
    cosine = torch.cosine_similarity(made.flatten(1), weights.flatten(1))[lengths > 0]
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_max_norm_is_torchs_renorm():
    weights = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.renorm(weights, p=2, dim=0, maxnorm=2.0)
    torch.testing.assert_close(losses.max_norm(weights, limit=2.0), expected, rtol=1e-6, atol=0)


def test_max_norm_bears_zero_huge_and_tiny_rows():
    weights = torch.tensor([[0.0, 0.0], [3e30, 4e30], [1e-38, 0.0]])
    made = losses.max_norm(weights, limit=5.0)
    torch.testing.assert_close(made, torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e-38, 0.0]]))
    assert losses.max_norm(torch.tensor([2.0, -0.5]), limit=1.0).tolist() == [1.0, -0.5]
    assert losses.max_norm(torch.tensor(-2.0), limit=1.0) == -1
    for shape in ((0, 3), (3, 0), (0,)):
        assert losses.max_norm(torch.zeros(shape), limit=1.0).shape == shape


# The proximal form of L1


@pytest.mark.parametrize("x", [-2.0, -0.3, -0.1, 0.0, 0.05, 0.1, 0.7, 3.0])
@pytest.mark.parametrize(("lr", "strength"), [(0.1, 1.0), (0.01, 50.0), (0.0, 1.0), (0.5, 0.0)])
def test_proximal_l1_is_the_least_of_distance_and_penalty(x, lr, strength):
    ours = losses.proximal_l1(torch.tensor([x], dtype=torch.float64), lr, strength=strength).item()

    def cost(w):
        return (w - x) ** 2 / 2 + lr * strength * abs(w)

    # Golden section finds a place to about the root of the rounding of the cost.
    found = minimize_scalar(cost, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
    assert ours == pytest.approx(found.x, abs=1e-6)
    assert cost(ours) <= found.fun + 1e-15


def test_proximal_steps_find_exact_zeros_where_the_penalty_swings():
    """Lasso: of ten features two matter. The optimum is told by its own conditions."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(100, 10, generator=generator, dtype=torch.float64)
    truth = features[:, :2] @ torch.tensor([1.0, -2.0], dtype=torch.float64)
    strength, lr = 0.1, 0.1

    def trained(penalised):
        net = nn.Linear(10, 1, bias=False).double()
        nn.init.zeros_(net.weight)
        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
        penalty = losses.build_penalty("l1")
        projection = losses.build_projection("proximal_l1", strength=strength)
        for _ in range(500):
            optimizer.zero_grad()
            cost = losses.mse(net(features).squeeze(1), truth) / 2
            (cost + strength * penalty(net) if penalised else cost).backward()
            optimizer.step()
            if not penalised:
                projection(net, lr)
        return net.weight.detach()[0]

    weight = trained(penalised=False)
    assert (weight == 0).sum() == 8
    slope = features.T @ (features @ weight - truth) / 100
    torch.testing.assert_close(slope[:2], -strength * weight[:2].sign(), rtol=0, atol=1e-9)
    assert (slope[2:].abs() <= strength).all()
    assert (trained(penalised=True) != 0).all()


# As an object


def test_only_what_is_trained_is_projected_and_no_gradient_is_kept():
    net = model()
    net[0].requires_grad_(False)
    frozen = net[0].weight.clone()
    losses.build_projection("clip_weights", limit=1e-3)(net, LR)
    assert torch.equal(net[0].weight, frozen)
    assert net[2].weight.abs().max() == 1e-3
    assert net[2].weight.requires_grad
    assert net[2].weight.is_leaf
    net[2](torch.ones(1, 5).double()).sum().backward()
    assert net[2].weight.grad.any()


def test_a_critic_stays_clipped_through_its_training():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.RMSprop(critic.parameters(), lr=0.01)
    clip = losses.build_projection("clip_weights", biases=True)
    for _ in range(20):
        optimizer.zero_grad()
        losses.wgan_critic(critic(torch.randn(16, 2)), critic(torch.randn(16, 2) + 2)).backward()
        optimizer.step()
        clip(critic, 0.01)
        assert max(p.abs().max() for p in critic.parameters()) <= torch.tensor(0.01)


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_documented(name):
    entry = PROJECTIONS[name]
    text = inspect.getdoc(entry.function)
    assert ":math:`" in text
    assert entry.source in getattr(losses, name).__doc__
    assert all(f"{p}: " in text for p in inspect.signature(entry.function).parameters)
    assert losses.get_projection(name) is entry


def test_projections_pickle_copy_and_print():
    made = losses.build_projection("max_norm", limit=2.0, biases=True)
    assert repr(made) == "Projection(max_norm, biases=True, limit=2.0)"
    for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        nets = [model(), model()]
        made(nets[0], LR)
        again(nets[1], LR)
        assert torch.equal(nets[0][2].weight, nets[1][2].weight)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("max_norms", {}, "there is no projection 'max_norms'; did you mean 'max_norm'?"),
        ("max_norm", {}, "max_norm needs limit: number > 0"),
        ("max_norm", {"limit": 0}, "max_norm.limit must be > 0, got 0"),
        (
            "clip_weights",
            {"limt": 1},
            "clip_weights has no parameter 'limt'; did you mean 'limit'?",
        ),
        ("proximal_l1", {"strength": -1}, "proximal_l1.strength must be >= 0, got -1"),
        ("proximal_l1", {"strength": 1, "biases": 1}, "proximal_l1.biases must be true or false"),
    ],
)
def test_clear_errors(name, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        losses.build_projection(name, **given)


def test_a_step_without_a_learning_rate_and_whole_numbers_are_refused():
    for lr in ((), (-0.1,), (float("nan"),)):
        with pytest.raises(
            ValueError, match="proximal_l1 needs the step's learning rate, >= 0, got"
        ):
            losses.proximal_l1(torch.ones(2), *lr, strength=1.0)
    with pytest.raises(
        ValueError, match=r"max_norm needs floating-point parameters, got torch.int"
    ):
        losses.max_norm(torch.ones(2).long(), limit=1.0)
    with pytest.raises(ValueError, match="'max_norm' is registered twice"):
        losses.projection("max_norm", source="anywhere")(torch.abs)


def test_each_has_a_hash_of_its_own():
    """So that a record can say which projection it was made with."""
    named = [*losses.projection_names(), *losses.penalty_names()]
    assert len({losses.source_hash(name) for name in named}) == len(named)
