"""Losses with class vectors against loops in numpy; what holds for any loss that learns tensors."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

import losses
from tests.losses.embeddings import assert_agrees, directions, draw


def cosines(x, w):
    return np.array([[sum(a * b) for b in directions(w)] for a in directions(x)])


def cross_entropy(logits, y):
    return np.array([np.logaddexp.reduce(row) - row[t] for row, t in zip(logits, y, strict=True)])


def normalised_softmax(x, y, w, temperature=0.05):
    return cross_entropy(cosines(x, w) / temperature, y)


def cosface(x, y, w, margin=0.35, scale=64.0):
    c = cosines(x, w)
    for i, t in enumerate(y):
        c[i, t] -= margin
    return cross_entropy(scale * c, y)


def arcface(x, y, w, margin=0.5, scale=64.0):
    c = cosines(x, w)
    for i, t in enumerate(y):
        angle = math.acos(c[i, t])
        beyond = angle > math.pi - margin
        c[i, t] = c[i, t] - 1 + math.cos(margin) if beyond else math.cos(angle + margin)
    return cross_entropy(scale * c, y)


def proxy_nca(x, y, w, scale=1.0):
    u, v = directions(x), directions(w)
    found = []
    for i, t in enumerate(y):
        distance = [scale * sum((u[i] - proxy) ** 2) for proxy in v]
        others = sum(math.exp(-d) for j, d in enumerate(distance) if j != t)
        found.append(-math.log(math.exp(-distance[t]) / others))
    return np.array(found)


def proxy_anchor(x, y, w, margin=0.1, alpha=32.0):
    s, present, everywhere = cosines(x, w), [], []
    for j in range(len(w)):
        inside = [math.exp(-alpha * (s[i, j] - margin)) for i, t in enumerate(y) if t == j]
        outside = [math.exp(alpha * (s[i, j] + margin)) for i, t in enumerate(y) if t != j]
        present += [math.log1p(sum(inside))] * bool(inside)
        everywhere.append(math.log1p(sum(outside)))
    return np.array([sum(present) / len(present) + sum(everywhere) / len(w)])


def linear_softmax(x, y, w, b):
    return cross_entropy(np.array([[sum(a * c) for c in w] for a in x]) + b, y)


REFERENCES = {
    "linear_softmax": linear_softmax,
    "normalised_softmax": normalised_softmax,
    "cosface": cosface,
    "arcface": arcface,
    "proxy_nca": proxy_nca,
    "proxy_anchor": proxy_anchor,
}
DIRECTIONS = [name for name in REFERENCES if name != "linear_softmax"]  # lengths do not matter
CASES = [
    *[(name, {}) for name in DIRECTIONS],
    ("normalised_softmax", {"temperature": 1.0}),
    ("cosface", {"margin": 0.1, "scale": 5.0}),
    ("arcface", {"margin": 1.2, "scale": 5.0}),  # a third of all angles are beyond pi - 1.2
    ("proxy_nca", {"scale": 9.0}),
    ("proxy_anchor", {"margin": 0.3, "alpha": 4.0}),
]
LABELS = torch.tensor([0, 3, 1, 1, 0, 3, 3, 1])  # class 2 is absent
SIZES = {"classes": 4, "features": 5}


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    assert_agrees(name, REFERENCES[name], draw(8, 5), LABELS, draw(4, 5, seed=1), **given)


def test_the_linear_classifier_is_the_reference_and_torchs():
    x, w, b = draw(8, 5), draw(4, 5, seed=1), draw(4, seed=2)
    assert_agrees("linear_softmax", linear_softmax, x, LABELS, w, b)
    logits = torch.nn.functional.linear(x, w, b)
    expected = torch.nn.functional.cross_entropy(logits, LABELS)
    torch.testing.assert_close(losses.linear_softmax(x, LABELS, w, b), expected)


def test_the_linear_classifier_starts_without_a_bias_and_learns_one():
    module = losses.build("linear_softmax", **SIZES)
    assert {name: list(p.shape) for name, p in module.named_parameters()} == {
        "weight": [4, 5],
        "bias": [4],
    }
    assert not module.bias.any()
    module(draw(8, 5).float(), LABELS).backward()
    assert module.bias.grad.any()


def test_without_a_margin_all_three_are_one_softmax():
    x, w = draw(8, 5), draw(4, 5, seed=1)
    expected = losses.normalised_softmax(x, LABELS, w, temperature=1 / 16)
    for function in (losses.cosface, losses.arcface):
        torch.testing.assert_close(function(x, LABELS, w, margin=0.0, scale=16.0), expected)
    logits = 16 * torch.nn.functional.cosine_similarity(x.unsqueeze(1), w, dim=2)
    torch.testing.assert_close(losses.cross_entropy(logits, LABELS), expected)


@pytest.mark.parametrize("margin", [0.0, 0.5, math.pi / 2])
def test_arcface_falls_with_the_angle_all_the_way(margin):
    """The formula alone would turn at pi less the margin."""
    angle = torch.linspace(0, math.pi, 201, dtype=torch.float64)
    x = torch.stack([angle.cos(), angle.sin(), 0 * angle], 1).requires_grad_()
    w = torch.eye(3, dtype=torch.float64)[[0, 2]]  # the other class is always at a right angle
    y = torch.zeros(201, dtype=torch.long)
    values = losses.arcface(x, y, w, margin=margin, scale=4.0, reduction="none")
    assert (values.diff() > 0).all()
    assert values.diff().max() < 0.1  # and does not jump
    values.sum().backward()
    assert x.grad.isfinite().all()


def test_lengths_do_not_matter():
    x, w = draw(8, 5), draw(4, 5, seed=1)
    for name in DIRECTIONS:
        function = getattr(losses, name)
        expected = function(x, LABELS, w)
        torch.testing.assert_close(function(100 * x, LABELS, w / 100), expected)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_zero_vectors_have_a_finite_gradient(name):
    x, w = torch.zeros(8, 5, requires_grad=True), torch.zeros(4, 5, requires_grad=True)
    value = getattr(losses, name)(x, LABELS, w)
    assert value.isfinite()
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(value, [x, w]))


# The contract of losses that learn tensors of their own


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


def test_build_makes_parameters_that_an_optimiser_and_a_checkpoint_see():
    module = losses.build("arcface", classes=10, features=64, margin=0.3)
    assert {name: list(p.shape) for name, p in module.named_parameters()} == {"weight": [10, 64]}
    assert list(module.state_dict()) == ["weight"]
    assert "arcface, margin=0.3, weight=tensor" in repr(module)
    torch.testing.assert_close(module.weight.norm(dim=1), torch.ones(10))


def test_the_module_is_the_function_with_its_tensors():
    x = draw(8, 5).float()
    for name in DIRECTIONS:
        module = losses.build(name, **SIZES)
        for again in (module, pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
            value = getattr(losses, name)(x, LABELS, module.weight)
            assert torch.equal(again(x, LABELS), value)


def test_tensors_are_drawn_from_the_generator_or_from_torchs():
    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return losses.build("cosface", generator=generator, **SIZES).weight

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
    torch.manual_seed(0)
    first = losses.build("cosface", **SIZES).weight
    torch.manual_seed(0)
    assert torch.equal(losses.build("cosface", **SIZES).weight, first)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_class_vectors_learn_where_the_classes_are(name):
    """Embeddings that stay as they are: steps on the class vectors alone lower the loss."""
    x = draw(4, 5).float()[LABELS % 4] + 0.1 * draw(8, 5, seed=2).float()
    module = losses.build(name, generator=torch.Generator().manual_seed(0), **SIZES)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.02)
    before = module(x, LABELS).item()
    for _ in range(20):
        optimiser.zero_grad()
        module(x, LABELS).backward()
        optimiser.step()
    assert module(x, LABELS).item() < 0.9 * before - 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_class_vectors_take_the_embeddings_dtype(dtype):
    module, x = losses.build("cosface", **SIZES), draw(8, 5).to(dtype)
    value = module(x, LABELS)
    inside = torch.float64 if dtype == torch.float64 else torch.float32
    assert value.dtype == inside
    torch.testing.assert_close(
        value, losses.cosface(x.to(inside), LABELS, module.weight.to(inside))
    )
    value.backward()
    assert module.weight.grad.dtype == torch.float32
    assert module.to(dtype)(x, LABELS).dtype == inside


def test_a_module_compiles_and_a_step_recompiles_nothing():
    torch.compiler.reset()
    module, x = losses.build("arcface", **SIZES), draw(8, 5).float()
    counter = CompileCounter()
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    before = compiled(x, LABELS)
    with torch.no_grad():
        module.weight.neg_()
    assert compiled(x, LABELS) == module(x, LABELS) != before
    assert counter.frame_count == 1


def test_what_does_not_fit_is_refused():
    x, w = draw(8, 5), draw(4, 5, seed=1)
    with raises("arcface needs classes: whole number >= 2"):
        losses.build("arcface", features=64)
    with raises("arcface.classes must be >= 2, got 1"):
        losses.build("arcface", classes=1, features=64)
    with raises("arcface has no parameter 'margn'; did you mean 'margin'?"):
        losses.build("arcface", margn=1, **SIZES)
    with raises("focal has no parameter 'classes'"):
        losses.build("focal", classes=10)
    with raises("arcface needs embedding, target, weight; got 2 tensors"):
        losses.arcface(x, LABELS)
    with raises("arcface needs weight [C, D] for its output [N, D]; got weight [4, 4]"):
        losses.arcface(x, LABELS, w[:, :4])
    with raises("linear_softmax needs class indices below 3"):
        losses.linear_softmax(x, LABELS, w, torch.zeros(3))
    with raises("arcface needs class indices below 3, got values from 0 to 3"):
        losses.arcface(x, LABELS, w[:3])


def test_sizes_say_what_a_loss_must_know():
    assert list(losses.get("arcface").sizes) == ["classes", "features"]
    assert losses.get("siglip").sizes == losses.get("focal").sizes == {}
    assert losses.get("arcface").inputs == ("embedding", "target")
