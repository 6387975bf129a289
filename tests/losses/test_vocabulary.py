"""Losses of very many classes against trees walked by hand; they are distributions; the trees."""

import copy
import heapq
import itertools
import math
import re

import numpy as np
import pytest
import torch

import losses
from losses.conformance import check
from losses.vocabulary import huffman_paths, tree_nodes
from tests.losses.named import STEP, TOLERANCE, draw

# References take the loss's tensors as arrays, its own behind the fields.


def log_softmax(scores):
    return scores - np.logaddexp.reduce(scores)


def hierarchical_softmax(hidden, target, nodes):
    """Walks up to the root; the leaves are numbered after the inner nodes, level by level."""
    values = []
    for features, label in zip(hidden, target, strict=True):
        node, total = label + len(nodes), 0.0
        while node > 0:
            parent = (node - 1) // 2
            sign = 1 if node == 2 * parent + 2 else -1
            total += math.log(1 + math.exp(-sign * features @ nodes[parent]))
            node = parent
        values.append(total)
    return np.array(values)


def huffman_softmax(hidden, target, nodes, paths):
    values = []
    for features, label in zip(hidden, target, strict=True):
        total = 0.0
        for step in paths[label]:
            if step == 0:
                break
            right = 1 / (1 + math.exp(-features @ nodes[abs(step) - 1]))
            total -= math.log(right if step > 0 else 1 - right)
        values.append(total)
    return np.array(values)


