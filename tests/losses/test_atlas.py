"""The atlas measures what calculus says, and says of the notes' table what it says here."""

import math

import pytest
import torch

import losses
from losses import atlas
from losses.atlas import claims, curves, expected, line, lines, measure, prepared
from losses.core import REGISTRY, loss

PORTRAITS: dict[str, atlas.Portrait] = {}


def found(name, title, **parameters):
    """One finding; portraits with default parameters are measured once."""
    if parameters:
        return measure(name, **parameters).findings[title]
    if name not in PORTRAITS:
        PORTRAITS[name] = measure(name)
    return PORTRAITS[name].findings[title]


@pytest.fixture(scope="module")
def notes():
    return claims.entries()


@pytest.fixture
def user_loss():
    """Register losses for one test."""
    before = set(REGISTRY)
    yield loss
    for name in set(REGISTRY) - before:
        del REGISTRY[name]


@pytest.mark.parametrize(
    ("name", "parameters", "title", "number"),
    [
        ("mse", {}, "scale", 2.0),
        ("mae", {}, "scale", 1.0),
        ("quantile", {}, "scale", 1.0),
        ("iou", {}, "scale", 0.0),
        ("giou", {}, "scale", 0.0),
        ("mse", {}, "robust", 1000.0),
        ("mae", {}, "robust", 1.0),
        ("huber", {}, "robust", 1.0),
        ("huber", {"delta": 10.0}, "robust", 10.0),  # delta over the slope at 1, which is 1
        ("log_cosh", {}, "robust", 1 / math.tanh(1)),
        ("pseudo_huber", {}, "robust", math.sqrt(2)),
        ("bce", {}, "robust", 2.0),  # 1 over 1/2
        ("cross_entropy", {}, "robust", 2.0),
        ("hinge", {}, "robust", 1.0),
        ("focal", {}, "robust", 4 / (math.log(2) + 0.5)),
        ("brier", {}, "robust", 0.0),
        ("mae", {}, "smooth", 2.0),
        ("quantile", {"q": 0.9}, "smooth", 1.0),
        ("hinge", {"margin": 3.0}, "smooth", 1.0),
        ("squared_hinge", {}, "smooth", 0.0),
        ("huber", {}, "smooth", 0.0),
        ("iou", {}, "smooth", 4.0),  # (1 - |x|) / (1 + |x|) has the slopes 2 and -2 at 0
        ("mse", {}, "convex", 2.0),
        ("mae", {}, "convex", 0.0),
        ("hinge", {}, "convex", 0.0),
        ("bce", {}, "saturates", 1.0),
        ("brier", {}, "saturates", 0.0),
        ("mse", {}, "saturates", 100.0),
        ("brier", {}, "bounded", 1.0),
        ("gce", {}, "bounded", 1 / 0.7),
        ("jensen_shannon", {}, "bounded", math.log(2)),
        ("giou", {}, "bounded", 2.0),
        ("bce", {}, "bounded", 1.0),  # here and below an exponent
        ("mse", {}, "bounded", 2.0),
        ("mae", {}, "at target", 1.0),
        ("huber", {}, "at target", 0.0),
        ("quantile", {"q": 0.9}, "at target", 0.9),
        ("mse", {}, "symmetric", 0.0),
        ("quantile", {"q": 0.9}, "symmetric", 0.8 * 4),  # 0.9 r against 0.1 r, out to r = 4
        ("bce", {}, "symmetric", 0.0),
        ("bce", {"pos_weight": 3.0}, "symmetric", 2 * math.log1p(math.exp(8))),
        ("binary_jaccard", {}, "proper", 0.6),
        ("quantile", {"q": 0.9}, "proper", 0.9),
    ],
)
def test_numbers_that_calculus_gives(name, parameters, title, number):
    # 0.001: the places on a grid are off round numbers by 1e-5 of the span, a ratio's limit is at
    # 1000 and not at infinity, and quantiles are those of 501 points
    assert found(name, title, **parameters).number == pytest.approx(number, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("title", "having", "lacking"),
    [
        (
            "robust",
            ["mae", "huber", "bce", "dice", "iou"],
            ["mse", "squared_hinge", "vae_kl"],
        ),
        ("smooth", ["mse", "huber", "charbonnier", "dice"], ["mae", "hinge", "triplet", "giou"]),
        ("convex", ["mse", "bce", "hinge", "poly1"], ["focal", "brier", "dice", "iou", "gce"]),
        ("saturates", ["dice", "brier", "iou", "jensen_shannon"], ["bce", "focal", "mse", "combo"]),
        ("scale", ["mse", "mae", "perceptron", "ciou", "cosface"], ["huber", "bce", "charbonnier"]),
        ("bounded", ["dice", "gce", "siglip", "diou"], ["mse", "bce", "msle", "contrastive"]),
        ("at target", ["mse", "bce", "huber", "dice"], ["mae", "wgan_critic", "giou", "triplet"]),
        (
            "symmetric",
            ["bce", "iou", "sensitivity_specificity"],
            ["kl", "binary_dice", "asymmetric"],
        ),
        (
            "proper",
            ["bce", "brier", "kl", "corn", "nll"],
            ["focal", "hinge", "dice", "gce"],
        ),
    ],
)
def test_who_has_a_property(title, having, lacking):
    assert [name for name in having if not found(name, title).holds] == []
    assert [name for name in lacking if found(name, title).holds is not False] == []


