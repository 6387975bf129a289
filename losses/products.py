"""Log-sums over all products of vectors, which need not all be in memory at once.

A contrastive loss of N items compares N^2 pairs, and their scores are by far the largest of its
tensors. Beyond a size they are therefore made in pieces of some rows, once for the sums and once
more for the gradient, and only sums are kept. Transforms of functions (`torch.func`,
`torch.compile`) and second derivatives use the plain formula.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from losses import fused
from losses.inputs import autocast_off

SCORES = {"cpu": 1 << 20}  # in a piece; a quarter of it and twice as many are as fast
ELSEWHERE = 1 << 22  # fewer launches, still a quarter of what plain ones of 8192 items take


def log_sums(first: Tensor, second: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Of rows and of columns, :math:`\log \sum_j e^{u_i \cdot v_j}` [N] and
    :math:`\log \sum_i e^{u_i \cdot v_j}` [M].

    Args:
        first: u, float [N, D].
        second: v, float [M, D]; None for u itself, where no vector meets itself and rows and
            columns are the same.
    """
    others = first if second is None else second
    enough = 1 if second is None else _most(first)  # one product less than autograd takes
    if len(first) * len(others) > enough and fused.eager(first, others):
        sums: tuple[Tensor, Tensor] = _InPieces.apply(first, second)
        return sums
    return _plain(first, second)


def _plain(first: Tensor, second: Tensor | None) -> tuple[Tensor, Tensor]:
    if second is not None:
        scores = first @ second.mT
        return scores.logsumexp(1), scores.logsumexp(0)
    itself = torch.eye(len(first), dtype=torch.bool, device=first.device)
    rows = (first @ first.mT).masked_fill(itself, -torch.inf).logsumexp(1)
    return rows, rows


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor | None) -> tuple[Tensor, Tensor]:
        others = first if second is None else second
        sums, columns = [], others.new_full((len(others),), -torch.inf)
        for _, scores in _pieces(first, second):
            sums.append(scores.logsumexp(1))
            if second is not None:
                columns = torch.logaddexp(columns, scores.logsumexp(0))
        rows = torch.cat(sums)
        columns = rows.clone() if second is None else columns
        ctx.save_for_backward(first, second, rows, columns)
        return rows, columns

    @staticmethod
    def backward(ctx: Any, by_row: Tensor, by_column: Tensor) -> tuple[Tensor | None, ...]:
        r"""With slopes a and b, :math:`(a_i e^{s_{ij} - r_i} + b_j e^{s_{ij} - c_j})` by scores."""
        first, second, rows, columns = ctx.saved_tensors
        batched = map(fused.several, (by_row, by_column))
        if torch.is_grad_enabled() or any(batched):
            return _by_autograd(first, second, by_row, by_column)
        if second is None:  # scores and their slopes are symmetric: each vector is met twice
            by_row = by_column = by_row + by_column
        others = first if second is None else second
        to_first = torch.empty_like(first, memory_format=torch.contiguous_format)
        to_second = None if second is None else torch.zeros_like(second)
        with autocast_off(first):
            for part, scores in _pieces(first, second):
                from_columns = torch.sub(scores, columns).exp_().mul_(by_column)
                scores.sub_(rows[part, None]).exp_().mul_(by_row[part, None]).add_(from_columns)
                torch.mm(scores, others, out=to_first[part])
                if to_second is not None:
                    to_second.addmm_(scores.mT, first[part])
        return to_first, to_second


def _by_autograd(
    first: Tensor, second: Tensor | None, by_row: Tensor, by_column: Tensor
) -> tuple[Tensor | None, ...]:
    again = torch.is_grad_enabled()
    wanted = [t for t in (first, second) if t is not None and t.requires_grad]
    with torch.enable_grad(), autocast_off(first):
        sums = _plain(first, second)
    made = iter(torch.autograd.grad(sums, wanted, (by_row, by_column), create_graph=again))
    return tuple(next(made) if t is not None and t.requires_grad else None for t in (first, second))


def _pieces(first: Tensor, second: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time, and their scores; minus infinity where a vector meets itself."""
    others = first if second is None else second
    rows = max(1, _most(first) // max(len(others), 1))
    for start in range(0, len(first), rows):
        part = slice(start, min(start + rows, len(first)))
        scores = first[part] @ others.mT
        if second is None:
            scores.diagonal(start).fill_(-torch.inf)
        yield part, scores


def _most(tensor: Tensor) -> int:
    return SCORES.get(tensor.device.type, ELSEWHERE)
