"""Arithmetic with finite gradients where the plain form has none."""

import torch
from torch import Tensor


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Part over whole; 0, with no gradient, where the whole is 0 or too small to divide by."""
    sound = whole > torch.finfo(whole.dtype).tiny
    return torch.where(sound, part / torch.where(sound, whole, 1), 0)


def power(base: Tensor, exponent: float) -> Tensor:
    """Base to a power above 0; 0, with no gradient, where the base is 0 or, by rounding, below."""
    above = base > 0
    return torch.where(above, torch.where(above, base, 1) ** exponent, 0)
