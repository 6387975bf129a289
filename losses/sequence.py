"""Losses of sequences; tokens one by one want :func:`cross_entropy`.

For next-token prediction put the vocabulary on axis 1, [N, V, T], mark padding with `ignore_index`,
and let :func:`perplexity` divide the sum over all tokens by their number, once.
"""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.arguments import Bounds
from losses.core import loss

Index = Annotated[int, Bounds(0)]


def _lines(generator: torch.Generator) -> tuple[Tensor, ...]:
    """7 lines of up to 9 frames over 5 labels, with up to 3 symbols; one symbol twice in a row."""
    logits = torch.randn(7, 9, 5, generator=generator, dtype=torch.float64)
    target = torch.randint(1, 5, (7, 3), generator=generator)
    target[0] = target[0, 0]
    frames = torch.tensor([9, 8, 7, 9, 6, 5, 9])
    return logits, target, frames, torch.tensor([3, 2, 3, 1, 0, 3, 2])


@loss(
    "ctc",
    target="fields",
    fields={
        "logits": "float N T C",
        "target": "int<C N S",
        "frames": "int<=T N",
        "symbols": "int<=S N",
    },
    example=_lines,
    source="Graves et al. 2006, Connectionist temporal classification, eq. 8",
    opaque="torch's own kernel reads the lengths",
)
def ctc(
    logits: Tensor,
    target: Tensor,
    frames: Tensor,
    symbols: Tensor,
    *,
    blank: Index = 0,
    zero_infinity: bool = True,
    per_symbol: bool = False,
) -> Tensor:
    r"""Negative log-likelihood of a line over all alignments,
    :math:`-\log \sum_{a \to y} \prod_t p_t(a_t)`.

    For a sequence whose symbols have no known place: speech, handwriting. An alignment a gives
    every frame a symbol or a blank, and becomes y when repeats are joined and blanks dropped, so k
    equal symbols in a row need 2 k - 1 frames. It is `F.ctc_loss` with the batch first and the
    log-softmax inside (log-probabilities give the same), whose mean divides every line by its
    number of symbols before it averages over lines: `per_symbol=True`.

    Args:
        logits: scores per frame, float [N, T, C].
        target: symbols, int [N, S], none of them the blank; what follows a line's last is not read.
        frames: frames per line, at least 1, int [N].
        symbols: symbols per line, int [N].
        blank: index of the blank.
        zero_infinity: a line with too few frames for its symbols costs 0 instead of infinity.
        per_symbol: divide a line's value by its number of symbols (by 1 if it has none).

    Raises:
        ValueError: the blank is not one of the C labels.
    """
    classes = logits.shape[2]
    if blank >= classes:
        raise ValueError(f"ctc.blank must be below the {classes} labels, got {blank}")
    if len(logits) == 0:  # torch's kernel refuses an empty batch
        return logits.sum((1, 2))
    values: Tensor = F.ctc_loss(
        F.log_softmax(logits, 2).transpose(0, 1),
        target,
        frames,
        symbols,
        blank,
        reduction="none",
        zero_infinity=zero_infinity,
    )
    return values / symbols.clamp(min=1) if per_symbol else values


def perplexity(total: Tensor, count: Tensor) -> Tensor:
    r"""Perplexity of a corpus, :math:`\exp(\ell / n)`; 1 for no tokens.

    Sums before it divides, for the mean of the perplexities of batches is larger than that of all
    tokens. `build("cross_entropy").fraction(logits, target)` gives both numbers for a batch.

    Args:
        total: :math:`\ell`, sum of the negative log-likelihoods of all tokens, in nats.
        count: n, number of tokens.

    Source: Jelinek et al. 1977, Perplexity, a measure of the difficulty of speech recognition tasks
    """
    return torch.exp(total / torch.where(count == 0, 1, count))
