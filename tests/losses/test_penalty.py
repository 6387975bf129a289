"""Penalties: sums by hand, gradients, which parameters they touch."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest
import torch
from torch import nn

import losses
from losses.penalty import PENALTIES

BY_HAND = {
    "l1": lambda w: np.abs(w).sum(),
    "l2": lambda w: (w**2).sum(),
    "elastic_net": lambda w: np.abs(w).sum() + (w**2).sum(),
}
SLOPES = {"l1": np.sign, "l2": lambda w: 2 * w, "elastic_net": lambda w: np.sign(w) + 2 * w}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(5, 3)).double()


def test_every_penalty_has_a_sum_by_hand():
    assert sorted(BY_HAND) == sorted(SLOPES) == losses.penalty_names()


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_value_and_gradient_by_hand(name):
    net = model()
    weights = [net[0].weight, net[2].weight]
    value = losses.build_penalty(name)(net)
    value.backward()
    assert value.item() == pytest.approx(
        sum(BY_HAND[name](w.detach().numpy()) for w in weights), rel=1e-14
    )
    for weight in weights:
        assert np.allclose(weight.grad.numpy(), SLOPES[name](weight.detach().numpy()), rtol=1e-14)
    assert all(p.grad is None for p in [net[0].bias, *net[1].parameters(), net[2].bias])


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_biases_on_request(name):
    net = model()
    value = losses.build_penalty(name, biases=True)(net)
    every = sum(BY_HAND[name](p.detach().numpy()) for p in net.parameters())
    assert value.item() == pytest.approx(every, rel=1e-14)


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_function_takes_one_tensor_or_many(name):
    function = getattr(losses, name)
    tensors = list(model().parameters())
    assert function(tensors) == function(iter(tensors))
    singly = sum(function(t) for t in tensors)
    assert function(tensors).item() == pytest.approx(singly.item(), rel=1e-14)


@pytest.mark.parametrize(("name", "degree"), [("l1", 1), ("l2", 2)])
def test_homogeneous(name, degree):
    weights = torch.linspace(-2, 3, 11, dtype=torch.float64)
    function = getattr(losses, name)
    assert (
        function(4 * weights).item() == 4**degree * function(weights).item()
    )  # powers of 2: exact


def test_elastic_net_is_its_parts():
    weights = torch.linspace(-2, 3, 11, dtype=torch.float64)
    mixed = losses.elastic_net(weights, l1=0.3, l2=0.7)
    assert mixed.item() == pytest.approx(
        (0.3 * losses.l1(weights) + 0.7 * losses.l2(weights)).item(), rel=1e-14
    )
    assert losses.elastic_net(weights, l1=1.0, l2=0.0) == losses.l1(weights)


def test_half_l2_is_weight_decay_under_sgd_and_not_under_adam():
    def trained(optimizer, share, decay):
        net = copy.deepcopy(model())
        made = optimizer(net.parameters(), lr=0.1, weight_decay=decay)
        penalty = losses.build_penalty("l2", biases=True, half=True)
        for _ in range(3):
            made.zero_grad()
            (net[2](torch.ones(1, 5, dtype=torch.float64)).sum() + share * penalty(net)).backward()
            for p in net.parameters():  # decay acts on parameters without a data gradient too
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            made.step()
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    sgd = trained(torch.optim.SGD, 0.01, 0.0), trained(torch.optim.SGD, 0.0, 0.01)
    adamw = trained(torch.optim.AdamW, 0.01, 0.0), trained(torch.optim.AdamW, 0.0, 0.01)
    assert torch.allclose(*sgd, rtol=1e-12)
    assert not torch.allclose(*adamw, rtol=1e-3)


def test_l1_has_subgradient_zero_at_zero():
    weights = torch.zeros(3, requires_grad=True)
    losses.l1(weights).backward()
    assert (weights.grad == 0).all()


def test_scales_of_several_dimensions_are_exempt():
    net = nn.Sequential(nn.LayerNorm((2, 3)), nn.RMSNorm((2, 3)), nn.Linear(3, 1))
    assert [id(p) for p in losses.penalised(net)] == [id(net[2].weight)]
    assert len(losses.penalised(net, biases=True)) == len(list(net.parameters()))


def test_frozen_parameters_are_left_out():
    net = model()
    net[0].requires_grad_(False)
    value = losses.build_penalty("l2")(net)
    assert value.item() == pytest.approx(net[2].weight.square().sum().item(), rel=1e-14)
    net.requires_grad_(False)
    assert losses.build_penalty("l2")(net) == 0


def test_a_shared_weight_counts_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert losses.build_penalty("l2")(net).item() == losses.l2(net[0].weight).item()


def test_no_parameters_cost_nothing():
    assert losses.build_penalty("l1")(nn.ReLU()) == 0
    assert losses.l1([]) == 0
    assert losses.l1(torch.zeros(0)) == 0


def test_half_precision_is_summed_in_float32():
    weights = torch.full((512, 512), 2.0, dtype=torch.float16)  # the sum of squares overflows
    assert losses.l2(weights).item() == 4.0 * weights.numel()


class Penalised(nn.Module):
    """A net whose output is its own penalty."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net, self.penalty = nn.Linear(3, 2).double(), losses.build_penalty(name)

    def forward(self) -> torch.Tensor:
        return self.penalty(self.net)


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_stacked_arms_are_each_penalised(name):
    """Under vmap a parameter's own `requires_grad` reads False, which must not exempt it."""
    torch.manual_seed(0)
    holder = Penalised(name)
    stacked = {
        key: torch.randn(4, *value.shape, dtype=value.dtype, requires_grad=True)
        for key, value in holder.named_parameters()
    }
    values = torch.func.vmap(lambda p: torch.func.functional_call(holder, p, ()))(stacked)
    values.sum().backward()
    weight = stacked["net.weight"]
    by_hand = [BY_HAND[name](arm) for arm in weight.detach().numpy()]
    assert np.allclose(values.detach().numpy(), by_hand, rtol=1e-14)
    assert np.allclose(weight.grad.numpy(), SLOPES[name](weight.detach().numpy()), rtol=1e-14)
    assert stacked["net.bias"].grad is None or (stacked["net.bias"].grad == 0).all()


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_compiles_in_one_graph(name):
    torch.compiler.reset()
    net = model()
    net[0].requires_grad_(False)
    module = losses.build_penalty(name)
    compiled = torch.compile(lambda: module(net), fullgraph=True, backend="eager")
    assert compiled() == module(net)


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_documented(name):
    entry = PENALTIES[name]
    text = inspect.getdoc(entry.function)
    assert ":math:`" in text
    assert entry.source
    assert entry.source in getattr(losses, name).__doc__
    assert all(f"{p}: " in text for p in inspect.signature(entry.function).parameters)


def test_modules_pickle_and_copy():
    module = losses.build_penalty("l2", half=True, biases=True)
    for again in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert again(model()).item() == module(model()).item()


def test_print_shows_settings():
    assert "half=True" in repr(losses.build_penalty("l2", half=True))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("elastic", {}, "there is no penalty 'elastic'; did you mean 'elastic_net'?"),
        ("l2", {"haf": True}, "l2 has no parameter 'haf'; did you mean 'half'?"),
        ("l2", {"half": 1}, "l2.half must be true or false, got 1"),
        ("l2", {"biases": "all"}, "l2.biases must be true or false, got 'all'"),
        ("elastic_net", {"l1": -1}, "elastic_net.l1 must be >= 0, got -1"),
    ],
)
def test_clear_errors(name, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        losses.build_penalty(name, **given)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'l1' is registered twice"):
        losses.penalty("l1", source="anywhere")(torch.abs)
