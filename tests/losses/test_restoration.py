"""Image losses against numpy and torchmetrics, and how a feature network is treated."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)
from torchmetrics.functional.image import total_variation as peer_variation

import losses
from losses.restoration import SCALE_WEIGHTS
from tests.losses.named import assert_agrees
from tests.losses.oracle import STEP, TOLERANCE


def charbonnier(x, y, eps=1e-3):
    return np.sqrt((x - y) ** 2 + eps**2)


def total_variation(image):
    values = np.zeros(len(image))
    for n, c, i, j in np.ndindex(image.shape):
        here = image[n, c, i, j]
        if i + 1 < image.shape[2]:
            values[n] += abs(image[n, c, i + 1, j] - here)
        if j + 1 < image.shape[3]:
            values[n] += abs(image[n, c, i, j + 1] - here)
    return values


def factors(x, y, data_range, window, sigma):
    """Luminance and structure under every window of one image [C, H, W], by the definition."""
    place = np.arange(window) - (window - 1) / 2
    row = np.exp(-(place**2) / (2 * sigma**2))
    weights = np.outer(row, row) / np.outer(row, row).sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = []
    for c in range(x.shape[0]):
        for i in range(x.shape[1] - window + 1):
            for j in range(x.shape[2] - window + 1):
                a, b = (z[c, i : i + window, j : j + window] for z in (x, y))
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a = (weights * (a - mean_a) ** 2).sum()
                var_b = (weights * (b - mean_b) ** 2).sum()
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
                found.append((luminance, (2 * both + c2) / (var_a + var_b + c2)))
    return np.array(found)


def ssim(x, y, data_range=1.0, window=11, sigma=1.5):
    return np.array(
        [
            1 - factors(a, b, data_range, window, sigma).prod(1).mean()
            for a, b in zip(x, y, strict=True)
        ]
    )


def halved(x):
    """Means of blocks of 2 by 2 pixels of images [N, C, H, W]; an odd last row is left out."""
    height, width = (size // 2 for size in x.shape[2:])
    blocks = x[:, :, : 2 * height, : 2 * width].reshape(*x.shape[:2], height, 2, width, 2)
    return blocks.mean((3, 5))


def ms_ssim(x, y, data_range=1.0, window=11, sigma=1.5, scales=5):
    weights = np.array(SCALE_WEIGHTS[:scales])
    product = np.ones(len(x))
    for scale, weight in enumerate(weights / weights.sum()):
        x, y = (halved(x), halved(y)) if scale else (x, y)
        for n, (a, b) in enumerate(zip(x, y, strict=True)):
            both = factors(a, b, data_range, window, sigma)
            local = both.prod(1) if scale == scales - 1 else both[:, 1]
            product[n] *= max(local.mean(), 1e-6) ** weight
    return 1 - product


REFERENCES = {
    "charbonnier": charbonnier,
    "total_variation": total_variation,
    "ssim": ssim,
    "ms_ssim": ms_ssim,
}


def images(*shape, seed=0, noise=0.25):
    """A smooth picture with some texture, and a noisy version of it."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    wave = torch.linspace(0, 3, shape[-1], dtype=torch.float64).sin()
    target = (target + wave) / 2
    return target + noise * torch.randn(shape, generator=generator, dtype=torch.float64), target


@pytest.mark.parametrize(
    ("name", "shape", "given"),
    [
        ("total_variation", (2, 2, 4, 3), {}),
        ("ssim", (2, 2, 7, 6), {"window": 5}),
        ("ssim", (1, 1, 5, 4), {"window": 4, "sigma": 0.8, "data_range": 3.0}),
        ("ms_ssim", (2, 1, 8, 10), {"window": 4, "scales": 2}),
        ("ms_ssim", (1, 2, 5, 6), {"window": 5, "scales": 1, "data_range": 2.0}),
    ],
)
def test_values_and_gradients_are_the_reference(name, shape, given):
    fields = images(*shape)[: 1 if name == "total_variation" else 2]
    assert_agrees(name, REFERENCES[name], *fields, **given)


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_the_paper_s_own_window_and_scales_are_the_reference(name):
    x, y = images(1, 1, 176, 180) if name == "ms_ssim" else images(2, 3, 13, 15)
    value = losses.build(name, reduction="none")(x, y)
    np.testing.assert_allclose(value.numpy(), REFERENCES[name](x.numpy(), y.numpy()), rtol=1e-9)


