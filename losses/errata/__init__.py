"""What the textbooks print: formulas that the notes behind this package have wrong.

Each is implemented to the letter, beside the right one and our own, with an input where they
differ. Nothing here is registered as a loss.
"""

from torch import Tensor

from losses.errata.classification import CLASSIFICATION
from losses.errata.erratum import Erratum
from losses.errata.others import OTHERS
from losses.errata.regression import REGRESSION
from losses.errata.segmentation import SEGMENTATION

ERRATA = (*CLASSIFICATION, *REGRESSION, *SEGMENTATION, *OTHERS)
HEADER = (
    "number",
    "where",
    "printed",
    "right",
    "for example",
    "printed value",
    "right value",
    "consequence",
)


def table() -> str:
    """Markdown: one row per erratum, its values computed from its functions."""
    rows = [HEADER, ("---",) * len(HEADER)]
    rows += [_row(number, erratum) for number, erratum in enumerate(ERRATA, 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(number: int, erratum: Erratum) -> tuple[str, ...]:
    tensors = erratum.tensors()
    here = f"; here `{erratum.loss}`" if erratum.loss else ""
    return (
        str(number),
        f"{erratum.note}, {erratum.place}",
        f"$`{erratum.printed}`$",
        f"$`{erratum.right}`$ ({erratum.authority}{here})",
        erratum.example,
        shown(erratum.as_printed(*tensors)),
        shown(erratum.reference(*tensors)),
        erratum.consequence,
    )


def shown(value: Tensor) -> str:
    """A number to four digits, several in brackets; rounding errors of float64 are 0."""
    if value.ndim:
        return f"({', '.join(shown(entry) for entry in value)})"
    number = value.item()
    return f"{0.0 if abs(number) < 1e-12 else number:.4g}"
