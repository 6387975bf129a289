"""What a plan says to a person: how many runs there are, what they can show, how long they take."""

from collections.abc import Mapping, Sequence

from harness.plan import Plan, PlannedRun, Tuning
from harness.progress import clock
from harness.record import Record
from harness.slots import Places, width


def summary(
    plan: Plan,
    records: Mapping[str, Record],
    left: Sequence[PlannedRun],
    places: Places | None,
    *,
    arms: bool = False,
) -> str:
    """What would run, what is done, what the seeds can show, and how long it takes."""
    from harness.statistics import evidence

    trials = _trials(plan)
    total = len(plan.cells) * len(plan.seeds)
    later = later_runs(plan)
    named = many(len(plan.arms), "arm")
    if plan.controls:
        named = f"({named} + {many(len(plan.controls), 'control')})"
    several = [many(len(plan.tasks), "task")] if len(plan.tasks) > 1 else []
    product = " x ".join([*several, named, many(len(plan.seeds), "seed")])
    state = f"{len(records)} done, {len(left) + later} to run"
    if left and places:
        slots = min(places.most, sum(map(width, left)) + later)
        took = _duration(plan, records, left, slots, later)
        state += f" in {many(slots, 'process', 'es')}{places.where()}; {took}"
    comparisons = (len(plan.arms) - 1) * len(plan.tasks)
    tuned = f" + {trials} of the tuner" if trials else ""
    lines = [f"plan      {plan.name}: {product} = {many(total, 'run')}{tuned}; {state}"]
    if plan.question:
        lines.insert(0, f"question  {plan.question}")
    if comparisons:
        lines.append(f"evidence  {evidence(len(plan.seeds), comparisons)}")
    if plan.tuning:
        lines.append(f"tune      {_tuning(plan.tuning)}")
    return "\n".join([*lines, *_arm_lines(plan)] if arms else lines)


def _tuning(tuning: Tuning) -> str:
    """How arms are tuned: what all may set, and what some may set beside."""
    ranges = tuning.ranges.values()
    shared = {k: v for k, v in next(iter(ranges)).items() if all(k in each for each in ranges)}
    words = [f"{key}={value}" for key, value in shared.items()]
    for arm, own in tuning.ranges.items():
        beside = [f"{key}={value}" for key, value in own.items() if key not in shared]
        words += [f"{arm} also {', '.join(beside)}"] if beside else []
    effort = f"{many(tuning.number, 'trial')} per arm on {many(len(tuning.seeds), 'seed')}"
    return f"{effort} by {tuning.metric} ({tuning.sampler}): {'; '.join(words)}"


def _trials(plan: Plan) -> int:
    """How many runs the tuner takes in all."""
    tuning = plan.tuning
    cells = len(plan.tasks) * len(plan.arms)
    return cells * tuning.number * len(tuning.seeds) if tuning else 0


def later_runs(plan: Plan) -> int:
    """How many runs are known only when others have been trained."""
    return len(plan.cells) * len(plan.seeds) + _trials(plan) - sum(1 for _ in plan.runs())


def many(number: int, word: str, ending: str = "s") -> str:
    """A number with its word.

    >>> many(1, "run"), many(2, "process", "es")
    ('1 run', '2 processes')
    """
    return f"{number} {word}" + (ending if number != 1 else "")


def _duration(
    plan: Plan, records: Mapping[str, Record], left: Sequence[PlannedRun], slots: int, later: int
) -> str:
    """From earlier runs of this sweep where there are any, else from what the plan tried.

    Runs that are not known yet are taken to last as long as the others, and those on several
    devices, which were tried on one, as long as on one.
    """
    known = [record.seconds["total"] for record in records.values() if record.seconds]
    usual = sum(known) / len(known) if known else None
    cells = {(cell.task, cell.arm): cell.seconds for cell in plan.cells}
    expected = sum((usual or cells[run.task, run.arm]) * width(run) for run in left)
    return f"about {clock(expected * (1 + later / len(left)) / slots)}"


def _arm_lines(plan: Plan) -> list[str]:
    lines = [f"metric    {plan.metric} ({plan.directions[plan.metric]} is better)", "arms"]
    width = max(map(len, plan.arms))
    for arm, differing in plan.differences.items():
        objective, *beyond = (f"{k}={v}" for k, v in differing.items())
        mark = "  (baseline)" if arm == plan.baseline else ""
        shown = "  ".join([objective.removeprefix("objective="), *beyond])
        lines.append(f"  {arm:<{width}}  {shown}{mark}")
    if plan.controls:
        lines.append(f"controls  {', '.join(plan.controls)}")
    return lines
