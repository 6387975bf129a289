import itertools
import math

import numpy as np
import pytest
from scipy import stats

from harness import statistics as s

SAMPLES = [
    np.random.default_rng(seed).normal(0.3, 1.0, n).tolist()  # any seed will do: exact references
    for seed, n in enumerate((2, 3, 5, 8, 10, 13, 30))
]
UNUSABLE = [[], [math.nan, 1.0], [math.inf, 1.0]]


@pytest.mark.parametrize("differences", SAMPLES, ids=len)
def test_paired_agrees_with_scipy(differences: list[float]) -> None:
    expected = stats.ttest_1samp(differences, 0.0)
    interval = expected.confidence_interval(0.95)
    found = s.paired(differences)
    assert found.n == len(differences)
    assert found.mean == pytest.approx(np.mean(differences))
    assert found.sd == pytest.approx(np.std(differences, ddof=1))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)


def test_one_pair_has_no_interval() -> None:
    assert s.paired([0.5]) == s.Paired(1, 0.5, None, None, None, None)
    assert s.effect_size([0.5]) is None
    assert s.equivalence([0.5], 1.0) is None


def test_equal_arms_have_p_one() -> None:
    assert s.paired([0.0] * 4) == s.Paired(4, 0.0, 0.0, 0.0, 0.0, 1.0)
    assert s.sign_flip([0.0] * 4) == 1
    assert s.probability_of_improvement([0.0] * 4) == 0.5


@pytest.mark.parametrize("n", [2, 5, 10])
def test_a_constant_difference_is_judged_by_its_signs(n: int) -> None:
    found = s.paired([0.1 + 0.2 * 1e-16 * i for i in range(n)])  # apart from rounding alone
    assert found.sd == 0
    assert found.low == found.high == found.mean
    assert found.p == pytest.approx(2 / 2**n)


@pytest.mark.parametrize("bad", UNUSABLE, ids=str)
@pytest.mark.parametrize(
    "function", [s.paired, s.sign_flip, s.effect_size, s.probability_of_improvement]
)
def test_unusable_differences_are_refused(function, bad: list[float]) -> None:
    with pytest.raises(ValueError, match="needs"):
        function(bad)


def _closed_testing(ps: list[float]) -> list[float]:
    """Holm by its definition: Bonferroni on every set of hypotheses an arm belongs to."""
    every = range(len(ps))
    subsets = [c for r in range(1, len(ps) + 1) for c in itertools.combinations(every, r)]
    return [max(min(1.0, len(c) * min(ps[j] for j in c)) for c in subsets if i in c) for i in every]


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_holm_is_the_closure_of_bonferroni(n: int) -> None:
    ps = (np.random.default_rng(n).random(n) ** 3).tolist()  # cubed: some of them small
    assert s.holm(ps) == pytest.approx(_closed_testing(ps))


def test_holm_counts_comparisons_without_a_p_as_one() -> None:
    ps = [0.03, 0.001, 0.2]
    assert s.holm(ps, 5) == pytest.approx(s.holm([*ps, 1.0, 1.0])[:3])
    assert s.holm([]) == []
    with pytest.raises(ValueError, match="at least 3, got 2"):
        s.holm(ps, 2)


def test_holm_agrees_with_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    ps = (np.random.default_rng(0).random(20) ** 3).tolist()
    assert s.holm(ps) == pytest.approx(multitest.multipletests(ps, method="holm")[1].tolist())


@pytest.mark.parametrize("differences", SAMPLES[:5], ids=len)
def test_sign_flip_agrees_with_scipy(differences: list[float]) -> None:
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=math.inf
    )
    assert s.sign_flip(differences) == pytest.approx(expected.pvalue)


def test_sign_flip_counts_ties_despite_rounding() -> None:
    differences = [0.1, 0.2, -0.3, 0.7, 0.4, 0.6]
    tenths = [round(10 * value) for value in differences]
    flips = [
        abs(sum(sign * value for sign, value in zip(signs, tenths, strict=True)))
        for signs in itertools.product((1, -1), repeat=6)
    ]
    share = sum(flip >= sum(tenths) for flip in flips) / len(flips)
    assert s.sign_flip(differences) == share


def test_drawn_signs_approach_the_exact_p() -> None:
    differences = np.random.default_rng(5).normal(0.45, 1.0, s.EXACT_FLIPS + 2).tolist()
    sums = np.array([differences[0]])
    for value in differences[1:]:
        sums = np.concatenate([sums + value, sums - value])
    exact = float(np.mean(np.abs(sums) >= abs(sum(differences)) - 1e-9))
    assert 0.01 < exact < 0.5
    error = math.sqrt(exact * (1 - exact) / s.FLIP_DRAWS)
    assert s.sign_flip(differences) == pytest.approx(exact, abs=4 * error)  # 4 standard errors
    assert s.sign_flip(differences) == s.sign_flip(differences)


