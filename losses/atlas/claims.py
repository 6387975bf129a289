"""The notes' table of losses, and what the same words come to when they are measured.

D's "Loss Function Characteristics Comparison" gives seven losses a tick or a cross in four columns.
Here every entry is measured, on each loss of this package that bears the name, and marked as
agreeing or not. The columns mean:

- robust to outliers: the pull of a single item, its gradient, stays bounded as the item gets worse
  (:func:`~losses.atlas.curves.robust`).
- smooth gradient: the gradient has no jump (:func:`~losses.atlas.curves.smooth`).
- use in classification: it takes labels, and of labels with known probabilities the likeliest is
  what its least expected value predicts, for every distribution tried (calibrated, Bartlett, Jordan
  & McAuliffe 2006). Losses of real numbers get labels of 0 and 1, and are read with 1/2 between.
- use in regression: it takes any real target, or a box of real corners, and what its least expected
  value predicts is a location: it moves with the targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from losses.atlas import measure, prepared
from losses.atlas.expected import PROPER, elicited, fits, spreads
from losses.atlas.finding import Finding, brief, shown
from losses.core import Loss, get

COLUMNS = (
    "robust to outliers",
    "smooth gradient",
    "use in classification",
    "use in regression",
)
Verdict = Literal["agrees", "disagrees"]


@dataclass(frozen=True)
class Claim:
    """One row of the notes' table, and the losses that it is about, with their parameters."""

    row: str
    said: tuple[bool, bool, bool, bool]
    losses: tuple[tuple[str, dict[str, Any]], ...]


CLAIMS = (
    Claim("MSE", (False, True, False, True), (("mse", {}),)),
    Claim("MAE", (True, False, False, True), (("mae", {}),)),
    Claim("Huber", (True, True, False, True), (("huber", {}), ("huber", {"delta": 10.0}))),
    Claim("Cross-Entropy", (False, True, True, False), (("cross_entropy", {}),)),
    Claim("Hinge", (False, False, True, False), (("hinge", {}),)),
    Claim(
        "Focal",
        (True, True, True, False),
        (("focal", {"gamma": 0.5}), ("focal", {}), ("focal", {"gamma": 5.0})),
    ),
    Claim(
        "Dice/IoU",
        (True, False, True, False),
        (("binary_dice", {}), ("binary_jaccard", {}), ("iou", {})),
    ),
)


@dataclass(frozen=True)
class Entry:
    """One cell: what the notes say, what was measured, of which loss."""

    row: str
    column: str
    loss: str
    said: bool
    finding: Finding

    @property
    def verdict(self) -> Verdict:
        """Whether the measurement bears out what is said."""
        return "agrees" if self.finding.holds == self.said else "disagrees"


@dataclass(frozen=True)
class Contrast:
    """Two losses that the notes tell apart, or do not, by one number of both."""

    words: str
    verdict: Verdict


def entries() -> list[Entry]:
    """The whole table, measured; loss by loss, in the notes' order."""
    made = []
    for claim in CLAIMS:
        for name, parameters in claim.losses:
            portrait = measure(name, **parameters)
            found = (
                portrait.findings["robust"],
                portrait.findings["smooth"],
                *(use(prepared(get(name), 3, parameters)) for use in (classifies, regresses)),
            )
            made += [
                Entry(claim.row, column, portrait.title, said, finding)
                for column, said, finding in zip(COLUMNS, claim.said, found, strict=True)
            ]
    return made


def classifies(entry: Loss) -> Finding:
    """How many of the tried distributions of labels it decides wrongly; none means usable.

    Beside it stands how far the prediction is from the probability at worst.
    """
    found = fits(entry)
    if found is None:
        return Finding(None, "no labels", False, f"it takes {entry.target}, not labels")
    wrong = sum(not fit.decides for fit in found)
    off = max(fit.distance for fit in found)
    words = (
        f"the likeliest label is not what it predicts for {wrong} of {len(found)} distributions "
        f"(usable: 0); the prediction is off the probability by {shown(off)} at most"
    )
    return Finding(wrong, f"{wrong}/{len(found)}, off {brief(off)}", wrong == 0, words)


def regresses(entry: Loss) -> Finding:
    """How far its prediction is from moving by 1 when all targets do; usable: 0.001 at most."""
    try:
        _try_real(entry)
    except ValueError:
        return Finding(None, "refused", False, "a target of 2.5 is refused")
    points = spreads()["exponential"].clamp(max=2.5)
    plain, moved = elicited(entry, points), elicited(entry, points + 1)
    off = abs(moved - plain - 1)
    words = (
        f"it predicts {shown(plain)} for some targets and {shown(moved)} when they are 1 larger "
        "(usable: follows to 0.001)"
    )
    return Finding(off, f"off {brief(off)}", off <= 0.001, words)


def _try_real(entry: Loss) -> None:
    """Raise ValueError unless a real target, or a box, is taken."""
    if entry.target == "boxes":
        return
    shape = (1, 1, 2, 2) if entry.region else (1, 1)
    output = torch.zeros(shape, dtype=torch.float64)
    entry.parts(output, torch.full_like(output, 2.5))


def contrasts(made: Sequence[Entry]) -> list[Contrast]:
    """What the notes' marks say when one is held against another, by one number of both."""
    pulls = {e.loss: e.finding.number or 0.0 for e in made if e.column == COLUMNS[0]}
    reference = pulls["cross_entropy"]
    found = []
    for name in [name for name in pulls if name.startswith(("focal", "binary_dice"))]:
        words = (
            f"{name} is called robust and cross-entropy is not: a sure mistake pulls "
            f"{shown(pulls[name])} times as hard as an item on the boundary, under cross-entropy "
            f"{shown(reference)} times"
        )
        found.append(Contrast(words, "agrees" if pulls[name] < reference else "disagrees"))
    return [*found, _squares()]


def _squares() -> Contrast:
    """The squared error behind a sigmoid, which is what the cross under classification is about."""
    brier = measure("brier").findings
    off, slope = brier["proper"].number, brier["saturates"].number
    assert off is not None
    assert slope is not None
    words = (
        "MSE is called of no use in classification: behind a sigmoid, as brier, its prediction is "
        f"off the labels' probability by {shown(off)}; what speaks against it is the gradient, "
        f"{slope:.0e} at a logit of -50"
    )
    return Contrast(words, "disagrees" if off <= PROPER else "agrees")


def table(made: Sequence[Entry] | None = None) -> str:
    """Markdown: the notes' marks beside the measured ones, with the numbers."""
    made = entries() if made is None else made
    lines: list[tuple[str, ...]] = [("in the notes, D", "measured on", *COLUMNS), ("---",) * 6]
    for loss in dict.fromkeys((e.row, e.loss) for e in made):
        cells = [e for e in made if (e.row, e.loss) == loss]
        lines.append((loss[0], f"`{loss[1]}`", *(_cell(e) for e in cells)))
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    notes = [f"- {_verdict(c.verdict)}: {c.words}." for c in contrasts(made)]
    agreeing = sum(e.verdict == "agrees" for e in made)
    words = f"{agreeing} of {len(made)} entries agree with what is measured."
    return "\n".join([*rows, "", words, "", *notes])


def _cell(entry: Entry) -> str:
    said, found = ("✔" if holds else "✘" for holds in (entry.said, entry.finding.holds))
    return f"said {said}, found {found} ({entry.finding.short}): {_verdict(entry.verdict)}"


def _verdict(verdict: Verdict) -> str:
    return verdict if verdict == "agrees" else f"**{verdict}**"
