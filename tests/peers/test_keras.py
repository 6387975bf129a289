"""Ours against Keras, computed with torch."""

import os

import pytest

import losses
from tests.peers.agreement import agree, images, labels, library

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = library("keras")
if keras.backend.backend() != "torch":
    pytest.skip("Keras computes with another backend here", allow_module_level=True)
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


PRECISION = 1e-6  # it computes in float32

REAL = {
    "huber": ({"delta": 0.7}, "Huber", {"delta": 0.7}),
    "log_cosh": ({}, "LogCosh", {}),
    "mse": ({}, "MeanSquaredError", {}),
    "mae": ({}, "MeanAbsoluteError", {}),
}


@pytest.mark.parametrize("name", REAL)
def test_real_values(name):
    ours, peer, theirs = REAL[name]
    other = getattr(keras.losses, peer)(**theirs)
    mine = losses.build(name, **ours)
    agree(mine, lambda x, y: other(y, x), images(40, 2), images(42, 2)[2:], tolerance=PRECISION)


def test_classes():
    other = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    target = labels(4, 30)
    mine = losses.build("cross_entropy")
    agree(mine, lambda x, y: other(y, x), images(30, 4), target, tolerance=PRECISION)


YES_NO = {
    "bce": ({}, "BinaryCrossentropy", {"from_logits": True}),
    "binary_focal": ({"gamma": 2.0}, "BinaryFocalCrossentropy", {"from_logits": True}),
    "hinge": ({}, "Hinge", {}),
    "squared_hinge": ({}, "SquaredHinge", {}),
}


@pytest.mark.parametrize("name", YES_NO)
def test_yes_or_no(name):
    ours, peer, theirs = YES_NO[name]
    other = getattr(keras.losses, peer)(**theirs)
    target = labels(2, 30, 3).double()
    mine = losses.build(name, **ours)
    agree(mine, lambda x, y: other(y, x), images(30, 3), target, tolerance=PRECISION)
