"""Parameters read from signatures: what is accepted, what it becomes, what an error says."""

import dataclasses
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
import torch
from torch import Tensor

from losses.arguments import (
    Bounds,
    ClassWeight,
    Count,
    NonNegative,
    PerClass,
    Positive,
    Share,
    check_arguments,
    convert,
    describe,
    nearest,
    parameters_of,
)

Inside = Annotated[float, Bounds(0, 1, low_open=True, high_open=True)]
TENSOR = torch.tensor([1.0, 2.0])


@dataclasses.dataclass
class Inner:
    depth: Count
    rate: Positive = 0.1


@dataclasses.dataclass
class Outer:
    inner: Inner
    name: str = "x"
    several: list[int] = dataclasses.field(default_factory=lambda: [1, 2])


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "text"),
    [
        (Bounds(0), [0, 1e9, math.inf], [-1e-9, math.nan], ">= 0"),
        (Bounds(0, low_open=True), [1e-9], [0, -1], "> 0"),
        (Bounds(0, 1), [0, 0.5, 1], [-0.1, 1.1], ">= 0 and <= 1"),
        (Bounds(-1, 0.5, True, True), [0, -0.9], [-1, 0.5], "> -1 and < 0.5"),
        (Bounds(high=3), [3, -math.inf], [3.1], "<= 3"),
        (Bounds(), [0, math.inf, -math.inf], [math.nan], "any number"),
    ],
)
def test_bounds(bounds, inside, outside, text):
    assert all(number in bounds for number in inside)
    assert not any(number in bounds for number in outside)
    assert str(bounds) == text


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (float, 2, 2.0),
        (float, 2.5, 2.5),
        (int, 3, 3),
        (bool, False, False),
        (str, "a", "a"),
        (None, None, None),
        (Any, object, object),
        (Positive, 1, 1.0),
        (Share, 1, 1.0),
        (Count, 1, 1),
        (float | None, None, None),
        (float | None, 1, 1.0),
        (Positive | None, 3, 3.0),
        (int | str, "3", "3"),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], 2, 2),
        (list[float], [1, 2], [1.0, 2.0]),
        (Sequence[float], (1, 2), [1.0, 2.0]),
        (list[list[int]], [[1], []], [[1], []]),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (ClassWeight, [1, 2.5], [1.0, 2.5]),
        (ClassWeight, "balanced", "balanced"),
        (ClassWeight, None, None),
        (PerClass, None, None),
        (Inner, {"depth": 2}, Inner(2, 0.1)),
        (Inner, Inner(5), Inner(5)),
        (Outer, {"inner": {"depth": 1, "rate": 2}}, Outer(Inner(1, 2.0), "x", [1, 2])),
        (list[Inner], [{"depth": 1}], [Inner(1)]),
    ],
)
def test_what_fits_is_converted(annotation, value, expected):
    result = convert("loss.x", annotation, value)
    assert result == expected
    assert type(result) is type(expected)


def test_tensors_stay_what_they_are():
    assert convert("loss.x", ClassWeight, TENSOR) is TENSOR
    assert convert("loss.x", Tensor, TENSOR) is TENSOR


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (float, "2", "loss.x must be number, got '2'"),
        (float, True, "loss.x must be number, got True"),
        (float, math.nan, "loss.x must be number, got nan"),
        (float, None, "loss.x must be number, got None"),
        (int, 2.0, "loss.x must be whole number, got 2.0"),
        (int, True, "loss.x must be whole number, got True"),
        (bool, 1, "loss.x must be true or false, got 1"),
        (bool, "true", "loss.x must be true or false, got 'true'"),
        (str, 1, "loss.x must be text, got 1"),
        (Positive, 0, "loss.x must be > 0, got 0"),
        (NonNegative, -1.5, "loss.x must be >= 0, got -1.5"),
        (Share, 1.1, "loss.x must be >= 0 and <= 1, got 1.1"),
        (Inside, 1, "loss.x must be > 0 and < 1, got 1"),
        (Count, 0, "loss.x must be >= 1, got 0"),
        (Count, 1.0, "loss.x must be whole number >= 1, got 1.0"),
        (Positive | None, -1, "loss.x must be number > 0 or null, got -1"),
        (int | str, 1.5, "loss.x must be whole number or text, got 1.5"),
        (Literal["a", "b"], "c", "loss.x must be one of a, b, got 'c'"),
        (Literal["a", "b"], ["a"], "loss.x must be one of a, b, got ['a']"),
        (Literal[1, 2], True, "loss.x must be one of 1, 2, got True"),
        (Literal[1, 2], 1.0, "loss.x must be one of 1, 2, got 1.0"),
        (list[float], 1, "loss.x must be a list of number, got 1"),
        (list[str], "ab", "loss.x must be a list of text, got 'ab'"),
        (list[float], [1, "b"], "loss.x[1] must be number, got 'b'"),
        (Sequence[NonNegative], [1, -1], "loss.x[1] must be >= 0, got -1"),
        (Mapping[str, int], [1], "loss.x must be a mapping, got [1]"),
        (ClassWeight, 3, "loss.x must be a list with one number >= 0 per class, a scheme's name"),
        (PerClass, "balanced", "loss.x must be a list with one number >= 0 per class, or null"),
        (Inner, 3, "loss.x must be a mapping of depth, rate, got 3"),
        (Inner, {"depth": 0}, "loss.x.depth must be >= 1, got 0"),
        (Inner, {"dept": 1}, "loss.x has no parameter 'dept'; did you mean 'depth'?"),
        (Inner, {}, "loss.x needs depth: whole number >= 1"),
        (Outer, {"inner": {"depth": 1, "rate": -1}}, "loss.x.inner.rate must be > 0, got -1"),
        (list[Inner], [{"depth": 1}, {}], "loss.x[1] needs depth: whole number >= 1"),
    ],
)
def test_what_does_not_fit_is_refused(annotation, value, message):
    with raises(message) as error:
        convert("loss.x", annotation, value)
    assert "\n" not in str(error.value)


