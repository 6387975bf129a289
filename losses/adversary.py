"""Two players with an objective each: what a generator and its judge minimise, kept apart.

Either player's loss reaches its own network and nothing else of the other's: not a gradient, not
one of zeros (an optimiser with a memory would still move), not a running mean.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from losses.arguments import NonNegative, convert, nearest
from losses.core import names
from losses.generative import gradient_penalty
from losses.module import build

JUDGES = ("_discriminator", "_critic")


class Adversary(nn.Module):
    r"""The judge of a generator, and the two losses of their game.

    Each step of one player is followed by one or more of the other::

        adversary = losses.Adversary(judge, "wgan", penalty=10)
        adversary.judge_loss(real, generator(noise)).backward()   # steps of the judge's optimiser
        adversary.generator_loss(generator(noise)).backward()     # steps of the generator's

    Args:
        judge: from items [N, ...] to scores [N, ...].
        game: `gan`, `lsgan`, `wgan` or `hinge`: the losses `GAME_discriminator` (or `GAME_critic`)
            and `GAME_generator`.
        generator: another of the game's generator losses, such as `gan_generator_saturating`.
        penalty: weight of :func:`losses.gradient_penalty` in the judge's loss.
        judge_settings: parameters of the judge's loss.
        generator_settings: parameters of the generator's loss.

    Raises:
        ValueError: no such game or loss, or a parameter that it does not take.

    Source: Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1
    """

    def __init__(
        self,
        judge: nn.Module,
        game: str,
        *,
        generator: str | None = None,
        penalty: float = 0.0,
        judge_settings: Mapping[str, Any] | None = None,
        generator_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        known = games()
        if game not in known:
            raise ValueError(f"there is no game '{game}'{nearest(game, known)}")
        wanted = generator or f"{game}_generator"
        if not wanted.startswith(f"{game}_generator"):
            raise ValueError(f"{wanted} is no generator's loss of the game {game}")
        self.judge = judge
        self.penalty = convert("Adversary.penalty", NonNegative, penalty)
        self.of_judge = build(known[game], **(judge_settings or {}))
        self.of_generator = build(wanted, **(generator_settings or {}))

    def judge_loss(
        self, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """What the judge minimises, on real and generated items [N, ...], as many of each.

        `generator` draws the points of the gradient penalty, if there is one.
        """
        fake = fake.detach()
        value: Tensor = self.of_judge(self.judge(real), self.judge(fake))
        if self.penalty == 0:
            return value
        penalty = gradient_penalty(self.judge, real, fake, generator=generator)
        return torch.add(value, penalty, alpha=self.penalty)

    def generator_loss(self, fake: Tensor) -> Tensor:
        """What the generator minimises, on its own items [N, ...] with their graph."""
        state = {name: p.detach() for name, p in self.judge.named_parameters()}
        state |= {name: buffer.clone() for name, buffer in self.judge.named_buffers()}
        value: Tensor = self.of_generator(functional_call(self.judge, state, (fake,)))
        return value


def games() -> dict[str, str]:
    """The loss of the judge, by the name of the game."""
    return {name.rpartition("_")[0]: name for name in names() if name.endswith(JUDGES)}
