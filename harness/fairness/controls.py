"""Whether control arms came out as they must."""

from collections.abc import Iterator, Sequence

from harness.comparison import ControlResult, Level, Note, TaskResult
from harness.fairness.words import listed


def notes(tasks: Sequence[TaskResult], *, tuned: bool) -> Iterator[Note]:
    """Alarms and warnings of controls that did not, and what `scale` told."""
    for task in tasks:
        place = f"{task.task}: " if len(tasks) > 1 else ""
        for control in task.controls:
            yield from _of_control(control, place, tuned=tuned)


def _of_control(control: ControlResult, place: str, *, tuned: bool) -> Iterator[Note]:
    text = f"{place}control {control.word}: {control.text}"
    if control.held is False:
        # by chance alone one null in 20 differs
        level: Level = "warning" if control.word == "null" else "alarm"
        yield Note(level, text)
    elif control.word == "scale" and control.result.verdict in ("better", "worse"):
        why = "" if tuned else "; untuned arms may differ by the size of their loss alone"
        yield Note("note" if tuned else "warning", f"{text}{why}")
    elif control.held is None and control.result.verdict == "no result":
        yield Note("warning", f"{text}, so it tells nothing")
    if control.unbeaten:
        arms = listed(control.unbeaten)
        yield Note("warning", f"{place}{arms} did no better than a model that ignores its inputs")