def two_level_softmax(hidden, target, groups, members):
    size = math.ceil(len(members) / len(groups))
    values = []
    for features, label in zip(hidden, target, strict=True):
        start = label - label % size
        inside = [features @ vector for vector in members[start : start + size]]
        first = log_softmax(np.array([features @ vector for vector in groups]))
        values.append(-first[label // size] - log_softmax(np.array(inside))[label % size])
    return np.array(values)


def adaptive_softmax(hidden, target, head, down, tails, cutoffs=(1, 2, 4), shrink=4):
    values = []
    for features, label in zip(hidden, target, strict=True):
        first = log_softmax(head @ features)
        if label < cutoffs[0]:
            values.append(-first[label])
            continue
        row = place = 0
        for group, (low, high) in enumerate(itertools.pairwise(cutoffs)):
            width = max(1, len(features) // shrink ** (group + 1))
            if low <= label < high:
                small = down[row : row + width] @ features
                table = tails[place : place + width * (high - low)].reshape(-1, width)
                inner = log_softmax(table @ small)
                values.append(-first[cutoffs[0] + group] - inner[label - low])
            row, place = row + width, place + width * (high - low)
    return np.array(values)


REFERENCES = {
    "hierarchical_softmax": hierarchical_softmax,
    "huffman_softmax": huffman_softmax,
    "two_level_softmax": two_level_softmax,
    "adaptive_softmax": adaptive_softmax,
}
SIZES = {
    "hierarchical_softmax": {"classes": 7},
    "huffman_softmax": {"class_counts": [4.0, 0.0, 9.0, 1.0, 1.0, 30.0, 2.0]},
    "two_level_softmax": {"classes": 7},
    "adaptive_softmax": {"cutoffs": [2, 3, 7], "shrink": 2},
}
ADAPTIVE = [([7], 4), ([1, 7], 4), ([2, 3, 7], 2), ([1, 2, 3, 7], 3)]


def module(name, **sizes):
    """The loss with its own tensors from a fixed seed, twice as long as at a start of training."""
    torch.manual_seed(0)
    made = losses.build(name, features=5, reduction="none", **{**SIZES[name], **sizes}).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2)
    return made


def data(items=9, classes=7):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(items, 5, generator=generator, dtype=torch.float64)
    return hidden, torch.arange(items) % classes


def assert_agrees(name, made, **given):
    """The values are the reference's, and so is the gradient of their sum in whatever is learnt."""
    hidden, target = data()
    own = {key: getattr(made, key) for key in losses.get(name).own}
    tensors = [hidden.requires_grad_(), target, *own.values()]
    values = made(hidden, target)
    arrays = [tensor.detach().numpy() for tensor in tensors]
    np.testing.assert_allclose(values.detach(), REFERENCES[name](*arrays, **given), rtol=1e-9)
    learnt = [i for i, tensor in enumerate(tensors) if tensor.requires_grad and tensor.numel()]
    slopes = torch.autograd.grad(values.sum(), [tensors[i] for i in learnt])
    for i, slope in zip(learnt, slopes, strict=True):
        for index in np.ndindex(slope.shape):
            ends = []
            for step in (STEP, -STEP):
                moved = copy.deepcopy(arrays)
                moved[i][index] += step
                ends.append(REFERENCES[name](*moved, **given).sum())
            expected = (ends[0] - ends[1]) / (2 * STEP)
            assert slope[index].item() == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("name", [name for name in REFERENCES if name != "adaptive_softmax"])
def test_values_and_gradients_are_the_reference(name):
    assert_agrees(name, module(name))


@pytest.mark.parametrize(("cutoffs", "shrink"), ADAPTIVE)
def test_values_and_gradients_of_the_adaptive_softmax_are_the_reference(cutoffs, shrink):
    given = {"cutoffs": cutoffs, "shrink": shrink}
    assert_agrees("adaptive_softmax", module("adaptive_softmax", **given), **given)


def probabilities(made, classes):
    """Of every class, for the same features."""
    hidden = data()[0][:1].expand(classes, 5)
    return (-made(hidden, torch.arange(classes))).exp()


@pytest.mark.parametrize("classes", [2, 3, 5, 16, 33])
@pytest.mark.parametrize("name", REFERENCES)
def test_probabilities_sum_to_1(name, classes):
    cutoffs = sorted({1, max(1, classes // 3), classes})
    sizes = {
        "huffman_softmax": {"class_counts": [1.0 + i * i for i in range(classes)]},
        "adaptive_softmax": {"cutoffs": cutoffs},
    }.get(name, {"classes": classes})
    p = probabilities(module(name, **sizes), classes)
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert (p > 0).all()


@pytest.mark.parametrize("name", REFERENCES)
def test_two_classes_are_logistic_regression(name):
    sizes = {
        "huffman_softmax": {"class_counts": [1.0, 2.0]},
        "adaptive_softmax": {"cutoffs": [2]},
    }.get(name, {"classes": 2})
    made, (hidden, target) = module(name, **sizes), data(classes=2)
    if name in ("hierarchical_softmax", "huffman_softmax"):
        logit = hidden @ made.nodes[0]
        expected = losses.bce(logit, target, reduction="none")
    else:
        table = made.members if name == "two_level_softmax" else made.head
        expected = losses.cross_entropy(hidden @ table.mT, target, reduction="none")
    torch.testing.assert_close(made(hidden, target), expected)


@pytest.mark.parametrize("name", REFERENCES)
def test_it_learns(name):
    torch.manual_seed(0)
    wide = {"shrink": 1} if name == "adaptive_softmax" else {}  # one number parts no four classes
    made = losses.build(name, features=7, **{**SIZES[name], **wide})
    hidden, target = torch.eye(7), torch.arange(7)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.3)
    before = made(hidden, target).item()
    for _ in range(100):
        optimizer.zero_grad()
        made(hidden, target).backward()
        optimizer.step()
    assert made(hidden, target).item() < 0.1 * before


def test_only_the_way_to_a_class_is_touched():
    hidden, _ = draw("hierarchical_softmax")
    nodes = torch.zeros(7, 5, dtype=torch.float64, requires_grad=True)
    losses.hierarchical_softmax(hidden, torch.zeros(7).long(), nodes).backward()
    assert nodes.grad.any(1).tolist() == [True, True, False, True, False, False, False]
    made = module("two_level_softmax")
    torch.autograd.backward(made(hidden, torch.full((7,), 4)).sum())
    assert made.members.grad.any(1).tolist() == [False] * 3 + [True] * 3 + [False]


# Huffman's tree


def shortest(counts):
    """Least total length of all codes: what is merged, summed, in any order of ties."""
    heap, total = sorted(counts), 0.0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


@pytest.mark.parametrize("seed", range(5))
def test_huffman_codes_are_the_shortest_there_are(seed):
    counts = np.random.default_rng(seed).zipf(1.3, 40).clip(max=10**6)
    paths = huffman_paths(class_counts=counts.tolist())
    lengths = (paths != 0).sum(1).numpy()
    assert (lengths * counts).sum() == shortest(counts.tolist())
    assert (0.5**lengths).sum() == 1  # Kraft: no way is wasted
    share = counts / counts.sum()
    entropy = -(share * np.log2(share)).sum()
    assert entropy <= (share * lengths).sum() < entropy + 1
    rarer = counts[:, None] < counts[None]
    assert (lengths[:, None] >= lengths[None])[rarer].all()


def test_huffman_codes_of_few_classes_are_the_best_of_all_trees():
    """Kraft's inequality says which lengths a tree can have; of those all are tried."""
    counts = [7.0, 1.0, 1.0, 3.0, 2.0]
    possible = (
        sum(n * c for n, c in zip(lengths, counts, strict=True))
        for lengths in itertools.product(range(1, 5), repeat=5)
        if sum(0.5**n for n in lengths) <= 1
    )
    lengths = (huffman_paths(class_counts=counts) != 0).sum(1)
    assert (lengths * torch.tensor(counts)).sum() == min(possible)


def test_no_way_is_the_beginning_of_another_and_each_node_has_two_sides():
    counts = [5.0, 5.0, 1.0, 0.0, 12.0, 3.0]
    ways = [[step for step in way if step] for way in huffman_paths(class_counts=counts).tolist()]
    for one, other in itertools.permutations(ways, 2):
        assert other[: len(one)] != one
    assert {step for way in ways for step in way} == {
        sign * n for n in range(1, 6) for sign in (-1, 1)
    }


def test_equal_counts_of_a_power_of_two_are_the_balanced_tree():
    paths = huffman_paths(class_counts=torch.ones(8))
    assert paths.shape == (8, 3)
    assert (paths != 0).all()


def test_with_the_ways_of_the_balanced_tree_both_are_one():
    hidden, target = data(classes=8)
    nodes = tree_nodes(classes=8, features=5, generator=None).double()
    ways = []
    for leaf in range(8, 16):  # as in a heap, from the root's 1 on
        above = [leaf >> 3 - level for level in range(4)]
        ways.append([b if c == 2 * b + 1 else -b for b, c in itertools.pairwise(above)])
    ours = losses.huffman_softmax(hidden, target, nodes, torch.tensor(ways))
    torch.testing.assert_close(ours, losses.hierarchical_softmax(hidden, target, nodes))


def test_the_tree_is_kept_and_not_learnt():
    made = losses.build("huffman_softmax", class_counts=[1, 2, 3], features=5)
    assert [name for name, _ in made.named_parameters()] == ["nodes"]
    other = losses.build("huffman_softmax", class_counts=[3, 2, 1], features=5)
    assert not torch.equal(other.paths, made.paths)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other.paths, made.paths)
    assert made.double().paths.dtype == torch.int64


# The adaptive softmax


@pytest.mark.parametrize(("cutoffs", "shrink"), ADAPTIVE[1:])
def test_the_adaptive_softmax_is_torchs(cutoffs, shrink):
    features = shrink ** len(cutoffs)  # torch's widths are at least 1 there
    torch.manual_seed(0)
    peer = torch.nn.AdaptiveLogSoftmaxWithLoss(
        features, cutoffs[-1], cutoffs[:-1], div_value=shrink, dtype=torch.float64
    )
    ours = losses.build("adaptive_softmax", cutoffs=cutoffs, shrink=shrink, features=features)
    ours = ours.double()
    with torch.no_grad():
        ours.head.copy_(peer.head.weight)
        ours.down.copy_(torch.cat([tail[0].weight for tail in peer.tail]))
        ours.tails.copy_(torch.cat([tail[1].weight.flatten() for tail in peer.tail]))
    hidden = torch.randn(20, features, dtype=torch.float64, requires_grad=True)
    target = torch.arange(20) % cutoffs[-1]
    expected, value = peer(hidden, target).loss, ours(hidden, target)
    torch.testing.assert_close(value, expected)
    slopes = [torch.autograd.grad(v, hidden)[0] for v in (value, expected)]
    torch.testing.assert_close(*slopes)


def test_without_groups_the_adaptive_softmax_is_cross_entropy():
    made, (hidden, target) = module("adaptive_softmax", cutoffs=[7]), data()
    expected = losses.cross_entropy(hidden @ made.head.mT, target, reduction="none")
    torch.testing.assert_close(made(hidden, target), expected)


@pytest.mark.parametrize("cutoffs", [[1, 4], [2, 4]])
def test_other_cutoffs_conform(cutoffs):
    found = check("adaptive_softmax", cutoffs=cutoffs, shrink=2)
    assert [finding for finding in found if finding.verdict == "fail"] == []


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("adaptive_softmax", {"cutoffs": [3, 3, 5]}, "cutoffs must rise, up to C; got [3, 3, 5]"),
        ("adaptive_softmax", {"cutoffs": []}, "cutoffs must rise, up to C; got []"),
        (
            "adaptive_softmax",
            {"cutoffs": [0, 5]},
            "adaptive_softmax.cutoffs[0] must be >= 1, got 0",
        ),
        ("adaptive_softmax", {}, "adaptive_softmax needs cutoffs"),
        ("huffman_softmax", {"class_counts": [1]}, "class_counts needs two classes, got 1"),
        ("huffman_softmax", {"class_counts": [0, 0]}, "above 0 somewhere, got [0.0, 0.0]"),
        ("huffman_softmax", {}, "huffman_softmax needs class_counts"),
        ("two_level_softmax", {"classes": 1}, "two_level_softmax.classes must be >= 2, got 1"),
    ],
)
def test_clear_errors(name, given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        losses.build(name, features=5, **given)


@pytest.mark.parametrize("name", REFERENCES)
def test_classes_that_are_none_and_features_that_do_not_fit(name):
    made, (hidden, target) = module(name), data()
    for wrong in (7, -1):
        with pytest.raises(ValueError, match=rf"{name} needs target from 0 to 6"):
            made(hidden, torch.where(target == 0, wrong, target))
    with pytest.raises(ValueError, match=rf"{name} needs hidden \[N, D\].*got hidden \[9, 4\]"):
        made(hidden[:, :4], target)
    if name == "adaptive_softmax":
        own = (made.head, made.down, made.tails)
        with pytest.raises(ValueError, match=r"cutoffs=\[2, 7\] needs \[3, 2, 10\] rows in head"):
            losses.adaptive_softmax(hidden, target, *own, cutoffs=[2, 7], shrink=2)
