"""Search spaces: which values a setting may take, and points spread evenly over them.

Values are written as in Hydra: `log(1e-3, 1e-1)`, `uniform(0, 1)`, `integer(1, 8)`, or a list of
choices. Needs no torch.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FORM = re.compile(r"(log|uniform|integer)\(\s*([^,()\s]+)\s*,\s*([^,()\s]+)\s*\)")


@dataclass(frozen=True)
class Range:
    """Values of one setting: between two numbers, both included, or one of a list.

    Attributes:
        kind: log (evenly in the logarithm), uniform, integer, or choice.
        low, high: the ends, where there are any.
        choices: the list, where there is one.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()

    def at(self, share: float) -> Any:
        """The value at a share of the range, 0 to 1.

        >>> Range("log", 1e-3, 1e-1).at(0.5), Range("choice", choices=("a", "b")).at(0.7)
        (0.01, 'b')
        """
        if self.kind == "choice":
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        if self.kind == "integer":
            return min(int(self.low + share * (self.high - self.low + 1)), int(self.high))
        if self.kind == "log":
            low, high = math.log(self.low), math.log(self.high)
            return _rounded(math.exp(low + share * (high - low)))
        return _rounded(self.low + share * (self.high - self.low))


def _rounded(value: float) -> float:
    """Four digits: a value that a person can repeat."""
    return float(f"{value:.4g}")


def parse_range(owner: str, given: Any) -> Range:
    """Read a range as a sweep file says it.

    Raises:
        ValueError: it is none of the forms, or its ends do not belong together.
    """
    if isinstance(given, list) and given:
        if not all(isinstance(value, str | int | float) for value in given):
            raise ValueError(f"{owner} must be a list of numbers or words, got {given!r}")
        return Range("choice", choices=tuple(given))
    found = FORM.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is None:
        raise ValueError(
            f"{owner} must be log(a, b), uniform(a, b), integer(a, b) or a list, got {given!r}"
        )
    try:
        low, high = float(found[2]), float(found[3])
    except ValueError:
        raise ValueError(f"{owner} must be between two numbers, got {given!r}") from None
    kind = found[1]
    whole = low.is_integer() and high.is_integer() if kind == "integer" else True
    if not (math.isfinite(low) and math.isfinite(high) and low < high and whole):
        raise ValueError(f"{owner} must go from a smaller to a larger number, got {given!r}")
    if kind == "log" and low <= 0:
        raise ValueError(f"{owner} must be above 0 to be spread by its logarithm, got {given!r}")
    return Range(kind, low, high)


def spread_points(number: int, dimensions: int) -> list[list[float]]:
    """Points in the unit cube that fill it evenly however many are taken, from a fixed seed.

    The first coordinates are the same whatever comes after them, so that arms with settings of
    their own share the values of what they have in common.
    """
    from scipy.stats import qmc  # 0.3 s

    found = qmc.Halton(dimensions, seed=0).random(number)
    return [[float(share) for share in point] for point in found]


def spread(ranges: Mapping[str, Range], number: int) -> list[dict[str, Any]]:
    """Settings by key at so many points; ranges that come first get values that others share."""
    points = spread_points(number, len(ranges))
    return [
        {key: each.at(share) for (key, each), share in zip(ranges.items(), point, strict=True)}
        for point in points
    ]
