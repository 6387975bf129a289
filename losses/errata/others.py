"""Errata of embeddings, policies, adversaries, and of optimisation itself."""

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.errata.erratum import Erratum
from losses.module import build
from losses.penalty import l2

CLIP = 0.2


def _surrogate_as_printed(ratio: Tensor, advantage: Tensor) -> Tensor:
    clipped = ratio.clip(1 - CLIP, 1 + CLIP)
    return torch.min(ratio * advantage, clipped * advantage).mean()


def _surrogate(ratio: Tensor, advantage: Tensor) -> Tensor:
    """As a loss: the larger of two costs, with the ratio held on the side that would gain."""
    gains = torch.where(advantage > 0, ratio.clamp(max=1 + CLIP), ratio.clamp(min=1 - CLIP))
    return -(gains * advantage).mean()


def _our_surrogate(ratio: Tensor, advantage: Tensor) -> Tensor:
    before = torch.zeros_like(ratio)
    value: Tensor = build("ppo_clip", clip=CLIP)(ratio.log(), before, advantage)
    return value


def _decayed(weight: Tensor, strength: Tensor, rate: Tensor) -> Tensor:
    """One step of gradient descent on the penalty alone, as torch takes it."""
    moved = weight.clone().requires_grad_()
    moved.grad = torch.zeros_like(weight)
    torch.optim.SGD([moved], lr=rate.item(), weight_decay=strength.item()).step()
    return moved.detach()


def _our_decayed(weight: Tensor, strength: Tensor, rate: Tensor) -> Tensor:
    moved = weight.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(strength * l2(moved, half=True), moved)
    return weight - rate * gradient


def _differences(x: Tensor, c: Tensor, h: Tensor) -> Tensor:
    """Central differences of the cross-entropy, in the float32 that networks are trained in."""
    steps = (h * torch.eye(len(x), dtype=x.dtype)).float()
    x = x.float()
    rises = [F.cross_entropy(x + step, c) - F.cross_entropy(x - step, c) for step in steps]
    return torch.stack(rises).double() / (2 * h)


def _our_gradient(x: Tensor, c: Tensor, _: Tensor) -> Tensor:
    moved = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(build("cross_entropy")(moved[None], c[None]), moved)
    return gradient


OTHERS = (
    Erratum(
        name="contrastive_label",
        note="B",
        place="contrastive loss, with Y = 1 for similar pairs",
        printed=r"\frac12(1-Y)D^2 + \frac12 Y\max(0, m - D)^2",
        right=r"\frac12 Y D^2 + \frac12(1-Y)\max(0, m - D)^2,\ Y = 1 \text{ similar}",
        authority="Hadsell et al. 2006, eq. 4, whose Y is 1 for dissimilar pairs",
        example="a similar pair at distance D = 3, margin m = 1",
        inputs=(3.0, 1, 1.0),
        as_printed=lambda d, y, m: (1 - y) * d**2 / 2 + y * (m - d).clamp(min=0) ** 2 / 2,
        reference=lambda d, y, m: torch.where(y == 1, d**2, F.relu(m - d) ** 2) / 2,
        consequence="Similar pairs are pushed apart up to the margin and cost nothing beyond it, "
        "dissimilar ones are pulled together.",
        loss="contrastive",
        ours=lambda d, y, m: build("contrastive", margin=m.item())(
            d.reshape(1, 1), torch.zeros(1, 1, dtype=d.dtype), y[None]
        ),
    ),
    Erratum(
        name="ppo_sign",
        note="B",
        place="PPO loss",
        printed=r"\mathbb{E}\left[\min(r A,\ \mathrm{clip}(r, 1-\epsilon, 1+\epsilon) A)\right]",
        right=r"-\mathbb{E}\left[\min(r A,\ \mathrm{clip}(r, 1-\epsilon, 1+\epsilon) A)\right]",
        authority="Schulman et al. 2017, arXiv:1707.06347, eq. 7, which is maximised",
        example="ratio 1.1, advantage 1, ε = 0.2",
        inputs=((1.1,), (1.0,)),
        as_printed=_surrogate_as_printed,
        reference=_surrogate,
        consequence="Minimised, it makes actions that turned out well less likely.",
        loss="ppo_clip",
        ours=_our_surrogate,
    ),
    Erratum(
        name="gan_value",
        note="A and B",
        place="minimax and adversarial loss",
        printed=r"\log D(x) + \log(1 - D(G(z)))",
        right=r"L_D = -\log D(x) - \log(1 - D(G(z))),\ L_G = -\log D(G(z))",
        authority="Goodfellow et al. 2014, arXiv:1406.2661, section 3: D maximises it",
        example="D(x) = 0.9, D(G(z)) = 0.001; the right value is the discriminator's",
        inputs=(0.9, 0.001),
        as_printed=lambda real, fake: real.log() + (1 - fake).log(),
        reference=lambda real, fake: (
            F.binary_cross_entropy(real, torch.ones_like(real))
            + F.binary_cross_entropy(fake, torch.zeros_like(fake))
        ),
        consequence="A discriminator that minimises it learns to call real items fake, and a "
        "generator that is found out gets almost no gradient.",
        loss="gan_discriminator",
        ours=lambda real, fake: build("gan_discriminator")(
            real.logit().reshape(1, 1), fake.logit().reshape(1, 1)
        ),
    ),
    Erratum(
        name="decay_update",
        note="C",
        place="L2 regularisation, `W += -lambda * W`",
        printed=r"w \leftarrow w - \lambda w",
        right=r"w \leftarrow w - \eta\lambda w",
        authority="gradient descent; for Adam: Loshchilov & Hutter 2019, arXiv:1711.05101",
        example="w = (1, 10), λ = 0.1, learning rate η = 0.01",
        inputs=((1.0, 10.0), 0.1, 0.01),
        as_printed=lambda w, strength, _: w - strength * w,
        reference=_decayed,
        consequence="It decays 1/η times too fast, and Adam does nothing of the kind: from a "
        "weight of 1 and from one of 10 the penalty takes the same step.",
        loss="l2",
        ours=_our_decayed,
    ),
    Erratum(
        name="numerical_gradients",
        note="A",
        place="how gradients are found in practice",
        printed=r"f'(x_0) = \frac{f(x_0+h) - f(x_0-h)}{2h}",
        right=r"\partial L/\partial x_j = \mathrm{softmax}(x)_j - y_j",
        authority="reverse-mode differentiation, Baydin et al. 2018, arXiv:1502.05767",
        example="cross-entropy in float32, scores (2, 1, 0), the first true, h = 1e-8",
        inputs=((2.0, 1.0, 0.0), 0, 1e-8),
        as_printed=_differences,
        reference=lambda x, c, _: x.softmax(0) - F.one_hot(c, len(x)),
        consequence="The step vanishes in rounding and so does the gradient; with the best of "
        "steps it is still 10 times farther off than what frameworks compute.",
        loss="cross_entropy",
        ours=_our_gradient,
    ),
)
