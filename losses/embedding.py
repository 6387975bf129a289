"""Losses of given pairs and triplets of embeddings, and what all losses of embeddings measure with.

D is the distance between two embeddings: Euclidean, its square, or 1 less the cosine of the angle
between them. Distances between equal points and cosines of a zero vector have no derivative; here
the gradient of such a distance is 0, and a zero vector has the cosine 0 with everything.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import Bounds, NonNegative
from losses.core import loss

Distance = Literal["euclidean", "squared_euclidean", "cosine"]
SMALLEST = 1e-12
"""Length below which a vector has no direction."""


def unit(vectors: Tensor, dim: int = 1) -> Tensor:
    """Vectors along `dim` at length 1; one without direction stays as it is, and so its gradient.

    Not `F.normalize`, whose gradient at a zero vector is 1e12.
    """
    return vectors / _length(vectors, dim).unsqueeze(dim)


def cosine_of(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the angle between each row [N, D] and the other's row, [N]; 0 for a zero vector."""
    return (first * second).sum(1) / (_length(first, 1) * _length(second, 1))


def _length(vectors: Tensor, dim: int) -> Tensor:
    """Length to divide by: 1 where there is no direction."""
    length = torch.linalg.vector_norm(vectors, dim=dim)
    return torch.where(length > SMALLEST, length, 1)


def distance_of(first: Tensor, second: Tensor, kind: Distance) -> Tensor:
    """Distance of each row [N, D] to the other's row, [N]; at equal points its gradient is 0."""
    if kind == "cosine":
        return 1 - cosine_of(first, second)
    if kind == "squared_euclidean":
        return (first - second).square().sum(1)
    euclidean: Tensor = torch.linalg.vector_norm(first - second, dim=1)
    return euclidean


def _triplets(generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(torch.randn(3, 7, 5, generator=generator, dtype=torch.float64))


def _pairs(generator: torch.Generator) -> tuple[Tensor, ...]:
    first, second = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64)
    return first, second, torch.randint(2, (7,), generator=generator)


PAIRS = {"first": "float N D", "second": "float N D", "similar": "int N"}
TRIPLETS = {"anchor": "float N D", "positive": "float N D", "negative": "float N D"}


@loss(
    "triplet",
    target="fields",
    source="Schroff, Kalenichenko & Philbin 2015, FaceNet, with squared distances; "
    "Weinberger & Saul 2009, Distance metric learning for large margin nearest neighbor",
    fields=TRIPLETS,
    example=_triplets,
)
def triplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: NonNegative = 1.0,
    distance: Distance = "euclidean",
) -> Tensor:
    r"""How much nearer the positive should be, :math:`\max(0, D(a, p) - D(a, n) + m)`.

    For triplets that somebody has chosen; :func:`losses.batch_hard` finds hard ones in a batch. It
    is 0 once the negative is farther away by the margin, and collapsed embeddings cost the margin.
    FaceNet takes unit vectors, squared distances and a margin of 0.2.

    Args:
        anchor: embeddings, float [N, D].
        positive: embeddings of the same kind as the anchor in their row, float [N, D].
        negative: embeddings of another kind, float [N, D].
        margin: m, in units of the distance.
        distance: `euclidean`, `squared_euclidean`, or `cosine` for 1 less the cosine.
    """
    near = distance_of(anchor, positive, distance)
    far = distance_of(anchor, negative, distance)
    return F.relu(near - far + margin)


@loss(
    "contrastive",
    target="fields",
    source="Hadsell, Chopra & LeCun 2006, Dimensionality reduction by learning an invariant "
    "mapping, eq. 4",
    fields=PAIRS,
    limits={"similar": Bounds(0, 1)},
    example=_pairs,
)
def contrastive(
    first: Tensor, second: Tensor, similar: Tensor, *, margin: NonNegative = 1.0
) -> Tensor:
    r"""Similar pairs pulled together, others apart, :math:`\frac12 s D^2 + \frac12 (1 - s)
    \max(0, m - D)^2`.

    D is the Euclidean distance. The paper's Y is 1 for dissimilar pairs: here s says what it is.
    A dissimilar pair of equal embeddings has no direction to part in, and its gradient is 0.

    Args:
        first: embeddings, float [N, D].
        second: embeddings, float [N, D].
        similar: s, 1 where a pair belongs together and 0 where it does not, int [N].
        margin: m, the distance beyond which a dissimilar pair costs nothing.
    """
    apart = F.relu(margin - distance_of(first, second, "euclidean")).square()
    return torch.where(similar == 1, distance_of(first, second, "squared_euclidean"), apart) / 2


@loss(
    "cosine_embedding",
    target="fields",
    source="torch, nn.CosineEmbeddingLoss",
    fields=PAIRS,
    limits={"similar": Bounds(0, 1)},
    example=_pairs,
)
def cosine_embedding(
    first: Tensor,
    second: Tensor,
    similar: Tensor,
    *,
    margin: Annotated[float, Bounds(-1, 1)] = 0.0,
) -> Tensor:
    r"""Similar pairs turned together, others apart, :math:`s (1 - \cos) + (1 - s)
    \max(0, \cos - m)`.

    Lengths do not matter. A zero vector has the cosine 0 and a gradient of at most 1 in length,
    where torch's function has one of 1e5.

    Args:
        first: embeddings, float [N, D].
        second: embeddings, float [N, D].
        similar: s, 1 where a pair belongs together and 0 where it does not, int [N].
        margin: m, the cosine below which a dissimilar pair costs nothing, from -1 to 1.
    """
    cosine = cosine_of(first, second)
    return torch.where(similar == 1, 1 - cosine, F.relu(cosine - margin))
