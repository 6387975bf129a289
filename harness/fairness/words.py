"""Names within sentences."""

from collections.abc import Iterable

from harness.plan import Plan

NAMES_SHOWN = 6
NAME_LENGTH = 40  # of a name within a sentence


def listed(names: Iterable[object]) -> str:
    """Names with commas, long ones cut, and no more than a few.

    >>> listed("abc")
    'a, b, c'
    """
    words = [
        text if len(text := str(n)) <= NAME_LENGTH else f"{text[:NAME_LENGTH]}…" for n in names
    ]
    more = [f"{len(words) - NAMES_SHOWN} more"] if len(words) > NAMES_SHOWN + 1 else []
    return ", ".join([*words[:NAMES_SHOWN], *more] if more else words)


def where(plan: Plan, task: str) -> str:
    """The task's name before a sentence, where there are several."""
    return f"{task}: " if len(plan.tasks) > 1 else ""


def spans(numbers: Iterable[int]) -> str:
    """Numbers with runs of neighbours drawn together.

    >>> spans([5, 1, 2, 3])
    '1 to 3, 5'
    """
    groups: list[list[int]] = []
    for number in sorted(numbers):
        if groups and groups[-1][-1] == number - 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    return listed(f"{g[0]} to {g[-1]}" if len(g) > 1 else g[0] for g in groups)