def test_a_tensor_is_compared_with_nothing():
    with raises("loss.x must be one of a, b, got tensor([1., 2.])"):
        convert("loss.x", Literal["a", "b"], TENSOR)


def test_parameters_of_a_function_are_its_keywords():
    def function(output, target, *, gamma: Positive, power: "Literal[1, 2]" = 1):
        """Only what follows the star can be set."""

    found = parameters_of(function)
    assert list(found) == ["gamma", "power"]
    assert found["gamma"].required
    assert not found["power"].required
    assert str(found["gamma"]) == "gamma: number > 0"
    assert str(found["power"]) == "power: one of 1, 2 = 1"


def test_parameters_of_a_dataclass_are_its_fields():
    found = parameters_of(Outer)
    assert list(found) == ["inner", "name", "several"]
    assert found["inner"].default is inspect.Parameter.empty
    assert found["several"].default == [1, 2]
    assert found["several"].default is not parameters_of(Outer)["several"].default


def test_check_arguments_converts_what_is_given_and_no_more():
    parameters = parameters_of(Inner)
    assert check_arguments("inner", parameters, {"depth": 2, "rate": 3}) == {
        "depth": 2,
        "rate": 3.0,
    }
    assert check_arguments("inner", parameters, {"depth": 2}) == {"depth": 2}
    with raises("inner needs depth: whole number >= 1"):
        check_arguments("inner", parameters, {"rate": 3})
    with raises("inner has no parameter '1'; there are depth, rate"):
        check_arguments("inner", parameters, {1: 2})


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Positive | None, "number > 0 or null"),
        (list[Count], "a list of whole number >= 1"),
        (dict[str, int], "a mapping"),
        (Any, "anything"),
        (Tensor, "Tensor"),
    ],
)
def test_describe(annotation, words):
    assert describe(annotation) == words


def test_nearest():
    assert nearest("gama", ["gamma", "alpha"]) == "; did you mean 'gamma'?"
    assert (
        nearest("iou", ["complete_box_iou", "alpha_iou_loss", "x"])
        == "; did you mean 'alpha_iou_loss'?"
    )
    assert nearest("max", ["mae", "soft_max", "max_hinge"]) == "; did you mean 'max_hinge'?"
    assert nearest("max", ["mae", "soft_max"]) == "; did you mean 'soft_max'?"
    assert nearest("irs", ["digit_pairs", "iris"]) == "; did you mean 'iris'?"
    assert nearest("irs", ["digit_pairs", "x"]) == "; did you mean 'digit_pairs'?"
    assert nearest("c", ["focal", "ce"]) == "; did you mean 'ce'?"
    many = nearest("?", [f"name_{i:02}" for i in range(33)])
    assert many.endswith("name_18, name_19 and 13 more")
    assert nearest("zzz", ["gamma", "alpha"]) == "; there are alpha, gamma"
    assert nearest("zzz", ["gamma"]) == "; there is gamma"
    assert nearest("zzz", []) == "; it has none"
