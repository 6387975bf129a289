"""All tasks together: a table, what ranks say, and the share of runs that reach each score."""

from harness.comparison import Comparison, Overall, OverallArm
from harness.report import style
from harness.report.markup import Safe, element, table
from harness.report.svg import Axis, label, line, path, svg, tick_labels

HEAD = ("arm", "score", "95% interval", "mean rank", "gain", "p (Holm)")
PLACES = 3
WIDTH, HEIGHT = 236, 150
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 8, 26
LEGEND = (
    "Score: 0 is the mean of a task's worst arm, 1 that of its best, without what a seed adds to "
    "all arms alike; a lost run has its task's worst score. Shown is the interquartile mean over "
    "all tasks and seeds, its interval by a bootstrap of seeds within tasks. Mean rank: of the "
    "arms' means, 1 is best. Gain: mean over tasks of the score less the baseline's; p: flipped "
    "signs of these gains, Holm over arms."
)


def rows(comparison: Comparison, given: Overall) -> list[list[str]]:
    """The cells of every arm, in the order of `HEAD`."""
    return [
        [
            style.clean(arm.arm),
            style.number(arm.iqm, PLACES),
            style.interval(arm.low, arm.high, PLACES),
            style.number(arm.rank, 2),
            "baseline"
            if arm.arm == comparison.baseline
            else style.number(arm.gain, PLACES, sign=True),
            style.p_value(arm.p_holm) if arm.p_holm is not None else style.NOTHING,
        ]
        for arm in given.arms
    ]


def sentence(given: Overall) -> str:
    """What tests over tasks can say of so many."""
    if given.friedman is None or given.apart is None:
        few = given.tasks < 5
        return (
            f"{given.tasks} tasks are too few to test over them: ranks want 5, gains 6."
            if few
            else "Ranks of two arms are not tested; see the gains."
        )
    flips = "" if given.tasks > 5 else " Gains are tested from 6 tasks on."
    return (
        f"Friedman's test that all arms rank alike: p {style.p_value(given.friedman)}; mean ranks "
        f"that differ by {style.number(given.apart, 2)} or more differ by more than chance "
        f"(Nemenyi).{flips}"
    )


def section(comparison: Comparison) -> list[Safe]:
    """The table, the tests and the profiles; nothing for a single task or before the last run."""
    given = comparison.overall
    if given is None:
        return []
    base = next((arm for arm in given.arms if arm.arm == comparison.baseline), None)
    panels = [element("figure", element("figcaption", arm.arm), _profile(given, arm, base))
              for arm in given.arms]  # fmt: skip
    behind = f"Share of runs that score at least so much; dashed: {comparison.baseline}"
    return [
        table(HEAD, rows(comparison, given), caption="all tasks together"),
        element("p", sentence(given)),
        element("p", LEGEND, class_="soft"),
        element("p", f"{behind}.", class_="soft"),
        element("div", *panels, class_="panels"),
    ]


def _profile(given: Overall, arm: OverallArm, base: OverallArm | None) -> Safe:
    """The performance profile of an arm, the baseline's dashed behind it."""
    x, y = Axis(0.0, 1.0, LEFT, WIDTH - RIGHT), Axis(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    shapes = []
    for value, name in zip((0.0, 0.5, 1.0), tick_labels([0.0, 0.5, 1.0]), strict=True):
        shapes += [
            line(x.start, y(value), x.end, y(value), "grid"),
            label(LEFT - 5, y(value) + 4, name, anchor="end", class_="t soft"),
            label(x(value), HEIGHT - 8, name, anchor="middle", class_="t soft"),
        ]
    curves = [(base, "curve dashed")] if base and base is not arm else []
    for each, kind in [*curves, (arm, "curve")]:
        points = zip(given.thresholds, each.profile, strict=True)
        shapes.append(path([(x(score), y(share)) for score, share in points], kind))
    half = style.number(arm.profile[len(arm.profile) // 2], 2)
    title = f"{arm.arm}: share of runs that score at least so much"
    return svg(title, f"{half} of its runs score a half or more", WIDTH, HEIGHT, *shapes)
