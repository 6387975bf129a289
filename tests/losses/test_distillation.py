"""Distillation against numpy, and what ties its forms together."""

import numpy as np
import pytest
import torch

import losses
from tests.losses.named import assert_agrees, draw


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def divergence(p, q):
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))


def per_column(function, student, *others):
    """Apply to the class axis of every item and place."""
    values = np.zeros((student.shape[0], student.shape[2]))
    for n, k in np.ndindex(values.shape):
        values[n, k] = function(student[n, :, k], *(other[n, ..., k] for other in others))
    return values


def distillation(student, teacher, temperature=4.0):
    def one(s, t):
        return temperature**2 * divergence(softmax(t / temperature), softmax(s / temperature))

    return per_column(one, student, teacher)


def dkd(student, teacher, target, temperature=4.0, target_weight=1.0, rival_weight=8.0):
    def one(s, t, label):
        q, p = softmax(s / temperature), softmax(t / temperature)
        on_target = divergence([p[label], 1 - p[label]], [q[label], 1 - q[label]])
        rest = [np.delete(x, label) / (1 - x[label]) for x in (p, q)]
        return temperature**2 * (target_weight * on_target + rival_weight * divergence(*rest))

    return per_column(one, student, teacher, target)


REFERENCES = {"distillation": distillation, "dkd": dkd}
CASES = [
    ("distillation", {}),
    ("distillation", {"temperature": 1.0}),
    ("dkd", {}),
    ("dkd", {"temperature": 1.0, "target_weight": 0.5, "rival_weight": 2.0}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_values_and_gradients_are_the_reference(name, given):
    assert_agrees(name, REFERENCES[name], *draw(name), **given)


def test_at_temperature_1_it_is_the_divergence_from_the_teacher():
    student, teacher = draw("distillation")
    ours = losses.distillation(student, teacher, temperature=1.0)
    torch.testing.assert_close(ours, losses.kl(student, teacher.softmax(1)))


def test_at_high_temperatures_it_matches_centred_scores():
    """Hinton's limit: half the variance of the difference of scores over classes."""
    student, teacher = draw("distillation")
    expected = (student - teacher).var(1, correction=0) / 2
    values = losses.distillation(student, teacher, temperature=1e4, reduction="none")
    # the next term of the expansion in 1 / T is of the size of the scores, below 20, over T
    torch.testing.assert_close(values, expected, rtol=1e-2, atol=1e-4)


def test_distillation_is_the_decoupled_form_with_the_teachers_doubt_as_weight():
    """Where the teacher is equally sure of every item's class the weight is one number."""
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(4, generator=generator, dtype=torch.float64)
    orders = torch.stack([torch.randperm(4, generator=generator) for _ in range(9)])
    teacher = one[orders]  # the same scores in other orders
    target = (orders == 2).int().argmax(1)
    student = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    doubt = 1 - (one / 2).softmax(0)[2].item()
    whole = losses.distillation(student, teacher, temperature=2.0, reduction="none")
    given = {"temperature": 2.0, "target_weight": 1.0, "rival_weight": doubt}
    parts = losses.dkd(student, teacher, target, reduction="none", **given)
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("name", ["distillation", "dkd"])
def test_the_teacher_is_the_optimum_and_learns_nothing(name):
    student, teacher, *target = draw(name)
    teacher = teacher.requires_grad_()
    module = losses.build(name)
    module(student.requires_grad_(), teacher, *target).backward()
    assert teacher.grad is None
    assert student.grad.any()
    same = teacher.detach().clone().requires_grad_()
    value = module(same + 3.0, teacher, *target)  # scores are compared up to a shift
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-14)
    assert same.grad.abs().max().item() == pytest.approx(0, abs=1e-14)


def test_among_rivals_the_true_score_does_not_matter():
    student, teacher, target = draw("dkd")
    given = {"target_weight": 0.0, "reduction": "none"}
    moved = student + 5 * torch.nn.functional.one_hot(target, 4).movedim(-1, 1)
    expected = losses.dkd(student, teacher, target, **given)
    torch.testing.assert_close(losses.dkd(moved, teacher, target, **given), expected)
    two = [field[:, :2] for field in (student, teacher)]
    alone = losses.dkd(*two, target.clamp(max=1), **given)  # a single rival is certain
    torch.testing.assert_close(alone, torch.zeros_like(alone))


def test_a_sure_and_mistaken_student_is_corrected():
    student = torch.tensor([[1e4, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1e4, 0.0]])
    for loss in (
        losses.distillation(student, teacher),
        losses.dkd(student, teacher, torch.ones(1).long()),
    ):
        (slope,) = torch.autograd.grad(loss, student)
        assert slope[0, 0] > 0.1
        assert slope.isfinite().all()


@pytest.mark.parametrize(
    ("name", "given"), [("distillation", {}), ("dkd", {}), ("dkd", {"rival_weight": 0.0})]
)
def test_a_large_common_offset_costs_no_digits(name, given):
    """In float32, with scores that hold the offset exactly."""
    student, teacher, *target = draw(name)
    scores = [(4 * field).round().float() / 4 for field in (student, teacher)]
    module = losses.build(name, temperature=1.0, reduction="none", **given)
    moved = module(*(field + 2.0**14 for field in scores), *target)
    torch.testing.assert_close(moved, module(*scores, *target), rtol=1e-5, atol=1e-6)
