"""Search and clusters against loops in numpy and against scikit-learn; ties, memory, odd parts."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from harness.retrieval import ClusterInformation, Retrieval
from tests.harness.spine import python

Array = npt.NDArray[Any]
EXACT = 1e-12  # sums of a few hundred float64 numbers in another order


def draw(items: int, classes: int, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Clouds about a random centre per class; classes get unequal numbers of items."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(2 / classes, items) - 1, classes - 1)
    points = rng.normal(size=(classes, 6))[labels] + spread * rng.normal(size=(items, 6))
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(labels)


def searched(embeddings: Tensor, labels: Tensor, **given: Any) -> dict[str, float]:
    """In two batches, as an evaluation has them."""
    metric = Retrieval(**given)
    half = len(labels) // 2
    metric.update(embeddings[:half], labels[:half])
    metric.update(embeddings[half:], labels[half:])
    return {name: float(value) for name, value in metric.compute().items()}


def looped(embeddings: Tensor, labels: Tensor, k: int = 5) -> dict[str, float]:
    """Query by query: everybody else sorted by cosine, other classes first where it ties."""
    points, names = embeddings.double().numpy(), labels.numpy()
    lengths = np.sqrt((points**2).sum(1))
    units = points / np.where(lengths > 0, lengths, 1)[:, None]
    ones, ks, precisions = [], [], []
    for query in range(len(names)):
        others = [i for i in range(len(names)) if i != query]
        number = sum(names[i] == names[query] for i in others)
        if not number:
            continue
        near = {i: round(float((units[query] * units[i]).sum()) * 2**23) for i in others}
        order = sorted(others, key=lambda i: (-near[i], names[i] == names[query]))
        hits = [bool(names[i] == names[query]) for i in order]
        ones.append(hits[0])
        ks.append(any(hits[:k]))
        at = [sum(hits[: i + 1]) / (i + 1) for i in range(number) if hits[i]]
        precisions.append(sum(at) / number)
    means = [float(np.mean(values)) for values in (ones, ks, precisions)]
    return {
        "recall_at_1": means[0], "recall_at_k": means[1], "map_at_r": means[2], "queries": len(ones)
    }  # fmt: skip


def close(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=EXACT), name


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(("items", "classes"), [(60, 3), (120, 30), (150, 140)])
def test_the_search_is_that_of_a_loop(items: int, classes: int, spread: float) -> None:
    embeddings, labels = draw(items, classes, spread=spread)
    for k in (1, 3, 10**6):
        close(searched(embeddings, labels, neighbours=k), looped(embeddings, labels, k))


def test_where_cosines_tie_other_classes_come_first() -> None:
    """Numbers from a coarse grid: most queries have ties, also at a cosine of 1 or 0."""
    rng = np.random.default_rng(1)
    embeddings = torch.from_numpy(rng.integers(-1, 2, (150, 2)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 5, 150))
    ours = searched(embeddings, labels)
    close(ours, looped(embeddings, labels))
    order = torch.from_numpy(rng.permutation(150))
    close(searched(embeddings[order], labels[order]), ours)


def test_right_angles_tie_though_their_sums_have_noise() -> None:
    """A query at right angles to one of its class and to another, who stands nearer to the former:
    products cancel in pairs, but not in the order in which they are added."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        query = rng.standard_normal(12)
        turned = []
        for pairs in (rng.permutation(12).reshape(6, 2) for _ in range(2)):
            other = np.zeros(12)
            other[pairs[:, 0]], other[pairs[:, 1]] = query[pairs[:, 1]], -query[pairs[:, 0]]
            turned.append(other)
        mate, rival = turned
        rival = rival if mate @ rival > 0 else -rival
        embeddings = torch.from_numpy(np.stack([query, mate, rival]))
        assert searched(embeddings, torch.tensor([0, 0, 1]))["recall_at_1"] == 0


def test_the_search_is_that_of_sklearn() -> None:
    embeddings, labels = draw(200, 12)
    k = int(labels.bincount().max())
    finder = NearestNeighbors(n_neighbors=k + 1, metric="cosine", algorithm="brute")
    found = finder.fit(embeddings.double().numpy()).kneighbors(return_distance=False)
    hits = labels.numpy()[found] == labels.numpy()[:, None]
    others = labels.bincount()[labels].numpy() - 1
    asked = others > 0
    ours = searched(embeddings, labels)
    assert ours["recall_at_1"] == pytest.approx(hits[asked, 0].mean(), abs=EXACT)
    assert ours["recall_at_k"] == pytest.approx(hits[asked, :5].any(1).mean(), abs=EXACT)
    precision = hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)
    within = np.arange(hits.shape[1]) < others[:, None]
    at_r = (precision * hits * within).sum(1)[asked] / others[asked]
    assert ours["map_at_r"] == pytest.approx(at_r.mean(), abs=EXACT)


