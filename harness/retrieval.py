"""How well items of one class are found by their embeddings: exact search, and clusters.

Every item of a part is a query once, and all others of the part are searched. Near means a small
angle, so lengths do not matter; a zero vector has the cosine 0 with everything. Cosines are
computed in float64 and rounded to steps of 1e-7, far above the noise of the sums, so that what is
equal ties. Where they tie, items of other classes come first: embeddings that have collapsed to a
point find nothing, whatever the order of the items. An item that is the only one of its class has
nothing to find: it is no query, but may be found.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

AT_ONCE = 2**22
"""Cosines held at once, 8 bytes each; what a chunk holds otherwise is in proportion."""


class _Gathering(Metric):
    """A metric of all embeddings of a part together; each process has seen every item."""

    full_state_update = False
    embeddings: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)  # or every item would be there once per process
        self.add_state("embeddings", default=[], dist_reduce_fx=None)
        self.add_state("labels", default=[], dist_reduce_fx=None)

    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Take in a batch: embeddings [N, D], labels int [N] from 0."""
        self.embeddings.append(embeddings.detach())
        self.labels.append(labels)

    def _all(self) -> tuple[Tensor, Tensor]:
        return dim_zero_cat(self.embeddings), dim_zero_cat(self.labels)


class Retrieval(_Gathering):
    r"""Whether an item's nearest others are of its class.

    With :math:`R` others of its class and :math:`r_i` the rank of the i-th of them that is found,
    a query has

    - `recall_at_1`: 1 if its nearest neighbour is of its class, else 0;
    - `recall_at_k`: 1 if any of its k nearest neighbours is;
    - `map_at_r`: :math:`\frac1R \sum_{i:\, r_i \le R} i / r_i`, 1 if its R nearest are the R of its
      class (Musgrave, Belongie & Lim 2020, arXiv:2003.08505, section 4.3).

    Each is averaged over `queries`, the number of items that have another of their class.

    Args:
        neighbours: k.
        at_once: cosines held at once.
    """

    def __init__(self, neighbours: int = 5, at_once: int = AT_ONCE) -> None:
        super().__init__()
        self.neighbours, self.at_once = neighbours, at_once

    def compute(self) -> dict[str, Tensor]:
        """The three metrics and the number of queries; without queries they are not numbers."""
        embeddings, labels = self._all()
        judged = [torch.empty(0, 3, dtype=torch.float64, device=embeddings.device)]
        for ranks, others in _ranks(embeddings, labels, self.neighbours, self.at_once):
            places = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
            first, number = ranks[:, 0], others.unsqueeze(1)
            found = (places <= number) & (ranks <= number)
            precision = torch.where(found, places / ranks.double(), 0).sum(1) / others
            judged.append(torch.stack([first == 1, first <= self.neighbours, precision], 1))
        queries = torch.cat(judged)  # [Q, 3]
        names = ("recall_at_1", "recall_at_k", "map_at_r")
        counted = {"queries": torch.tensor(len(queries))}
        return dict(zip(names, queries.mean(0), strict=True)) | counted


def _ranks(
    embeddings: Tensor, labels: Tensor, neighbours: int, at_once: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunk by chunk of the queries: ranks of the others of a class [c, R], and how many [c].

    Ranks ascend along a row and count from 1; those beyond both R and `neighbours` are only known
    to be beyond. Rows of smaller classes are filled up with what is not to be read.
    """
    counts = labels.bincount()
    sizes, starts = counts[labels], (counts.cumsum(0) - counts)[labels]
    by_class, most = labels.argsort(stable=True), int(counts.max()) - 1
    deep = min(max(most, neighbours), len(labels))
    turns = torch.arange(most + 1, device=labels.device)
    queries = (sizes > 1).nonzero().squeeze(1)
    if not len(queries):
        return
    for rows in torch.split(queries, max(1, at_once // len(labels))):
        near, itself, size = (
            _rounded(_cosines(embeddings, rows, at_once)),
            rows[:, None],
            sizes[rows],
        )
        mates = by_class[(starts[rows, None] + turns).clamp(max=len(labels) - 1)]
        mates = torch.where(turns < size[:, None], mates, itself)  # [c, R + 1], itself among them
        own = near.gather(1, mates).masked_fill(mates == itself, -torch.inf)
        rivals = _largest(near.scatter_(1, mates, -torch.inf), deep)
        own = _largest(own, most).flip(1)
        before = deep - torch.searchsorted(rivals, own.contiguous())  # rivals at least as near
        yield before + turns[1:], size - 1


def _largest(numbers: Tensor, k: int) -> Tensor:
    """The k largest numbers of each row, ascending."""
    if numbers.is_cpu:  # a tenth of the time of torch's topk where k is large
        rest = numbers.shape[1] - k
        return torch.from_numpy(np.sort(np.partition(numbers.numpy(), rest)[:, rest:]))
    return numbers.topk(k).values.flip(1)


def _cosines(embeddings: Tensor, rows: Tensor, at_once: int) -> Tensor:
    """Cosines of some rows with all, float64 [c, N]; the others are made unit vectors in pieces."""
    wanted = unit_vectors(embeddings[rows])
    pieces = torch.split(embeddings, max(1, at_once // embeddings.shape[1]))
    return torch.cat([wanted @ unit_vectors(piece).mT for piece in pieces], 1)


def _rounded(cosines: Tensor) -> Tensor:
    """In steps of 2^-23, as float32, which holds them all."""
    return cosines.mul_(2**23).round_().float()


def unit_vectors(embeddings: Tensor) -> Tensor:
    """Rows [N, D] at length 1, float64; a zero vector stays one."""
    wide = embeddings.double()
    length = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    return wide / torch.where(length > 0, length, 1)


class ClusterInformation(_Gathering):
    """How much clusters of the embeddings say of the classes: normalised mutual information.

    k-means on the unit vectors, with as many clusters as the part has classes, the best of 3 starts
    from one fixed seed. The information of clusters and classes is divided by the arithmetic mean
    of their entropies: 1 if clusters are the classes, about 0 if they know nothing of them.
    """

    def compute(self) -> Tensor:
        """One number; 1 where there is one class only, as scikit-learn has it."""
        from sklearn.cluster import KMeans  # 0.7 s
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.metrics import normalized_mutual_info_score

        embeddings, labels = self._all()
        points: Any = unit_vectors(embeddings).cpu().numpy()
        number = int(labels.bincount().count_nonzero())
        with warnings.catch_warnings():  # fewer different points than clusters is an answer too
            warnings.simplefilter("ignore", ConvergenceWarning)
            clusters = KMeans(number, n_init=3, random_state=0).fit_predict(points)
        # torchmetrics' is off by a few float32 digits, and above 1 with them
        found = normalized_mutual_info_score(labels.cpu(), clusters)
        return torch.tensor(found, dtype=torch.float64)
