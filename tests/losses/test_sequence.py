"""CTC against all alignments; perplexity."""

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
from tests.losses.named import assert_agrees, draw


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


REFERENCES = {"ctc": ctc}


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
