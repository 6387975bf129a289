"""All tasks of a sweep together: scores that can be averaged, and tests over tasks.

Every run gets a score: 0 is the mean of its task's worst arm, 1 that of its best, lower-is-better
metrics turned round, without what a seed adds to all arms alike; a lost run scores as its task's
worst run. Scores depend on which arms take part, and are wide where these hardly differ.

References: Agarwal et al. 2021, arXiv:2108.13264, for the interquartile mean, its bootstrap
stratified by task and performance profiles; Demšar 2006, Statistical comparisons of classifiers
over multiple data sets, for ranks. Pure functions; scipy.stats is imported where ranks are tested.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.measured import Overall, OverallArm
from harness.statistics import holm, sign_flip

DRAWS, SEED = 2000, 0
"""Of the bootstrap; the ends of an interval move by some 3% of its length with other draws."""
LEAST_TASKS, LEAST_FLIPS = 5, 6
"""Tasks from which ranks are tested, and from which flipped signs can reach 5%."""
THRESHOLDS = [round(i / 20, 2) for i in range(21)]

Values = Mapping[str, Mapping[str, Sequence[float | None]]]
"""The headline metric by task, arm and seed; None for a lost run."""


def overall(values: Values, baseline: str, *, higher: bool) -> Overall | None:
    """What the tasks say together; None below two tasks or arms, or if an arm has no run at all.

    Args:
        values: every run has ended; every task has the same arms and seeds.
        baseline: the arm that others are held against.
        higher: whether a higher metric is better.
    """
    arms = list(next(iter(values.values()), {}))
    done = all(any(v is not None for v in row) for by in values.values() for row in by.values())
    if len(values) < 2 or len(arms) < 2 or not done:
        return None
    scores = np.stack([_scores([by[arm] for arm in arms], higher=higher)
                       for by in values.values()])  # [task, arm, seed]  # fmt: skip
    means = scores.mean(2)
    ranks = np.mean([_ranks(row) for row in means], axis=0)
    low, high = _interval(scores)
    gains = means - means[:, [arms.index(baseline)]]
    tested = [i for i, arm in enumerate(arms) if arm != baseline and len(values) >= LEAST_FLIPS]
    ps = dict(zip(tested, holm([sign_flip(gains[:, i]) for i in tested]), strict=True))
    found = [
        OverallArm(
            arm=arm,
            iqm=interquartile_mean(scores[:, i]),
            low=None if low is None else float(low[i]),
            high=None if high is None else float(high[i]),
            rank=float(ranks[i]),
            gain=float(gains[:, i].mean()),
            p_holm=ps.get(i),
            profile=[float((scores[:, i] >= t - 1e-12).mean()) for t in THRESHOLDS],
        )
        for i, arm in enumerate(arms)
    ]
    found.sort(key=lambda each: -each.iqm)
    p, apart = rank_test(means) if len(values) >= LEAST_TASKS and len(arms) > 2 else (None, None)
    return Overall(len(values), THRESHOLDS, found, p, apart)


def _scores(rows: Sequence[Sequence[float | None]], *, higher: bool) -> NDArray[np.float64]:
    """Scores [arm, seed] on one task; equal arms all have a half.

    What a seed adds to all arms alike is taken out first, since arms are paired by seed.
    """
    sign = 1.0 if higher else -1.0
    signed = np.array([[math.nan if v is None else sign * v for v in row] for row in rows])
    means = np.nanmean(signed, axis=1)
    worst, best = means.min(), means.max()
    if best == worst:
        scores = np.where(np.isnan(signed), math.nan, 0.5)
    else:
        luck = np.nanmean(signed - means[:, None], axis=0)
        scores = (signed - luck - worst) / (best - worst)
    return np.where(np.isnan(scores), np.nanmin(scores), scores)


def interquartile_mean(scores: NDArray[np.float64]) -> float:
    """Mean of the middle half, a quarter cut off at each end.

    >>> interquartile_mean(np.array([0.0, 1.0, 2.0, 9.0]))
    1.5
    """
    ordered = np.sort(scores, axis=None)
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def _interval(
    scores: NDArray[np.float64],
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """95% percentile interval of the interquartile mean, seeds drawn anew within every task."""
    tasks, arms, seeds = scores.shape
    if seeds < 3:  # two runs drawn from two say nothing of others
        return None, None
    rng = np.random.default_rng(SEED)
    drawn = []
    for _ in range(DRAWS):
        rows = rng.integers(0, seeds, (tasks, 1, seeds))  # the same seeds for all arms of a task
        again = np.take_along_axis(scores, np.broadcast_to(rows, scores.shape), axis=2)
        drawn.append([interquartile_mean(again[:, i]) for i in range(arms)])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return low, high


def _ranks(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for the best, ties share the mean of their places."""
    better = (means[None, :] > means[:, None]).sum(1)
    equal = (means[None, :] == means[:, None]).sum(1)
    places: NDArray[np.float64] = better + (equal + 1) / 2
    return places


def rank_test(means: NDArray[np.float64]) -> tuple[float, float]:
    r"""Friedman's p that all arms rank alike, and the least difference of mean ranks that is more
    than chance, :math:`q_{.05} \sqrt{k (k + 1) / 6 N}` (Nemenyi).

    Args:
        means: score of each arm on each task [N, k], k at least 3.
    """
    from scipy import stats  # 0.9 s

    tasks, arms = means.shape
    differ = bool(np.ptp(means, axis=1).any())
    p = float(stats.friedmanchisquare(*means.T).pvalue) if differ else 1.0
    q = float(stats.studentized_range.ppf(0.95, arms, math.inf)) / math.sqrt(2)
    return p, q * math.sqrt(arms * (arms + 1) / (6 * tasks))
