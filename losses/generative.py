"""Losses of generative models: adversarial pairs, and the divergence of an autoencoder's code.

In the formulas r are the discriminator's scores of real items and f those of generated ones, as
many of each; the scores are log-odds or, for a critic, plain numbers, one or a map of them per
item. Each loss is minimised by its own network: the discriminator steps on generated items without
a gradient into the generator (`fake.detach()`), the generator steps with the discriminator fixed.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.core import loss

PAIR = {"real": "float N ...", "fake": "float N ..."}
FAKE = {"fake": "float N ..."}


def _scores(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A map of 2 by 3 scores for each of 7 real and 7 generated items."""
    real, fake = torch.randn(2, 7, 2, 3, generator=generator, dtype=torch.float64)
    return real, fake


def _fakes(generator: torch.Generator) -> tuple[Tensor]:
    return _scores(generator)[1:]


def _codes(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    mean, log_variance = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    return mean, log_variance


@loss(
    "gan_discriminator",
    target="fields",
    fields=PAIR,
    example=_scores,
    source="Goodfellow et al. 2014, arXiv:1406.2661, eq. 1",
)
def gan_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    r"""Binary cross-entropy of real against generated,
    :math:`-\log \sigma(r) - \log(1 - \sigma(f))`.

    The paper's value function with its sign turned, for the discriminator maximises it. A
    discriminator that cannot tell, all scores 0, costs log 4.

    Args:
        real: log-odds of real items being real, float [N, ...].
        fake: log-odds of generated items being real, float [N, ...].
    """
    return F.softplus(-real) + F.softplus(fake)


@loss(
    "gan_generator",
    target="fields",
    fields=FAKE,
    example=_fakes,
    source="Goodfellow et al. 2014, arXiv:1406.2661, section 3",
)
def gan_generator(fake: Tensor) -> Tensor:
    r"""The form that does not saturate, :math:`-\log \sigma(f)`.

    What the paper trains with, and the one to use: its gradient is largest where the discriminator
    sees through the generated item.

    Args:
        fake: log-odds of generated items being real, float [N, ...].
    """
    return F.softplus(-fake)


@loss(
    "gan_generator_saturating",
    target="fields",
    fields=FAKE,
    example=_fakes,
    source="Goodfellow et al. 2014, arXiv:1406.2661, eq. 1",
    minimum=None,
    saturating="the gradient vanishes where the discriminator is sure that an item is generated",
)
def gan_generator_saturating(fake: Tensor) -> Tensor:
    r"""The generator's side of the minimax game, :math:`\log(1 - \sigma(f))`.

    For theory and comparison: it has no gradient at the start, when generated items are easy to
    tell. :func:`gan_generator` has the same fixed point.

    Args:
        fake: log-odds of generated items being real, float [N, ...].
    """
    return -F.softplus(fake)


@loss(
    "lsgan_discriminator",
    target="fields",
    fields=PAIR,
    example=_scores,
    source="Mao et al. 2016, arXiv:1611.04076, eq. 2",
)
def lsgan_discriminator(
    real: Tensor, fake: Tensor, *, real_label: float = 1.0, fake_label: float = 0.0
) -> Tensor:
    r"""Squared error of the scores, :math:`\frac12 (r - b)^2 + \frac12 (f - a)^2`.

    Least squares also pull on items that lie on the right side and far from the others.

    Args:
        real: scores of real items, float [N, ...].
        fake: scores of generated items, float [N, ...].
        real_label: b, the score of real items.
        fake_label: a, the score of generated items.
    """
    return ((real - real_label).square() + (fake - fake_label).square()) / 2


@loss(
    "lsgan_generator",
    target="fields",
    fields=FAKE,
    example=_fakes,
    source="Mao et al. 2016, arXiv:1611.04076, eq. 2",
)
def lsgan_generator(fake: Tensor, *, wanted: float = 1.0) -> Tensor:
    r"""Squared error of the scores, :math:`\frac12 (f - c)^2`.

    Args:
        fake: scores of generated items, float [N, ...].
        wanted: c, what the generator wants them to be: b, or (a + b) / 2 for the paper's Pearson
            divergence (b - c = 1 and b - a = 2).
    """
    return (fake - wanted).square() / 2


@loss(
    "wgan_critic",
    target="fields",
    fields=PAIR,
    example=_scores,
    source="Arjovsky et al. 2017, arXiv:1701.07875, eq. 2",
    minimum=None,
)
def wgan_critic(real: Tensor, fake: Tensor) -> Tensor:
    r"""Difference of scores, :math:`f - r`.

    Minus its mean estimates the Wasserstein distance if the critic is 1-Lipschitz, and means
    nothing otherwise: clip its weights, or add :func:`gradient_penalty`.

    Args:
        real: scores of real items, float [N, ...].
        fake: scores of generated items, float [N, ...].
    """
    return fake - real


@loss(
    "wgan_generator",
    target="fields",
    fields=FAKE,
    example=_fakes,
    source="Arjovsky et al. 2017, arXiv:1701.07875, eq. 2",
    minimum=None,
)
def wgan_generator(fake: Tensor) -> Tensor:
    r"""The critic's score, :math:`-f`.

    Args:
        fake: scores of generated items, float [N, ...].
    """
    return -fake


@loss(
    "hinge_discriminator",
    target="fields",
    fields=PAIR,
    example=_scores,
    source="Lim & Ye 2017, arXiv:1705.02894",
)
def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    r"""Hinge on both sides, :math:`\max(0, 1 - r) + \max(0, 1 + f)`.

    Scores beyond the margin do not pull. Its subgradient at the kinks is 0.

    Args:
        real: scores of real items, float [N, ...].
        fake: scores of generated items, float [N, ...].
    """
    return F.relu(1 - real) + F.relu(1 + fake)


@loss(
    "hinge_generator",
    target="fields",
    fields=FAKE,
    example=_fakes,
    source="Lim & Ye 2017, arXiv:1705.02894",
    minimum=None,
)
def hinge_generator(fake: Tensor) -> Tensor:
    r"""The discriminator's score, :math:`-f`, as :func:`wgan_generator`.

    Args:
        fake: scores of generated items, float [N, ...].
    """
    return -fake


@loss(
    "vae_kl",
    target="fields",
    fields={"mean": "float N D ...", "log_variance": "float N D ..."},
    example=_codes,
    source="Kingma & Welling 2013, Auto-encoding variational Bayes, appendix B",
    unbounded="the variance is the exponential of what the encoder says",
)
def vae_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    r"""Divergence of the code's normal distribution from the standard one,
    :math:`\frac12 \sum_d \mu_d^2 + e^{v_d} - 1 - v_d`.

    One value per item, the sum over all its latent dimensions in nats. Added to a reconstruction
    term that is also a sum over an item's elements it gives the evidence bound; a term's weight
    other than 1 makes it a beta-VAE.

    Args:
        mean: :math:`\mu`, float [N, D, ...].
        log_variance: v, logarithm of the variance, float [N, D, ...].
    """
    # expm1 keeps the digits near the optimum, v = 0
    return (mean.square() + torch.expm1(log_variance) - log_variance).flatten(1).sum(1) / 2


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    *,
    norm: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Mean of :math:`(\lVert \nabla D(z) \rVert_2 - 1)^2` at points z between real and generated.

    Every z is u x + (1 - u) y of one real x and one generated y, with u uniform. It keeps a critic
    near 1-Lipschitz; the paper adds it ten times to :func:`wgan_critic`. The gradient is taken per
    item, so the critic must not mix items (no batch normalisation). It is differentiable with
    respect to the critic's parameters, and no registered loss, for it calls the critic.

    Args:
        critic: from items [N, D, ...] to scores [N, ...]; the scores of one item are summed.
        real: float [N, D, ...].
        fake: float [N, D, ...]; no gradient reaches it, nor `real`.
        norm: the length that costs nothing.
        generator: of the random numbers u; torch's global one otherwise.

    Returns:
        A scalar; 0 for no items.

    Raises:
        ValueError: real and fake differ in shape.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3
    """
    if real.shape != fake.shape:
        raise ValueError(
            f"gradient_penalty needs real and fake of one shape; "
            f"got {list(real.shape)} and {list(fake.shape)}"
        )
    size = (len(real), *[1] * (real.ndim - 1))
    share = torch.rand(size, generator=generator, dtype=real.dtype, device=real.device)
    with torch.enable_grad():
        between = torch.lerp(fake.detach(), real.detach(), share).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    squares = slope.float() if slope.dtype in (torch.float16, torch.bfloat16) else slope
    squares = squares.square().flatten(1).sum(1)
    flat = squares == 0  # the root has no gradient there
    lengths = torch.where(flat, 0, torch.where(flat, 1, squares).sqrt())
    return (lengths - norm).square().sum() / max(len(real), 1)
