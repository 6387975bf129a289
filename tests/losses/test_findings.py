"""What a property found out is said in one line."""

import pytest
import torch

from losses.arguments import parameters_of
from losses.conformance import examine
from losses.core import Loss


def branching(output, target):
    return (output - target) ** 2 if output.sum() > 0 else 2 * (output - target) ** 2


def refusing(output, target):
    if torch.compiler.is_compiling():
        raise KeyError("not under a compiler")
    return (output - target) ** 2


def leaking(output, target):
    return (output - target) ** 2 * output.detach()


@pytest.mark.parametrize(
    ("prop", "function", "words"),
    [
        ("compile", branching, "Unsupported: Data-dependent branching"),
        ("compile", refusing, "not under a compiler"),
        ("vmap", branching, "RuntimeError: vmap"),
        ("gradcheck", leaking, "GradcheckError: Jacobian mismatch"),
    ],
)
def test_what_a_library_raises_is_one_line(prop, function, words):
    entry = Loss("broken", function, "real", "nowhere", parameters_of(function))
    finding = examine(prop, entry)
    assert finding.verdict == "fail"
    assert words in finding.reason
    assert "\n" not in finding.reason
    assert len(finding.reason) < 400
    if prop == "compile":
        assert finding.reason.endswith(f"({__file__.rpartition('/')[2]}, line {_raised(function)})")


def _raised(function):
    """The line of the function that cannot be compiled: its first, or its second."""
    return function.__code__.co_firstlineno + (1 if function is branching else 2)