def test_probability_of_improvement_counts_ties_half() -> None:
    assert s.probability_of_improvement([1.0, 2.0, -1.0, 0.0]) == (2 + 0.5) / 4


@pytest.mark.parametrize("differences", SAMPLES, ids=len)
@pytest.mark.parametrize("margin", [0.1, 1.0, 5.0])
def test_equivalence_is_two_one_sided_tests(differences: list[float], margin: float) -> None:
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert s.equivalence(differences, margin) == pytest.approx(max(above, below), rel=1e-9)


def test_equivalence_without_spread() -> None:
    assert s.equivalence([0.1] * 6, 0.2) == pytest.approx(2**-6)
    assert s.equivalence([0.3] * 6, 0.2) == 1
    for margin in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="margin must be > 0"):
            s.equivalence([0.1, 0.2], margin)


def _power(d: float, n: int, level: float) -> float:
    limit, shift = stats.t.isf(level / 2, n - 1), d * math.sqrt(n)
    return float(stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift))


@pytest.mark.parametrize("n", [2, 3, 5, 10, 54])
@pytest.mark.parametrize("d", [0.0, 0.3, 1.0, 1.5])
@pytest.mark.parametrize("comparisons", [1, 7])
def test_power_agrees_with_scipy(n: int, d: float, comparisons: int) -> None:
    expected = _power(d, n, s.ALPHA / comparisons)
    found = s.power(d, n, comparisons)
    if math.isnan(expected):  # scipy's noncentral t gives NaN where the lower tail underflows
        assert found > 0.99
    else:
        assert found == pytest.approx(expected, abs=1e-8)
    assert s.power(-d, n, comparisons) == found


def test_power_agrees_with_statsmodels() -> None:
    reference = pytest.importorskip("statsmodels.stats.power").TTestPower()
    for n, d in ((3, 1.5), (10, 1.0), (30, 0.5)):
        assert s.power(d, n, 7) == pytest.approx(reference.power(d, n, 0.05 / 7), abs=1e-8)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 100])
@pytest.mark.parametrize("comparisons", [1, 7])
def test_detectable_has_just_the_wanted_power(n: int, comparisons: int) -> None:
    least = s.detectable(n, comparisons)
    assert least is not None
    assert s.power(least, n, comparisons) == pytest.approx(s.POWER, abs=1e-6)


@pytest.mark.parametrize("d", [0.2, 0.5, 1.5, 5.0])
def test_seeds_needed_is_the_first_number_that_suffices(d: float) -> None:
    needed = s.seeds_needed(d, 7)
    assert needed is not None
    assert s.power(d, needed, 7) >= s.POWER > s.power(d, needed - 1, 7)
    assert s.seeds_needed(-d, 7) == needed


def test_hopeless_and_trivial_effects() -> None:
    assert s.seeds_needed(0.0) is None
    assert s.seeds_needed(1e-3) is None
    assert s.seeds_needed(1e9, 7) == 2
    assert s.detectable(1) is None


def test_evidence_in_words() -> None:
    assert "no difference" in s.evidence(1, 7)
    assert s.evidence(5, 0) == "one arm: nothing to compare"
    assert s.evidence(5, 1).endswith("1 comparison)")
    least = s.detectable(10, 7)
    assert least is not None
    shown = float(s.evidence(10, 7).split(" of ")[1].split(" sd")[0])
    assert least <= shown < least + 0.1  # rounded up, never down
    for n, comparisons in ((2, 1), (3, 7), (4, 1), (4, 20)):
        words, least = s.evidence(n, comparisons), s.detectable(n, comparisons)
        assert least is not None
        assert ("next to nothing" in words) == (least > s.NEXT_TO_NOTHING) == (" sd" not in words)


@pytest.mark.parametrize("n", [3, 10])
def test_the_interval_covers_as_often_as_it_says(n: int) -> None:
    studies = 3000
    samples = np.random.default_rng(0).normal(1.0, 2.0, (studies, n))
    found = [s.paired(sample.tolist()) for sample in samples]
    covered = sum(f.low <= 1.0 <= f.high for f in found if f.low is not None and f.high is not None)
    error = math.sqrt(0.05 * 0.95 / studies)
    assert covered / studies == pytest.approx(0.95, abs=3.5 * error)  # 3.5 standard errors
