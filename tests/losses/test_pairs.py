"""Adversarial losses come in pairs, and a step of one player leaves the other as it was."""

import copy
import math

import pytest
import torch
from torch import nn

import losses

PLAYERS = ("_discriminator", "_critic")
PAIRS = [
    (judge, name)
    for judge in losses.names()
    for name in losses.names()
    if judge.endswith(PLAYERS) and name.startswith(f"{judge.rpartition('_')[0]}_generator")
]


def test_every_player_has_its_opponent():
    judges = {name for name in losses.names() if name.endswith(PLAYERS)}
    generators = {name for name in losses.names() if "_generator" in name}
    assert {judge for judge, _ in PAIRS} == judges
    assert {generator for _, generator in PAIRS} == generators
    assert {judge.rpartition("_")[0] for judge in judges} == {"gan", "lsgan", "wgan", "hinge"}


def state(net):
    return copy.deepcopy(net.state_dict())


def same(net, before):
    return all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("penalty", [False, True])
@pytest.mark.parametrize(("judge_loss", "generator_loss"), PAIRS)
def test_steps_touch_only_their_own_parameters(judge_loss, generator_loss, penalty):
    """Adam has a memory, so what must not move must have no gradient at all, not a zero."""
    torch.manual_seed(0)
    generator, judge = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    steps = [torch.optim.Adam(net.parameters(), lr=0.1) for net in (judge, generator)]
    for _ in range(3):
        real, fake = torch.randn(8, 3), generator(torch.randn(8, 2))
        before = state(generator), state(judge)
        steps[0].zero_grad()
        cost = losses.build(judge_loss)(judge(real), judge(fake.detach()))
        (cost + (losses.gradient_penalty(judge, real, fake) if penalty else 0)).backward()
        assert all(p.grad is None for p in generator.parameters())
        steps[0].step()
        assert same(generator, before[0])
        assert not same(judge, before[1])
        before = state(judge)
        steps[1].zero_grad()
        judge.requires_grad_(False)
        losses.build(generator_loss)(judge(fake)).backward()
        steps[1].step()
        judge.requires_grad_(True)
        assert same(judge, before)
        assert all(p.grad.any() for p in generator.parameters())
        generator.zero_grad()


def test_a_judge_that_cannot_tell_is_at_the_value_of_the_game():
    """Goodfellow's theorem 1: at equal distributions the best discriminator says 1/2: -log 4."""
    nothing = torch.zeros(6, dtype=torch.float64)
    value = -losses.gan_discriminator(nothing, nothing).item()
    assert value == pytest.approx(-math.log(4), rel=1e-15)
    # the same at the best discriminator of any two distributions: -log 4 + 2 JS
    p, q = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]], dtype=torch.float64)
    best = (p / q).log()
    costs = [
        losses.build(name, reduction="none") for name in ("gan_discriminator", "gan_generator")
    ]
    real, fake = costs[1](best), costs[0](torch.full_like(best, 1e9), best)
    game = -(p * real).sum() - (q * fake).sum()
    mixed = (p + q) / 2
    divergence = ((p * (p / mixed).log()).sum() + (q * (q / mixed).log()).sum()) / 2
    assert game.item() == pytest.approx(-math.log(4) + 2 * divergence.item(), rel=1e-12)


@pytest.mark.parametrize(("judge_loss", "generator_loss"), PAIRS)
def test_the_players_want_opposite_things(judge_loss, generator_loss):
    """What raises the scores of generated items pleases one and displeases the other."""
    real, fake = torch.zeros(5), torch.linspace(-0.9, 0.9, 5).requires_grad_()
    for_judge = torch.autograd.grad(losses.build(judge_loss, reduction="sum")(real, fake), fake)[0]
    given = losses.build(generator_loss, reduction="sum")(fake)
    for_generator = torch.autograd.grad(given, fake)[0]
    if judge_loss == "lsgan_discriminator":  # it wants generated items at 0, not below
        assert (for_judge.sign() == fake.detach().sign()).all()
    else:
        assert (for_judge > 0).all()
    assert (for_generator < 0).all()


@pytest.mark.parametrize("penalty", [0.0, 10.0])
@pytest.mark.parametrize(("judge_loss", "generator_loss"), PAIRS)
def test_an_adversary_moves_one_player_at_a_time(judge_loss, generator_loss, penalty):
    """Nothing has to be detached, frozen or zeroed by whoever trains, running means included."""
    torch.manual_seed(0)
    generator = nn.Linear(2, 3)
    layers = [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)]
    judge = nn.Sequential(*layers, *([] if penalty else [nn.BatchNorm1d(1)]))
    game = judge_loss.rpartition("_")[0]
    adversary = losses.Adversary(judge, game, generator=generator_loss, penalty=penalty)
    steps = {net: torch.optim.Adam(net.parameters(), lr=0.1) for net in (judge, generator)}
    for _ in range(3):
        before = state(generator), state(judge)
        adversary.judge_loss(torch.randn(8, 3), generator(torch.randn(8, 2))).backward()
        assert all(p.grad is None for p in generator.parameters())
        steps[judge].step()
        assert same(generator, before[0])
        assert not same(judge, before[1])
        steps[judge].zero_grad()
        before = state(judge)
        adversary.generator_loss(generator(torch.randn(8, 2))).backward()
        assert all(p.grad is None for p in judge.parameters())
        steps[generator].step()
        assert same(judge, before)
        steps[generator].zero_grad()


def test_an_adversary_computes_the_registered_losses():
    torch.manual_seed(1)
    judge, real = nn.Linear(3, 1), torch.randn(6, 3)
    fake = torch.randn(6, 3, requires_grad=True)
    adversary = losses.Adversary(judge, "lsgan", generator_settings={"wanted": 0.5})
    expected = losses.lsgan_discriminator(judge(real), judge(fake.detach()))
    assert torch.equal(adversary.judge_loss(real, fake), expected)
    value = adversary.generator_loss(fake)
    assert torch.equal(value, losses.lsgan_generator(judge(fake), wanted=0.5))
    (slope,) = torch.autograd.grad(value, fake)
    (expected,) = torch.autograd.grad(losses.lsgan_generator(judge(fake), wanted=0.5), fake)
    torch.testing.assert_close(slope, expected)
    drawn = [torch.Generator().manual_seed(2) for _ in range(2)]
    critic = losses.Adversary(judge, "wgan", penalty=10)
    plain = losses.wgan_critic(judge(real), judge(fake.detach()))
    added = losses.gradient_penalty(judge, real, fake, generator=drawn[0])
    torch.testing.assert_close(critic.judge_loss(real, fake, drawn[1]), plain + 10 * added)


@pytest.mark.parametrize(
    ("game", "given", "message"),
    [
        ("wgann", {}, "there is no game 'wgann'; did you mean 'wgan'?"),
        ("gan", {"generator": "wgan_generator"}, "is no generator's loss of the game gan"),
        ("gan", {"generator": "gan_generator_satur"}, "there is no loss 'gan_generator_satur'"),
        ("gan", {"penalty": -1}, "Adversary.penalty must be >= 0, got -1"),
        ("gan", {"generator_settings": {"wanted": 1}}, "gan_generator has no parameter 'wanted'"),
    ],
)
def test_a_game_that_cannot_be_played_is_refused(game, given, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        losses.Adversary(nn.Linear(1, 1), game, **given)
    assert message in str(raised.value)
