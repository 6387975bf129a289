"""The section of the page that shows what every arm made of the same test items. Needs no torch."""

from collections.abc import Mapping

import numpy as np

from harness import samples as kept
from harness.plan import Plan
from harness.record import Record
from harness.report import pictures
from harness.report.markup import Safe, element
from harness.samples import Samples
from harness.store import Store

FIRST, WORST = 3, 3
WORDS = {
    "maps": "Predicted classes in colour over the picture; dark where nothing is asked.",
    "boxes": (
        "Green: hit (IoU of 0.5 or more with a box of its class). Red: false. Yellow, dashed: "
        f"missed. Boxes scored below {kept.SURE:g} are not drawn."
    ),
    "neighbours": "What lies nearest, best first; green: of the same class, red: of another.",
}


def answers(plan: Plan, records: Mapping[str, Record], store: Store) -> list[Safe]:
    """Per task, the same test items for all arms: the first ones, and the baseline's worst."""
    made = []
    for task in plan.tasks:
        shown = _of_task(plan, records, store, task)
        if shown is not None:
            made.append(shown)
    return made


def _of_task(plan: Plan, records: Mapping[str, Record], store: Store, task: str) -> Safe | None:
    """A table of pictures from the first seed of which the baseline kept some."""
    cells = {cell.arm: cell for cell in plan.cells if cell.task == task}
    base = cells.get(plan.baseline)
    for seed in plan.seeds:
        reference = _kept(base.runs.get(seed), records, store) if base else None
        if base is None or reference is None or not len(reference.images):
            continue
        found = {arm: _kept(cell.runs.get(seed), records, store) for arm, cell in cells.items()}
        same = {
            arm: one
            for arm, one in found.items()
            if one is not None
            and one.kind == reference.kind
            and np.array_equal(one.images, reference.images)
        }
        head = element("h3", task) if len(plan.tasks) > 1 else None
        note = (
            f"Test items of seed {seed}: the first {FIRST}, and the {WORST} of the first "
            f"{len(reference.images)} that {plan.baseline} answered worst. {WORDS[reference.kind]}"
        )
        table = _table(reference, same)
        return element("div", head, element("p", note, class_="soft"), table)
    return None


def _kept(run: str | None, records: Mapping[str, Record], store: Store) -> Samples | None:
    if run is None or run not in records or records[run].status != "done":
        return None
    return kept.read(store, run)


def chosen(scores: np.ndarray[tuple[int], np.dtype[np.floating]]) -> list[int]:
    """The first items, then the worst of the others, worst first.

    >>> chosen(np.array([1.0, 1.0, 1.0, 0.5, 0.9, 0.1, 0.2]))
    [0, 1, 2, 5, 6, 3]
    """
    first = list(range(min(FIRST, len(scores))))
    order = np.argsort(scores, kind="stable").tolist()
    return [*first, *[item for item in order if item not in first][:WORST]]


def _table(reference: Samples, arms: Mapping[str, Samples]) -> Safe:
    items = chosen(reference.scores)
    rows = [("truth", [_cell(pictures.truth(reference, i), f"item {i}") for i in items])]
    for arm, mine in arms.items():
        words = [f"item {i}: {mine.scores[i]:.2f}" for i in items]
        drawn = [pictures.answer(mine, i) for i in items]
        rows.append((arm, [_cell(d, w) for d, w in zip(drawn, words, strict=True)]))
    body = [element("tr", element("th", name, scope="row"), *cells) for name, cells in rows]
    inner = element("table", element("tbody", *body), class_="answers")
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label="answers")


def _cell(pixels: pictures.Array, words: str) -> Safe:
    image = element("img", src=pictures.uri(pixels), alt=words, loading="lazy")
    return element("td", image, element("div", words, class_="soft"))