@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_charbonnier_is_the_reference_and_a_pseudo_huber(eps):
    x, y = (z.flatten() for z in images(3, 1, 4, 4))
    leaf = x.clone().requires_grad_()
    values = losses.charbonnier(leaf, y, eps=eps, reduction="none")
    np.testing.assert_allclose(values.detach(), charbonnier(x.numpy(), y.numpy(), eps), rtol=1e-12)
    torch.testing.assert_close(
        values, eps + losses.pseudo_huber(leaf, y, delta=eps, reduction="none") / eps
    )
    (slope,) = torch.autograd.grad(values.sum(), leaf)
    ends = [charbonnier((x + step).numpy(), y.numpy(), eps) for step in (STEP, -STEP)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * STEP), atol=10 * TOLERANCE)
    assert losses.charbonnier(x, x, eps=eps).item() == pytest.approx(eps)


def test_total_variation_is_torchmetrics_and_scales_with_the_image():
    x, _ = images(3, 2, 9, 7)
    values = losses.total_variation(x, reduction="none")
    torch.testing.assert_close(values, peer_variation(x, reduction="none"))
    torch.testing.assert_close(losses.total_variation(-3 * x + 1, reduction="none"), 3 * values)
    flat = torch.ones(2, 1, 4, 4, requires_grad=True)
    value = losses.total_variation(flat)
    value.backward()
    assert value == 0
    assert not flat.grad.any()
    assert losses.total_variation(flat[:, :, :1, :1]) == 0


@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_similarities_are_torchmetrics(noise):
    x, y = images(2, 3, 24, 30, noise=noise)
    _, full = structural_similarity_index_measure(x, y, data_range=1.0, return_full_image=True)
    inside = full[:, :, 5:-5, 5:-5]  # it pads the images and keeps the border
    torch.testing.assert_close(losses.ssim(x, y, reduction="none"), 1 - inside.mean((1, 2, 3)))
    x, y = images(2, 2, 176, 200, noise=noise)
    peer = multiscale_structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")
    # the same border, of the coarsest scale alone, which weighs 0.13
    torch.testing.assert_close(losses.ms_ssim(x, y, reduction="none"), 1 - peer, rtol=0, atol=0.01)


@pytest.mark.parametrize(("name", "given"), [("ssim", {}), ("ms_ssim", {"scales": 2})])
def test_similarity_is_symmetric_and_0_for_the_same_image_alone(name, given):
    x, y = images(2, 1, 24, 24)
    module = losses.build(name, **given)
    torch.testing.assert_close(module(x, y), module(y, x))
    leaf = y.clone().requires_grad_()
    same = module(leaf, y)
    same.backward()
    assert same.item() == pytest.approx(0, abs=1e-15)
    assert leaf.grad.abs().max().item() < 1e-15
    assert module(x, y) > 0.1
    scaled = losses.build(name, data_range=255.0, **given)(255 * x, 255 * y)
    torch.testing.assert_close(scaled, module(x, y))


def test_opposite_images_cost_most_and_give_no_nan():
    """The published weakness: roots of negative similarities."""
    _, y = images(1, 1, 176, 176)
    for name in ("ssim", "ms_ssim"):
        leaf = (1 - y).requires_grad_()
        value = losses.build(name)(leaf, y)
        value.backward()
        assert leaf.grad.isfinite().all()
        assert 0.95 < value < 2
    peer = multiscale_structural_similarity_index_measure(1 - y, y, data_range=1.0, normalize=None)
    assert peer.isnan()  # what the clamp is for


