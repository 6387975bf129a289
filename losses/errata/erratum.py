"""What an erratum is: a formula as it is printed, beside the one that is right."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Erratum:
    """One formula that the notes print wrong, with an input that shows it.

    Attributes:
        name: what tests call it.
        note: which of the notes prints it, A to D.
        place: where in that note.
        printed: the formula as printed, in LaTeX, or the claim in words.
        right: the formula that is right, in LaTeX.
        authority: who says so.
        example: the input in words.
        inputs: the input in numbers, converted by :meth:`tensors`.
        as_printed: from these tensors to the value of what is printed, to the letter.
        reference: from these tensors to the right value, without any loss of this package.
        consequence: what following the print does, in a sentence that a test proves.
        loss: name of the registered loss or penalty that has it right, if there is one.
        ours: from these tensors to the value by that loss.
    """

    name: str
    note: str
    place: str
    printed: str
    right: str
    authority: str
    example: str
    inputs: tuple[Any, ...]
    as_printed: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    consequence: str
    loss: str | None = None
    ours: Callable[..., Tensor] | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """The input, float64 or int64."""
        whole = (not torch.tensor(given).is_floating_point() for given in self.inputs)
        types = (torch.int64 if is_whole else torch.float64 for is_whole in whole)
        return tuple(torch.tensor(x, dtype=t) for x, t in zip(self.inputs, types, strict=True))