@pytest.mark.parametrize(
    ("name", "functional"),
    [("mse", "mean"), ("rmse", "mean"), ("poisson_nll", "mean"), ("tweedie", "mean"),
     ("gaussian_nll", "mean"), ("mae", "median"), ("msle", "log-mean"), ("huber", "none")],
)  # fmt: skip
def test_what_regression_losses_elicit(name, functional):
    assert found(name, "proper").short == functional


@pytest.mark.parametrize("level", [0.1, 0.75])
def test_the_pinball_loss_elicits_its_quantile(level):
    assert found("quantile", "proper", q=level).short == f"q{level:.2f}"


def test_the_minimiser_of_cross_entropy_is_the_distribution():
    for name in ("cross_entropy", "bce", "brier", "multiclass_brier", "corn"):
        for fit in expected.fits(prepared(losses.get(name), 3, {})):
            assert fit.found == pytest.approx(fit.given, abs=1e-6)  # of the finest grid 1e-7


def test_the_minimiser_of_focal_loss_solves_its_own_equation():
    """Where q f(p) + (1 - q) f(1 - p) is flat; f is the focal loss of a true class, gamma 2."""

    def derivative(p):
        return 2 * (1 - p) * math.log(p) - (1 - p) ** 2 / p

    for fit in expected.fits(prepared(losses.get("binary_focal"), 2, {})):
        q, p = fit.given[0], fit.found[0]
        assert q * derivative(p) == pytest.approx((1 - q) * derivative(1 - p), rel=1e-5)
        assert abs(p - 0.5) < abs(q - 0.5)  # it is never as sure as it should be


def test_dice_calls_more_the_object_than_is():
    fits = expected.fits(prepared(losses.get("binary_dice"), 2, {}))
    assert [fit.given[0] for fit in fits if not fit.decides] == [0.4]
    assert {round(fit.found[0], 3) for fit in fits} == {0.0, 1.0}


def test_an_expected_loss_is_minimised_wherever_its_least_point_lies():
    goal = torch.tensor([2.7182818, -1.4142135], dtype=torch.float64)
    best = line.least(lambda z: (z - goal).square().sum(1), -12, 12, 2)
    assert torch.allclose(best, goal, atol=1e-6)  # twice the finest step
    flat = line.least(lambda z: (z[:, 0].abs() - 1).clamp(min=0), -12, 12, 1)
    assert flat.abs() <= 1


@pytest.mark.parametrize("name", losses.names())
def test_the_drawn_gradient_is_the_slope_of_the_drawn_loss(name):
    entry = prepared(losses.get(name), 2, {})
    path = lines.line_of(entry)
    x = path.grid(9)
    value, slope = line.slopes(entry, path.inputs, x)
    step = 1e-7  # unitbox bends within 1e-5; the rounding of values is 1e-15 of them
    ends = [line.values(entry, path.inputs(x + way * step)) for way in (1, -1)]
    numeric = (ends[0] - ends[1]) / (2 * step)
    assert value.isfinite().all()
    if not entry.detached:  # whose gradient is not that of the value, by design
        assert torch.allclose(slope, numeric, rtol=1e-4, atol=1e-4 * float(value.abs().max() + 1))


@pytest.mark.parametrize("name", losses.names())
def test_every_mark_has_its_number_and_every_gap_its_reason(name):
    if name not in PORTRAITS:
        PORTRAITS[name] = measure(name)
    for finding in PORTRAITS[name].findings.values():
        assert (finding.number is None) == finding.words.startswith("does not apply: ")
        assert finding.holds is not None or finding.number is None
        assert "Error" not in finding.words
        assert len(finding.words) > 20
        assert len(finding.cell) <= 14


MEASURABLE = ("real", "binary", "index", "index or probabilities", "probabilities", "ordinal",
              "place", "boxes")  # fmt: skip