@pytest.mark.parametrize("at_once", [1, 150, 1000, 7 * 150])
def test_chunks_change_nothing(at_once: int) -> None:
    embeddings, labels = draw(150, 20)
    assert searched(embeddings, labels, at_once=at_once) == searched(embeddings, labels)


def test_lengths_do_not_matter_nor_does_the_order() -> None:
    embeddings, labels = draw(150, 20)
    expected = searched(embeddings, labels)
    lengths = torch.linspace(-3, 3, 150).exp().unsqueeze(1)
    close(searched(embeddings * 2 ** lengths.log2().round(), labels), expected)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    close(searched(embeddings[order], labels[order]), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_precision_is_taken(dtype: torch.dtype) -> None:
    embeddings, labels = draw(60, 5)
    given = embeddings.to(dtype)
    close(searched(given, labels), looped(given.double(), labels))


@pytest.mark.parametrize("point", [0.0, 1.0, 1e-30, 1e30])
def test_embeddings_that_have_collapsed_find_nothing(point: float) -> None:
    labels = torch.arange(12) % 3
    embeddings = torch.full((12, 4), point)
    found = searched(embeddings, labels)
    assert found == {"recall_at_1": 0, "recall_at_k": 0, "map_at_r": 0, "queries": 12}
    clusters = ClusterInformation()
    clusters.update(embeddings, labels)
    assert clusters.compute() == 0


def test_an_item_alone_in_its_class_is_no_query_but_is_found() -> None:
    """By cosine the lone item lies between the two others of one class."""
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]])
    found = searched(embeddings, torch.tensor([0, 1, 0]))
    assert found == {"recall_at_1": 0, "recall_at_k": 1, "map_at_r": 0, "queries": 2}
    nothing = searched(embeddings, torch.tensor([0, 1, 2]))
    assert nothing["queries"] == 0
    assert math.isnan(nothing["map_at_r"])


LARGE = """
import resource, torch
from harness.retrieval import Retrieval
torch.set_num_threads(1)
labels = torch.arange(20_000) // 5
noise = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0))
centres = torch.randn(4000, 8, generator=torch.Generator().manual_seed(1))
small = Retrieval()
small.update(centres[labels][:100], labels[:100])
small.compute()
metric = Retrieval()
metric.update(centres[labels] + 1e-4 * noise, labels)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = metric.compute()
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(float(found["map_at_r"]), int(found["queries"]), grown)
"""


def test_twenty_thousand_items_fit_in_memory(tmp_path: Path) -> None:
    """All cosines at once would be 3.2 GB."""
    done = python(["-c", LARGE], tmp_path)
    assert done.returncode == 0, done.stderr
    precision, queries, grown = done.stdout.split()
    assert float(precision) > 0.999  # a few of 4000 random directions nearly coincide
    assert int(queries) == 20_000
    kilobytes = int(grown) / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 400_000


def information(first: Array, second: Array) -> float:
    """Mutual information over the mean of the entropies, counted pair by pair."""

    def entropy(names: list[Any]) -> float:
        shares = [names.count(name) / len(names) for name in set(names)]
        return -sum(share * math.log(share) for share in shares)

    one, two = first.tolist(), second.tolist()
    both = entropy(list(zip(one, two, strict=True)))
    return (entropy(one) + entropy(two) - both) / ((entropy(one) + entropy(two)) / 2)


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_clusters_say_what_a_count_of_pairs_says(spread: float) -> None:
    embeddings, labels = draw(150, 6, spread=spread)
    metric = ClusterInformation()
    for rows in (slice(0, 40), slice(40, None)):
        metric.update(embeddings[rows], labels[rows])
    wide = embeddings.double().numpy()
    units = wide / np.sqrt((wide**2).sum(1, keepdims=True))
    number = len(labels.unique())
    clusters = KMeans(number, n_init=3, random_state=0).fit_predict(units)
    assert float(metric.compute()) == pytest.approx(information(labels.numpy(), clusters), abs=1e-9)


def test_clusters_that_are_the_classes_say_all() -> None:
    embeddings = torch.eye(4).repeat_interleave(5, 0)
    metric = ClusterInformation()
    metric.update(embeddings, torch.arange(20) // 5)
    assert float(metric.compute()) == pytest.approx(1)
    again = ClusterInformation()
    again.update(embeddings, torch.arange(20) % 5)  # each cluster holds one of every class
    assert float(again.compute()) == pytest.approx(0, abs=1e-9)
