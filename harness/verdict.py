"""From numbers to words: the verdict on an arm and the sentence over a report. Needs no torch."""

from harness.comparison import ArmResult, Comparison, Contrast, TaskResult, Verdict
from harness.fairness import listed
from harness.statistics import ALPHA, MOST_SEEDS

FEWEST_SEEDS = 3  # two differences that happen to agree are no evidence
TASKS_NAMED = 3  # tasks up to which the sentence names arms
ARMS_NAMED = 3  # arms without a clear verdict up to which it names them


def judge(
    result: ArmResult, baseline: ArmResult | None, *, higher: bool, pending: bool
) -> tuple[Verdict, str]:
    """The verdict on one arm, bare and with its reservations.

    An arm that lost runs is never called better, and none is called worse than a baseline that lost
    runs: the runs that are left may be the lucky ones.

    Args:
        result: the arm, its contrast included.
        baseline: the arm compared with, None where the task has none.
        higher: whether a higher metric is better.
        pending: whether the sweep still runs.
    """
    lost = _lost(result)
    if pending:
        finished = result.planned - result.pending
        return "pending", _with(f"{finished} of {result.planned} runs", lost)
    if not result.done:
        return "no result", _with("no result", lost)
    if baseline is not None and result.arm == baseline.arm:
        return "baseline", _with("baseline", lost)
    if baseline is None or not baseline.done:
        return "no baseline", _with("no baseline", lost)
    theirs = _lost(baseline)
    reservations = [lost, f"baseline: {theirs}" if theirs else ""]
    contrast = result.contrast
    if contrast is None:
        return _undecided("no seed done by both", *reservations)
    if len(contrast.seeds) == 1:
        return _undecided("only 1 seed", *reservations)
    if len(contrast.seeds) < FEWEST_SEEDS and any(contrast.differences):
        return _undecided(f"only {len(contrast.seeds)} seeds", *reservations)
    if not any(contrast.differences):
        return "identical", _with("identical", *reservations)
    word = _word(contrast, higher)
    if word == "not enough evidence":
        return _undecided(_seeds(contrast), *reservations)
    against = {"better": lost, "worse": theirs, "no practical difference": lost or theirs}
    if against[word]:
        return _undecided(f"{word} where done", *reservations)
    return word, _with(word, *reservations)


def _word(contrast: Contrast, higher: bool) -> Verdict:
    """The verdict of the tests alone."""
    if contrast.p_equivalence is not None and contrast.p_equivalence <= ALPHA:
        return "no practical difference"
    if contrast.p_holm is None or contrast.p_holm > ALPHA:
        return "not enough evidence"
    return "better" if (contrast.mean > 0) == higher else "worse"


def _seeds(contrast: Contrast) -> str:
    if contrast.effect_size is None:
        return f"{len(contrast.seeds)} seeds"
    if contrast.seeds_needed is None:
        return f"over {MOST_SEEDS} seeds"
    return f"~{_rounded(contrast.seeds_needed)} seeds"


def _rounded(seeds: int) -> int:
    """Two digits from 100 on: an estimate is no better than that."""
    return seeds if seeds < 100 else round(seeds, -1 if seeds < 1000 else -2)


def _lost(result: ArmResult) -> str:
    """Failed and diverged runs in words, empty when there are none."""
    parts = [(result.failed, "failed"), (result.diverged, "diverged")]
    words = " and ".join(f"{n} {word}" for n, word in parts if n)
    if result.failed and result.diverged:
        return f"{words} of {result.planned}"
    return words.replace(" ", f" of {result.planned} ", 1)


def _with(word: str, *reservations: str) -> str:
    inside = ", ".join(text for text in reservations if text)
    return f"{word} ({inside})" if inside else word


def _undecided(*reservations: str) -> tuple[Verdict, str]:
    return "not enough evidence", _with("not enough evidence", *reservations)


def sentence(comparison: Comparison) -> str:
    """The answer in one sentence."""
    if comparison.pending:
        finished = comparison.planned - comparison.pending
        rest = (
            f"{comparison.command} trains the rest"
            if not finished
            else "no verdict before the last"
        )
        return f"{finished} of {comparison.planned} runs are there; {rest}."
    if not comparison.done:
        return "No run is done: there is nothing to compare."
    against = f"Against {comparison.baseline} on {comparison.metric}"
    if len(comparison.tasks) > TASKS_NAMED:
        return f"{against}, over {len(comparison.tasks)} tasks: {_counted(comparison)}."
    parts = [_named(task) for task in comparison.tasks]
    if len(parts) > 1:
        pairs = zip(comparison.tasks, parts, strict=True)
        return f"{against}: {'. '.join(f'{task.task}: {part}' for task, part in pairs)}."
    return f"{against}: {parts[0]}."


def _named(task: TaskResult) -> str:
    """The arms of one task by verdict, the undecided ones only counted where they are many."""
    arms = {word: [r.arm for r in task.arms if r.verdict == word] for word in _ENDINGS}
    if any(result.verdict == "no baseline" for result in task.arms):
        return "the baseline has no result"
    parts = [
        f"{_and(names)} {'is' if len(names) == 1 else 'are'} {_ENDINGS[word]}"
        for word, names in arms.items()
        if names and _ENDINGS[word]
    ]
    for word in ("no practical difference", "not enough evidence", "no result"):
        names = arms[word]
        if names:
            many = len(names) > ARMS_NAMED
            parts.append(f"{word} for {f'{len(names)} others' if many else _and(names)}")
    return "; ".join(parts) or "no other arm"


def _and(names: list[str]) -> str:
    return " and ".join(listed(names).rsplit(", ", 1)) if len(names) > 1 else names[0]


_ENDINGS: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "identical": "identical",
    "no practical difference": "",
    "not enough evidence": "",
    "no result": "",
}


def _counted(comparison: Comparison) -> str:
    verdicts = [result.verdict for _, result in comparison.results()]
    counts = {word: verdicts.count(word) for word in dict.fromkeys(verdicts) if word != "baseline"}
    return ", ".join(f"{n} {word}" for word, n in counts.items())