@pytest.mark.parametrize("name", losses.names())
def test_what_can_be_measured_is(name):
    if losses.get(name).target in MEASURABLE:
        if name not in PORTRAITS:
            PORTRAITS[name] = measure(name)
        missing = [k for k, f in PORTRAITS[name].findings.items() if f.number is None]
        assert missing == []


def test_the_notes_are_wrong_in_these_entries(notes):
    wrong = {(e.loss, e.column) for e in notes if e.verdict == "disagrees"}
    robust, smooth, classes, numbers = claims.COLUMNS
    assert wrong == {
        ("mse", classes), ("mae", classes), ("huber", classes), ("huber (delta = 10.0)", classes),
        ("cross_entropy", robust), ("hinge", robust),
        ("binary_dice", smooth), ("binary_dice", classes),
        ("binary_jaccard", smooth), ("binary_jaccard", classes),
        ("iou", classes), ("iou", numbers),
    }  # fmt: skip
    assert len(notes) == 4 * sum(len(claim.losses) for claim in claims.CLAIMS)


def test_focal_loss_is_less_robust_than_cross_entropy_not_more(notes):
    verdicts = {c.words.split(" is ")[0]: c.verdict for c in claims.contrasts(notes)}
    assert verdicts == {
        "focal (gamma = 0.5)": "disagrees",
        "focal": "disagrees",
        "focal (gamma = 5.0)": "disagrees",
        "binary_dice": "agrees",
        "MSE": "disagrees",
    }


def test_the_markdown_marks_every_entry(notes):
    text = claims.table(notes)
    cells = [cell for row in text.splitlines() if row.startswith("|") for cell in row.split("|")]
    assert sum(": agrees" in cell for cell in cells) == 36
    assert sum(": **disagrees**" in cell for cell in cells) == 12
    assert "36 of 48 entries agree" in text


def test_a_users_loss_is_measured_without_further_ado(user_loss):
    @user_loss("power_of_three_halves", target="real", source="none")
    def power(prediction, target):
        return (prediction - target).abs() ** 1.5

    findings = measure("power_of_three_halves").findings
    assert findings["scale"].number == pytest.approx(1.5)
    assert findings["robust"].number == pytest.approx(math.sqrt(1000))
    assert findings["smooth"].holds
    assert not findings["robust"].holds


def test_a_users_fields_are_measured_up_their_gradient(user_loss):
    def example(generator):
        return (torch.randn(3, 2, generator=generator, dtype=torch.float64),)

    facts = {"fields": {"what": "float N D"}, "example": example}

    @user_loss("sum_of_squares", target="fields", source="none", **facts)
    def squares(what):
        return what.square().sum(1)

    portrait = measure("sum_of_squares")
    assert "up its gradient" in portrait.coordinate
    assert portrait.findings["convex"].number == pytest.approx(2 / 3, rel=1e-3)  # mean of 3 items


def test_fields_named_like_ours_may_mean_something_else(user_loss):
    def example(generator):
        return (torch.randn(3, generator=generator, dtype=torch.float64),) * 2

    facts = {"fields": {"first": "float N", "second": "float N"}, "example": example}

    @user_loss("difference", target="fields", source="none", **facts)
    def difference(first, second):
        return (first - second - 1).square()

    assert "up its gradient" in measure("difference").coordinate


def test_a_loss_that_fails_midway_says_where(user_loss):
    @user_loss("brittle", target="real", source="none")
    def brittle(prediction, target):
        if bool((prediction - target).abs().max() > 500):
            raise RuntimeError("too far")
        return (prediction - target) ** 2

    findings = measure("brittle").findings
    assert findings["bounded"].words == "does not apply: RuntimeError: too far"
    assert findings["smooth"].holds


def test_a_jump_between_grid_points_is_found_in_full(user_loss):
    @user_loss("late_kink", target="real", source="none")
    def kink(prediction, target):
        residual = prediction - target
        return residual.abs() ** 3 + 0.08 * (residual - math.pi / 3).clamp(min=0)

    finding = measure("late_kink").findings["smooth"]  # less than the slope changes in a step
    assert finding.number == pytest.approx(0.08, rel=1e-5)
    assert not finding.holds


def test_thresholds_are_said_with_the_number():
    assert f"{curves.FLAT}" in found("bce", "saturates").words
    assert f"^{curves.GROWING}" in found("bce", "robust").words
    assert f"{expected.PROPER}" in found("bce", "proper").words


def test_unknown_names_and_values_are_refused():
    with pytest.raises(ValueError, match="did you mean 'focal'"):
        measure("focall")
    with pytest.raises(ValueError, match="gamma must be >= 0"):
        measure("focal", gamma=-1.0)
