"""CTC against all alignments, hierarchical softmax against a tree walked by hand, perplexity."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.text import perplexity as peer_perplexity

import losses
from losses.core import get
from losses.sequence import tree_nodes
from tests.losses.named import STEP, TOLERANCE, assert_agrees, draw


def joined(alignment, blank):
    """Repeats joined, then blanks dropped."""
    kept = [label for label, _ in itertools.groupby(alignment)]
    return [label for label in kept if label != blank]


def ctc(logits, target, frames, symbols, blank=0, zero_infinity=True, per_symbol=False):
    """Sums the probabilities of all alignments, one by one."""
    values = []
    for scores, line, count, length in zip(logits, target, frames, symbols, strict=True):
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        total = 0.0
        for alignment in itertools.product(range(scores.shape[1]), repeat=count):
            if joined(alignment, blank) == line[:length].tolist():
                total += np.prod([p[t, label] for t, label in enumerate(alignment)])
        value = -math.log(total) if total else (0.0 if zero_infinity else math.inf)
        values.append(value / max(length, 1) if per_symbol else value)
    return np.array(values)


def hierarchical_softmax(hidden, target, nodes):
    """Walks down from the root; the leaves are numbered after the inner nodes, level by level."""
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


REFERENCES = {"ctc": ctc, "hierarchical_softmax": hierarchical_softmax}


def lines(blank=0):
    """4 frames over 3 labels: ordinary, a repeat, too short for its repeat, empty."""
    logits = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    target = torch.tensor([[1, 2], [1, 1], [1, 1], [2, 1], [2, 2]])
    target = {0: target, 2: 2 - target}[blank]
    return logits, target, torch.tensor([4, 3, 2, 4, 1]), torch.tensor([2, 2, 2, 0, 1])


@pytest.mark.parametrize(
    "given", [{}, {"blank": 2}, {"per_symbol": True}, {"per_symbol": True, "blank": 2}]
)
def test_ctc_is_the_sum_over_all_alignments(given):
    assert_agrees("ctc", ctc, *lines(given.get("blank", 0)), **given)


def test_ctc_of_an_impossible_line_is_infinite_unless_told_otherwise():
    values = losses.ctc(*lines(), zero_infinity=False, reduction="none")
    np.testing.assert_allclose(values, ctc(*(f.numpy() for f in lines()), zero_infinity=False))
    assert values.isinf().tolist() == [False, False, True, False, False]


def test_ctc_is_torchs_whose_mean_is_per_symbol():
    logits, target, frames, symbols = draw("ctc")
    log_p = logits.log_softmax(2)
    lengths = (frames, symbols)
    values = F.ctc_loss(log_p.transpose(0, 1), target, *lengths, reduction="none")
    ours = losses.ctc(logits, target, *lengths, reduction="none")
    torch.testing.assert_close(ours, values)
    torch.testing.assert_close(losses.ctc(log_p, target, *lengths, reduction="none"), values)
    torch.testing.assert_close(losses.ctc(logits, target, *lengths), values.mean())
    mean = F.ctc_loss(log_p.transpose(0, 1), target, *lengths)
    torch.testing.assert_close(losses.ctc(logits, target, *lengths, per_symbol=True), mean)


def test_ctc_reads_no_further_than_the_lengths():
    logits, target, frames, symbols = draw("ctc")
    expected = losses.ctc(logits, target, frames, symbols)
    beyond = torch.arange(9) >= frames[:, None]
    target = torch.where(torch.arange(3) < symbols[:, None], target, 4)
    changed = torch.where(beyond[:, :, None], 50.0, logits).requires_grad_()
    value = losses.ctc(changed, target, frames, symbols)
    value.backward()
    assert value == expected
    assert not changed.grad[beyond].any()


@pytest.mark.parametrize(
    ("place", "change", "given", "message"),
    [
        (1, 5, {}, "ctc needs target from 0 to 4 (C is 5)"),
        (2, 1, {}, "ctc needs frames from 0 to 9 (T is 9), got values from 6 to 10"),
        (3, 1, {}, "ctc needs symbols from 0 to 3 (S is 3), got values from 1 to 4"),
        (0, 0, {"blank": 5}, "ctc.blank must be below the 5 labels, got 5"),
        (0, 0, {"blank": -1}, "ctc.blank must be >= 0, got -1"),
    ],
)
def test_ctc_says_what_does_not_fit(place, change, given, message):
    fields = list(draw("ctc"))
    fields[place] = fields[place] + change
    with pytest.raises(ValueError, match=re.escape(message)):
        losses.ctc(*fields, **given)


@pytest.mark.parametrize("classes", [2, 3, 4, 7, 8, 9])
def test_hierarchical_softmax_is_the_walk_down_the_tree(classes):
    generator = torch.Generator().manual_seed(classes)
    hidden = torch.randn(classes, 3, generator=generator, dtype=torch.float64)
    nodes = tree_nodes(classes=classes, features=3, generator=generator).double()
    target = torch.arange(classes)
    values = losses.hierarchical_softmax(hidden, target, nodes, reduction="none")
    expected = hierarchical_softmax(hidden.numpy(), target.numpy(), nodes.numpy())
    np.testing.assert_allclose(values, expected, rtol=1e-9)


@pytest.mark.parametrize("classes", [2, 5, 16, 33])
def test_hierarchical_probabilities_sum_to_1(classes):
    generator = torch.Generator().manual_seed(0)
    nodes = 3 * tree_nodes(classes=classes, features=4, generator=generator).double()
    hidden = torch.randn(4, generator=generator, dtype=torch.float64).expand(classes, 4)
    values = losses.hierarchical_softmax(hidden, torch.arange(classes), nodes, reduction="none")
    assert (-values).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_hierarchical_softmax_over_two_classes_is_logistic():
    hidden, target = draw("hierarchical_softmax")
    nodes = torch.randn(1, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = target % 2
    ours = losses.hierarchical_softmax(hidden, target, nodes)
    torch.testing.assert_close(ours, losses.bce(hidden @ nodes[0], target))


def test_gradients_of_the_hierarchical_softmax_are_the_reference():
    hidden, target = draw("hierarchical_softmax")
    nodes = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leaves = [hidden.requires_grad_(), nodes.requires_grad_()]
    losses.hierarchical_softmax(hidden, target, nodes, reduction="sum").backward()
    arrays = [leaf.detach().numpy() for leaf in leaves]
    for place, leaf in enumerate(leaves):
        for index in np.ndindex(leaf.shape):
            ends = []
            for step in (STEP, -STEP):
                moved = [array.copy() for array in arrays]
                moved[place][index] += step
                ends.append(hierarchical_softmax(moved[0], target.numpy(), moved[1]).sum())
            slope = (ends[0] - ends[1]) / (2 * STEP)
            assert leaf.grad[index].item() == pytest.approx(slope, rel=TOLERANCE, abs=TOLERANCE)


def test_hierarchical_softmax_touches_the_path_alone():
    hidden, _ = draw("hierarchical_softmax")
    nodes = torch.zeros(7, 5, dtype=torch.float64, requires_grad=True)
    losses.hierarchical_softmax(hidden, torch.zeros(7).long(), nodes).backward()
    assert nodes.grad.any(1).tolist() == [True, True, False, True, False, False, False]
    with pytest.raises(ValueError, match=re.escape("target from 0 to 7 (B is 7)")):
        losses.hierarchical_softmax(hidden, torch.full((7,), 8), nodes)
    with pytest.raises(ValueError, match=re.escape("got hidden [7, 4]")):
        losses.hierarchical_softmax(hidden[:, :4], torch.zeros(7).long(), nodes)


def test_a_built_hierarchical_softmax_learns_its_tree():
    torch.manual_seed(0)
    loss = losses.build("hierarchical_softmax", classes=6, features=6)
    assert [list(p.shape) for p in loss.parameters()] == [[5, 6]]
    hidden, target = torch.eye(6), torch.arange(6)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.3)
    before = loss(hidden, target).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss(hidden, target).backward()
        optimizer.step()
    assert loss(hidden, target).item() < 0.1 * before


def test_perplexity_is_over_all_tokens_not_over_batches():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4, 6, 5, generator=generator)  # [N, T, V]
    target = torch.randint(5, (4, 6), generator=generator)
    target[0, 2:] = -100
    entry = get("cross_entropy")
    batches = [entry.fraction(logits[i : i + 2].mT, target[i : i + 2]) for i in (0, 2)]
    total = sum(batch.numerator for batch in batches)
    count = sum(batch.denominator for batch in batches)
    ours = losses.perplexity(total, count)
    torch.testing.assert_close(ours, peer_perplexity(logits, target, ignore_index=-100))
    mean = torch.stack([losses.perplexity(*batch) for batch in batches]).mean()
    assert (mean - ours).abs() > 1e-3 * ours
    uniform = entry.fraction(torch.zeros(3, 7), torch.arange(3))
    assert losses.perplexity(*uniform).item() == pytest.approx(7)
    assert losses.perplexity(torch.tensor(0.0), torch.tensor(0)) == 1
