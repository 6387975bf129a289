"""What a measurement found: a number, how it reads, and in words the threshold behind it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One property of one loss.

    Attributes:
        number: what was measured; None where nothing could be.
        short: the same in a few characters, for a table.
        holds: whether the loss has the property; None where that is no yes or no.
        words: the number, the threshold and the place in one sentence, or why nothing applies.
    """

    number: float | None
    short: str
    holds: bool | None
    words: str

    @property
    def mark(self) -> str:
        """A tick, a cross, or nothing."""
        return {True: "✔", False: "✘", None: ""}[self.holds]

    @property
    def cell(self) -> str:
        """Mark and number as a table shows them."""
        return f"{self.mark} {self.short}".strip()


def nothing(reason: str) -> Finding:
    """A property that does not apply, and why."""
    return Finding(None, "–", None, f"does not apply: {reason}")


def shown(number: float, digits: int = 3) -> str:
    """A number to three digits; what float64 rounds to nothing, or nearly, is 0.

    >>> shown(0.66666), shown(-1e-9), shown(1e22), shown(1000), shown(float("inf"))
    ('0.667', '0', '1e+22', '1000', 'inf')
    """
    if math.isfinite(number) and 1000 <= abs(number) < 99999.5:
        return f"{number:.0f}"
    return "0" if abs(number) < 1e-6 else f"{number:.{digits}g}"


def brief(number: float) -> str:
    """A number in at most six characters, or seven with a sign.

    >>> brief(0.666), brief(-0.00036), brief(1.4e11), brief(38213), brief(12.34), brief(0)
    ('0.67', '-4e-4', '1e11', '4e4', '12', '0')
    """
    if not math.isfinite(number):
        return str(number)
    if abs(number) < 1e-6:
        return "0"
    if 0.01 <= abs(number) < 9999.5:
        return f"{number:.0f}" if abs(number) >= 9.95 else f"{number:.2g}"
    return f"{number:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
