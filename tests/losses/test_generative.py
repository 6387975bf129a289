"""Adversarial losses and the code's divergence against numpy, their identities, the penalty."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import losses
from tests.losses.named import assert_agrees, draw


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lsgan_discriminator(real, fake, real_label=1.0, fake_label=0.0):
    return 0.5 * (real - real_label) ** 2 + 0.5 * (fake - fake_label) ** 2


def vae_kl(mean, log_variance):
    variance = np.exp(log_variance)
    return 0.5 * (mean**2 + variance - 1 - log_variance).sum(1)


REFERENCES = {
    "gan_discriminator": lambda r, f: -np.log(sigmoid(r)) - np.log(1 - sigmoid(f)),
    "gan_generator": lambda f: -np.log(sigmoid(f)),
    "gan_generator_saturating": lambda f: np.log(1 - sigmoid(f)),
    "lsgan_discriminator": lsgan_discriminator,
    "lsgan_generator": lambda f, wanted=1.0: 0.5 * (f - wanted) ** 2,
    "wgan_critic": lambda r, f: f - r,
    "wgan_generator": lambda f: -f,
    "hinge_discriminator": lambda r, f: np.maximum(0, 1 - r) + np.maximum(0, 1 + f),
    "hinge_generator": lambda f: -f,
    "vae_kl": vae_kl,
}
CASES = [
    *[(name, {}) for name in REFERENCES],
    ("lsgan_discriminator", {"real_label": 1.0, "fake_label": -1.0}),
    ("lsgan_generator", {"wanted": 0.0}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    assert_agrees(name, REFERENCES[name], *draw(name), **given)


def test_a_discriminator_that_cannot_tell_costs_log_4():
    nothing = torch.zeros(5)
    assert losses.gan_discriminator(nothing, nothing).item() == pytest.approx(math.log(4))
    minimax = losses.gan_generator_saturating(nothing) + losses.gan_generator_saturating(nothing)
    assert minimax.item() == pytest.approx(-math.log(4))


def test_what_the_discriminator_minimises_is_binary_cross_entropy():
    real, fake = draw("gan_discriminator")
    scores = torch.cat([real, fake])
    labels = torch.cat([torch.ones_like(real), torch.zeros_like(fake)])
    ours = losses.gan_discriminator(real, fake)
    torch.testing.assert_close(ours, 2 * losses.bce(scores, labels))


def test_both_generator_losses_pull_the_same_way_but_only_one_where_it_is_needed():
    fake = torch.tensor([-30.0, 0.0, 3.0], requires_grad=True)
    slopes = [
        torch.autograd.grad(loss(fake, reduction="sum"), fake)[0]
        for loss in (losses.gan_generator, losses.gan_generator_saturating)
    ]
    assert all((slope < 0).all() for slope in slopes)
    assert slopes[0][0] == pytest.approx(-1)
    assert slopes[1][0].abs() < 1e-12


@pytest.mark.parametrize("pair", ["gan", "lsgan", "hinge", "wgan"])
def test_each_step_trains_its_own_network(pair):
    torch.manual_seed(0)
    generator, judge = nn.Linear(2, 3), nn.Linear(3, 1)
    fake, real = generator(torch.randn(4, 2)), torch.randn(4, 3)
    name = f"{pair}_{'critic' if pair == 'wgan' else 'discriminator'}"
    losses.build(name)(judge(real), judge(fake.detach())).backward()
    assert generator.weight.grad is None
    assert judge.weight.grad.any()
    judge.zero_grad(set_to_none=True)
    judge.requires_grad_(False)
    losses.build(f"{pair}_generator")(judge(fake)).backward()
    assert judge.weight.grad is None
    assert generator.weight.grad.any()


def test_vae_kl_is_torchs_divergence_of_normals():
    mean, log_variance = draw("vae_kl")
    code = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(code, prior).sum(1)
    values = losses.vae_kl(mean, log_variance, reduction="none")
    torch.testing.assert_close(values, expected)
    assert losses.vae_kl(torch.zeros(3, 2), torch.zeros(3, 2)) == 0


def test_vae_kl_keeps_its_digits_near_the_optimum():
    tiny = torch.full((1, 1), 1e-3)
    expected = 0.5 * (math.expm1(1e-3) - 1e-3)
    assert losses.vae_kl(torch.zeros(1, 1), tiny).item() == pytest.approx(expected, rel=1e-3)


# The gradient penalty


def test_gradient_penalty_of_a_linear_critic_is_exact():
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    real, fake = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0))
    penalty = losses.gradient_penalty(lambda z: z @ weight, real, fake)
    assert penalty.item() == pytest.approx((5 - 1) ** 2)
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * (5 - 1) * torch.tensor([0.6, 0.8]))
    assert losses.gradient_penalty(lambda z: z @ weight, real, fake, norm=5).item() < 1e-9


def test_gradient_penalty_looks_between_real_and_generated():
    """The gradient of half the squared length is the point itself."""
    seen = []

    def critic(z):
        seen.append(z.detach())
        return z.square().sum((1, 2)) / 2

    shape = (200, 2, 3)
    real = torch.full(shape, 3.0, requires_grad=True)
    fake = torch.full(shape, 1.0, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    penalty = losses.gradient_penalty(critic, real, fake, generator=generator)
    assert not torch.autograd.grad(penalty, [real, fake], allow_unused=True)[0]
    (points,) = seen
    assert (points == points[:, :1, :1]).all()  # one number u per item
    assert 1 <= points.min() < 1.1
    assert 2.9 < points.max() <= 3
    expected = (points.square().sum((1, 2)).sqrt() - 1).square().mean()
    torch.testing.assert_close(penalty.detach(), expected)
    again = losses.gradient_penalty(critic, real, fake, generator=torch.Generator().manual_seed(0))
    assert again == penalty


def test_gradient_penalty_trains_a_critic_and_bears_the_edges():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    points = torch.randn(5, 2, dtype=torch.float64)

    def penalty(weight):
        def judge(z):
            return torch.func.functional_call(critic, {"0.weight": weight}, (z,))

        return losses.gradient_penalty(judge, points, points)

    weight = critic[0].weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(penalty, weight)  # real is generated: no randomness
    with torch.no_grad():
        assert losses.gradient_penalty(critic, points, points) > 0
    assert losses.gradient_penalty(critic, points[:0], points[:0]) == 0
    flat = torch.zeros(2, requires_grad=True)
    value = losses.gradient_penalty(lambda z: z @ flat, points.float(), points.float())
    assert value == 1
    assert torch.autograd.grad(value, flat)[0].tolist() == [0, 0]
    with pytest.raises(ValueError, match="needs real and fake of one shape"):
        losses.gradient_penalty(critic, points, points[:2])