def test_float32_is_accurate_where_pictures_are_nearly_flat():
    """Variances far below the squared mean, from which they are subtracted."""
    x, y = (255 - z / 10 for z in images(1, 1, 32, 32))
    exact = losses.ssim(x, y, data_range=255.0)
    rounded = losses.ssim(x.float(), y.float(), data_range=255.0)
    # rounding of 255^2 is 0.004, beside a constant of 58
    assert rounded.item() == pytest.approx(exact.item(), abs=2e-4)


@pytest.mark.parametrize(
    ("name", "shape", "given", "message"),
    [
        ("ssim", (1, 1, 10, 30), {}, "ssim needs images of at least 11 x 11 for a window of 11"),
        ("ms_ssim", (1, 1, 176, 175), {}, "at least 176 x 176 for a window of 11 at 5 scale(s)"),
        ("ms_ssim", (1, 1, 20, 21), {"scales": 2}, "at least 22 x 22"),
    ],
)
def test_small_images_are_refused(name, shape, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        losses.build(name, **given)(*images(*shape))


# Features


class Features(nn.Module):
    """Two feature maps, of which one is random in training mode."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.last = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.LazyLinear(4))

    def forward(self, x):
        first = self.norm(self.first(x))
        return first, self.last(first)


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = Features()
    made(torch.randn(2, 1, 6, 6))
    return made.double()


def test_perceptual_is_the_weighted_mean_square_of_features(network):
    x, y = images(3, 1, 6, 6)
    loss = losses.Perceptual(network, weights=[2.0, 0.5], reduction="none")
    network.eval()
    expected = np.zeros(3)
    for weight, a, b in zip([2.0, 0.5], network(x), network(y), strict=True):
        a, b = a.detach().numpy(), b.detach().numpy()
        expected += [weight * ((p - q) ** 2).sum() / p.size for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(loss(x, y), expected, rtol=1e-9)
    for reduction, value in (("mean", expected.mean()), ("sum", expected.sum())):
        again = losses.Perceptual(network, weights=[2.0, 0.5], reduction=reduction)
        assert again(x, y).item() == pytest.approx(value)


def test_perceptual_over_pixels_is_the_squared_error():
    x, y = images(3, 1, 6, 6)
    torch.testing.assert_close(losses.Perceptual(nn.Identity())(x, y), losses.mse(x, y))


def test_the_feature_network_is_frozen_hidden_and_left_alone(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)).double()
    model.loss = losses.Perceptual(network)
    assert not [name for name in model.state_dict() if name.startswith("loss")]
    assert len(list(model.parameters())) == 2
    model.train()
    x, y = images(3, 1, 6, 6)
    y.requires_grad_()
    loss = model.loss(model[0](x), y)
    assert loss == model.loss(model[0](x), y)  # no dropout, no batch statistics
    loss.backward()
    assert model[0].weight.grad.any()
    assert y.grad is None
    assert all(p.grad is None for p in model.loss.frozen[0].parameters())
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_feature_network_moves_with_the_module(network):
    loss = losses.Perceptual(network)
    assert loss.float().frozen[0].first.weight.dtype == torch.float32
    assert network.first.weight.dtype == torch.float64
    x, y = (z.bfloat16() for z in images(3, 1, 6, 6))
    value = loss.bfloat16()(x, y)
    assert value.dtype == torch.float32
    assert math.isfinite(value)
    assert loss(x[:0], y[:0]) == 0


def test_perceptual_says_what_does_not_fit(network):
    x, y = images(3, 1, 6, 6)
    with pytest.raises(ValueError, match="one weight per feature map, 2 of them; got 1"):
        losses.Perceptual(network, weights=[1.0])(x, y)
    with pytest.raises(ValueError, match="needs prediction and target of one shape"):
        losses.Perceptual(network)(x, y[:1])
    with pytest.raises(ValueError, match="reduction must be mean, sum or none, got 'men'"):
        losses.Perceptual(network, reduction="men")
