"""Ours against optax, whose gradients are JAX's."""

import numpy as np
import pytest
import torch

import losses
from tests.peers.agreement import images, labels, library, sloped

jax, optax = library("jax"), library("optax")
jnp = library("jax.numpy")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _double():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def agree(ours, theirs, output, *others, tolerance=1e-9):
    """As for torch, with the peer's gradient from JAX."""
    value, slope = sloped(ours, output, *others)
    arrays = [jnp.asarray(each.numpy()) for each in (output, *others)]
    found, gradient = jax.value_and_grad(theirs)(*arrays)
    for mine, other in ((value, found), (slope, gradient)):
        given = torch.tensor(np.asarray(other))
        torch.testing.assert_close(mine, given, rtol=tolerance, atol=tolerance)


def rows(target):
    return jax.nn.one_hot(target, 4)


REAL = {
    "huber": ({"delta": 0.7}, lambda x, y: optax.huber_loss(x, y, delta=0.7)),
    "log_cosh": ({}, optax.log_cosh),
    "mse": ({}, optax.squared_error),
}


@pytest.mark.parametrize("name", REAL)
def test_real_values(name):
    given, peer = REAL[name]
    agree(losses.build(name, **given), lambda x, y: peer(x, y).mean(), images(40), images(41)[1:])


CLASSES = {
    "cross_entropy": ({}, optax.losses.softmax_cross_entropy_with_integer_labels),
    "poly1": (
        {"epsilon": 2.0},
        lambda x, y: optax.losses.poly_loss_cross_entropy(x, rows(y), epsilon=2.0),
    ),
    "max_hinge": ({}, optax.losses.multiclass_hinge_loss),
    "perceptron": ({}, optax.losses.multiclass_perceptron_loss),
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    given, peer = CLASSES[name]
    target = labels(4, 30)
    agree(losses.build(name, **given), lambda x, y: peer(x, y).mean(), images(30, 4), target)


YES_NO = {
    "bce": ({}, optax.losses.sigmoid_binary_cross_entropy),
    "binary_focal": (
        {"gamma": 2.0, "alpha": 0.25},
        lambda x, y: optax.losses.sigmoid_focal_loss(x, y, alpha=0.25, gamma=2.0),
    ),
    "hinge": ({}, lambda x, y: optax.losses.hinge_loss(x, 2 * y - 1)),
    "binary_perceptron": ({}, lambda x, y: optax.losses.perceptron_loss(x, 2 * y - 1)),
}


@pytest.mark.parametrize("name", YES_NO)
def test_yes_or_no(name):
    given, peer = YES_NO[name]
    target = labels(2, 30).double()
    agree(losses.build(name, **given), lambda x, y: peer(x, y).mean(), images(30), target)


def test_divergence():
    target = images(30, 4).flip(0).softmax(1)

    def peer(x, y):
        return optax.losses.kl_divergence(jax.nn.log_softmax(x), y).mean()

    agree(losses.kl, peer, images(30, 4), target)


def test_triplets():
    anchor, positive, negative = (images(3, 30, 5)[i] for i in range(3))

    def peer(*given):
        return optax.losses.triplet_margin_loss(*given, margin=0.5, eps=1e-12).mean()

    agree(losses.build("triplet", margin=0.5), peer, anchor, positive, negative)


def test_connectionist_temporal_classification():
    """Optax takes scores and paddings; its sum starts from a finite logarithm of zero."""
    frames, symbols = torch.tensor([9, 7, 8]), torch.tensor([3, 2, 4])
    target = 1 + labels(3, 3, 4)
    frame_padding = (torch.arange(9) >= frames.unsqueeze(1)).double()
    symbol_padding = (torch.arange(4) >= symbols.unsqueeze(1)).double()

    def ours(x):
        return losses.ctc(x, target, frames, symbols)

    def peer(x):
        return optax.losses.ctc_loss(
            x, *(jnp.asarray(t.numpy()) for t in (frame_padding, target, symbol_padding))
        ).mean()

    agree(ours, peer, images(3, 9, 4), tolerance=1e-6)


def test_nt_xent():
    first, second = images(2, 12, 5)
    ids = jnp.arange(12).repeat(2).reshape(12, 2).T.flatten()

    def peer(x, y):
        return optax.losses.ntxent(jnp.concatenate([x, y]), ids, temperature=0.1)

    agree(losses.build("nt_xent", temperature=0.1), peer, first, second, tolerance=1e-6)
