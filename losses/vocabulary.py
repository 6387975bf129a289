"""Losses of very many classes, such as the words of a language: a softmax taken in steps.

Each is the negative log-likelihood of a distribution over all C classes that never scores all of
them: a class is a way through a tree, whose branches are the loss's own. What goes in are the
features h of an item, not scores. In next-token prediction every token is an item.
"""

import heapq
import itertools
import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import Bounds, ClassCounts, Count
from losses.core import loss
from losses.inputs import check_counts

Classes = Annotated[int, Bounds(2)]
Generator = torch.Generator | None


def tree_nodes(*, classes: Classes, features: Count, generator: Generator) -> Tensor:
    """A random vector of length about 1 for each inner node of a binary tree, [C - 1, D]."""
    return _vectors(classes - 1, features, generator)


def class_rows(*, classes: Classes, features: Count, generator: Generator) -> Tensor:
    """A random vector of length about 1 for each class, [C, D]."""
    return _vectors(classes, features, generator)


def group_rows(*, classes: Classes, features: Count, generator: Generator) -> Tensor:
    """A random vector for each of about as many groups as a group has classes, [G, D]."""
    size = math.isqrt(classes - 1) + 1  # the root, rounded up
    return _vectors(-(-classes // size), features, generator)


def huffman_nodes(*, class_counts: ClassCounts, features: Count, generator: Generator) -> Tensor:
    """A random vector of length about 1 for each inner node of a Huffman tree, [C - 1, D]."""
    return _vectors(len(_numbers(class_counts)) - 1, features, generator)


def huffman_paths(*, class_counts: ClassCounts) -> Tensor:
    """The way from the root of a Huffman tree to each class, int [C, depth].

    An entry is the number of an inner node, from 1 on, below 0 where the way goes left; 0 follows
    the end. Of subtrees with equal counts the one made first is merged first.

    Raises:
        ValueError: fewer than two classes, or none that occurs.
    """
    counts = _numbers(class_counts)
    heap = [(count, number, [number]) for number, count in enumerate(counts)]
    heapq.heapify(heap)
    ways: list[list[int]] = [[] for _ in counts]
    for node in range(1, len(counts)):
        rare, common = heapq.heappop(heap), heapq.heappop(heap)
        for sign, (_, _, leaves) in ((-1, rare), (1, common)):
            for leaf in leaves:
                ways[leaf].append(sign * node)
        heapq.heappush(heap, (rare[0] + common[0], len(counts) + node, rare[2] + common[2]))
    depth = max(map(len, ways))
    return torch.tensor([way[::-1] + [0] * (depth - len(way)) for way in ways])


def _numbers(class_counts: ClassCounts) -> list[float]:
    path = "huffman_softmax.class_counts"
    check_counts(path, class_counts)
    counts: list[float] = torch.as_tensor(class_counts).tolist()
    if len(counts) < 2:
        raise ValueError(f"{path} needs two classes, got {len(counts)}")
    return counts


def head_rows(*, cutoffs: Sequence[Count], features: Count, generator: Generator) -> Tensor:
    """A random vector for each frequent class and each group of others, [c_1 + K, D]."""
    _check(cutoffs)
    return _vectors(cutoffs[0] + len(cutoffs) - 1, features, generator)


def down_rows(
    *, cutoffs: Sequence[Count], shrink: Count, features: Count, generator: Generator
) -> Tensor:
    """What makes the features of each group smaller, one group below the other, [P, D]."""
    return _vectors(sum(_widths(cutoffs, shrink, features)), features, generator)


def tail_rows(
    *, cutoffs: Sequence[Count], shrink: Count, features: Count, generator: Generator
) -> Tensor:
    """The vectors of the classes of all groups, whose lengths differ, end to end, [T]."""
    sizes = [high - low for low, high in itertools.pairwise(cutoffs)]
    widths = _widths(cutoffs, shrink, features)
    made = [_vectors(n, w, generator).flatten() for n, w in zip(sizes, widths, strict=True)]
    return torch.cat(made) if made else torch.zeros(0)


def _vectors(rows: int, features: int, generator: Generator) -> Tensor:
    return torch.randn(rows, features, generator=generator) / math.sqrt(features)


def _widths(cutoffs: Sequence[int], shrink: int, features: int) -> list[int]:
    """How many features each group after the head is given."""
    return [max(features // shrink**group, 1) for group in range(1, len(cutoffs))]


def _check(cutoffs: Sequence[int]) -> None:
    if not cutoffs or any(high <= low for low, high in itertools.pairwise(cutoffs)):
        raise ValueError(f"adaptive_softmax.cutoffs must rise, up to C; got {list(cutoffs)}")


def _hidden(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """7 items with 5 features in 4 classes, each of which occurs."""
    hidden = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    return hidden, torch.randperm(7, generator=generator) % 4


@loss(
    "hierarchical_softmax",
    target="fields",
    fields={"hidden": "float N D", "nodes": "float B D", "target": "int<=B N"},
    example=_hidden,
    own={"nodes": tree_nodes},
    source="Morin & Bengio 2005, Hierarchical probabilistic neural network language model",
)
def hierarchical_softmax(hidden: Tensor, target: Tensor, nodes: Tensor) -> Tensor:
    r"""Negative log-likelihood of the way down a binary tree,
    :math:`-\sum_{b \in \mathrm{path}(t)} \log \sigma(\pm h \cdot v_b)`.

    It looks at about log2 C vectors. Every branch to the right has the sign +. The tree is balanced
    over the order of the classes, whose neighbours share branches: put like next to like. Where
    some classes are far more frequent than others, :func:`huffman_softmax` is shorter.

    Args:
        hidden: h, features of an item, float [N, D].
        target: class indices, int [N].
        nodes: v, a vector for each inner node, float [C - 1, D], the root first.
    """
    # As in a heap: node b has the children 2 b and 2 b + 1, and class t is the leaf C + t.
    classes = nodes.shape[0] + 1
    depth = (2 * classes - 1).bit_length() - 1
    steps = torch.arange(depth, device=target.device)
    children = (target + classes).unsqueeze(1) >> steps  # [N, depth], the leaf first
    return _way(hidden, nodes, torch.where(children & 1 == 1, children >> 1, -(children >> 1)))


@loss(
    "huffman_softmax",
    target="fields",
    fields={
        "hidden": "float N D",
        "nodes": "float B D",
        "paths": "int C T",
        "target": "int<C N",
    },
    example=_hidden,
    own={"nodes": huffman_nodes, "paths": huffman_paths},
    source="Mikolov et al. 2013, arXiv:1310.4546, eq. 3; the tree: Huffman 1952",
)
def huffman_softmax(hidden: Tensor, target: Tensor, nodes: Tensor, paths: Tensor) -> Tensor:
    r"""Negative log-likelihood of the way down a Huffman tree,
    :math:`-\sum_{b \in \mathrm{path}(t)} \log \sigma(\pm h \cdot v_b)`.

    Frequent classes have short ways: no binary tree has a shorter one on average, over the items
    the tree was made from. `losses.build("huffman_softmax", class_counts=counts, features=64)`
    makes tree and vectors; both are kept in the module's state.

    Args:
        hidden: h, features of an item, float [N, D].
        target: class indices, int [N].
        nodes: v, a vector for each inner node, float [C - 1, D].
        paths: the way to each class, int [C, depth], see `losses.vocabulary.huffman_paths`.
    """
    return _way(hidden, nodes, paths[target])


def _way(hidden: Tensor, nodes: Tensor, path: Tensor) -> Tensor:
    """Sum of -log sigma over a way [N, T] of signed node numbers, from 1 on; 0 is no node."""
    vectors = nodes[(path.abs() - 1).clamp(min=0)]  # [N, T, D]
    scores = (vectors * hidden.unsqueeze(1)).sum(2)
    return torch.where(path != 0, -F.logsigmoid(path.sign() * scores), 0).sum(1)


@loss(
    "two_level_softmax",
    target="fields",
    fields={
        "hidden": "float N D",
        "groups": "float G D",
        "members": "float C D",
        "target": "int<C N",
    },
    example=_hidden,
    own={"groups": group_rows, "members": class_rows},
    source="Goodman 2001, Classes for fast maximum entropy training",
)
def two_level_softmax(hidden: Tensor, target: Tensor, groups: Tensor, members: Tensor) -> Tensor:
    r"""Negative log-likelihood of the group and of the class within it,
    :math:`-\log \frac{e^{h \cdot u_{g(t)}}}{\sum_g e^{h \cdot u_g}}
    - \log \frac{e^{h \cdot v_t}}{\sum_{c \in g(t)} e^{h \cdot v_c}}`.

    It looks at about twice the square root of C vectors. Groups are equal runs of classes in their
    order (the last may be shorter), so put like next to like.

    Args:
        hidden: h, features of an item, float [N, D].
        target: class indices, int [N].
        groups: u, a vector for each group, float [G, D].
        members: v, a vector for each class, float [C, D].
    """
    classes = len(members)
    size = -(-classes // len(groups))
    group = target // size
    places = torch.arange(size, device=target.device)
    inside = group.unsqueeze(1) * size + places  # [N, size]
    scores = (members[inside.clamp(max=classes - 1)] * hidden.unsqueeze(1)).sum(2)
    scores = torch.where(inside < classes, scores, -torch.inf)
    first = F.cross_entropy(hidden @ groups.mT, group, reduction="none")
    return first + F.cross_entropy(scores, target % size, reduction="none")


@loss(
    "adaptive_softmax",
    target="fields",
    fields={
        "hidden": "float N D",
        "head": "float H D",
        "down": "float P D",
        "tails": "float T",
        "target": "int N",
    },
    example=_hidden,
    own={"head": head_rows, "down": down_rows, "tails": tail_rows},
    source="Grave et al. 2016, arXiv:1609.04309",
    opaque="only the groups that items belong to are scored, and the target says which",
)
def adaptive_softmax(
    hidden: Tensor,
    target: Tensor,
    head: Tensor,
    down: Tensor,
    tails: Tensor,
    *,
    cutoffs: Sequence[Count],
    shrink: Count = 4,
) -> Tensor:
    r"""Negative log-likelihood with rare classes in groups of smaller vectors,
    :math:`-\log p_t` for a frequent class, :math:`-\log p_{g(t)} - \log p_{t \mid g(t)}` otherwise.

    Number the classes from the most frequent one on. The first have a place in the head's softmax,
    beside one for each group of the others; group k has its own softmax over features shrunk to
    D / shrink^k. It is `torch.nn.AdaptiveLogSoftmaxWithLoss` without biases.

    Args:
        hidden: h, features of an item, float [N, D].
        target: class indices, int [N].
        head: vectors of the frequent classes, then of the groups, float [c_1 + K, D].
        down: what shrinks the features for each group, float [P, D].
        tails: vectors of the classes of all groups, end to end, float [T].
        cutoffs: where the head and each of the K groups ends; the last is C.
        shrink: by how much the features of each group are fewer than those of the one before.

    Raises:
        ValueError: cutoffs that do not rise or do not fit the tensors, a class beyond the last.
    """
    _check(cutoffs)
    widths = _widths(cutoffs, shrink, hidden.shape[1])
    runs = list(itertools.pairwise(cutoffs))
    sizes = [(high - low) * width for (low, high), width in zip(runs, widths, strict=True)]
    wanted, shapes = [cutoffs[0] + len(runs), sum(widths), sum(sizes)], (head, down, tails)
    if wanted != [len(own) for own in shapes]:
        raise ValueError(
            f"adaptive_softmax.cutoffs={list(cutoffs)} needs {wanted} rows in head, down, tails; "
            f"got {', '.join(str(list(own.shape)) for own in shapes)}"
        )
    ends = torch.tensor(cutoffs, device=target.device)
    group = torch.bucketize(target.contiguous(), ends, right=True)
    rows = [(group == k).nonzero().squeeze(1) for k in range(1, len(cutoffs))]
    if sum(map(len, rows)) + len(((group == 0) & (target >= 0)).nonzero()) < len(target):
        raise ValueError(f"adaptive_softmax needs target from 0 to {cutoffs[-1] - 1}")
    place = torch.where(group == 0, target, cutoffs[0] + group - 1)
    values = F.cross_entropy(hidden @ head.mT, place, reduction="none")
    narrow, tables = torch.split(down, widths), torch.split(tails, sizes)
    for index, rule, table, (low, _) in zip(rows, narrow, tables, runs, strict=True):
        scores = hidden[index] @ rule.mT @ table.view(-1, len(rule)).mT
        inner = F.cross_entropy(scores, target[index] - low, reduction="none")
        values = values.index_add(0, index, inner)
    return values
