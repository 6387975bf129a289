"""Properties every loss must have, each one a small function that can fail.

`check("focal")` runs all of them on a registered loss, `check(entry, gamma=0.5)` on any
:class:`~losses.core.Loss` with parameters of your choice. A loss may declare an exception (it
saturates, it is unbounded, ...); where a declaration can be put to the test, it is.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from losses.arguments import check_arguments
from losses.calls import OF_CLASSES
from losses.conformance import (  # noqa: F401 - they fill PROPERTIES and OF_FIELDS
    batches,
    fields_use,
    numbers,
    use,
)
from losses.conformance.base import PROPERTIES, Counterexample, NotApplicable
from losses.conformance.fields import BEYOND_FIELDS, OF_FIELDS
from losses.conformance.samples import own_tensors, settings
from losses.core import Loss, get
from losses.peers import Peer

BEYOND_PEERS = {
    "documented": "its documentation is its library's",
    "state": "what it holds is its library's",
}
"""Properties that say nothing about a loss of another library."""
Verdict = Literal["pass", "fail", "does not apply"]


@dataclass(frozen=True)
class Finding:
    """What one property found out about one loss; `reason` is empty when it passed."""

    property: str
    verdict: Verdict
    reason: str = ""


def check(loss: str | Loss, **parameters: Any) -> list[Finding]:
    """Run every property on a loss with these parameters.

    Args:
        loss: a registered name, or an entry that need not be registered.
        parameters: values for the loss's own parameters; the defaults otherwise.

    Raises:
        ValueError: no such loss or parameter, or a value it does not take.
    """
    entry = bind(get(loss) if isinstance(loss, str) else loss, **parameters)
    return [examine(name, entry) for name in PROPERTIES]


def examine(name: str, entry: Loss) -> Finding:
    """Run one property; whatever is raised inside a loss is a failure of the loss."""
    properties = PROPERTIES
    if isinstance(entry, Peer) and name in BEYOND_PEERS:
        return Finding(name, "does not apply", BEYOND_PEERS[name])
    if entry.target == "fields":
        properties = OF_FIELDS
        if name in BEYOND_FIELDS:
            return Finding(name, "does not apply", BEYOND_FIELDS[name])
    try:
        properties[name](entry)
    except NotApplicable as reason:
        return Finding(name, "does not apply", str(reason))
    except Counterexample as seen:
        return Finding(name, "fail", str(seen))
    except Exception as error:
        return Finding(name, "fail", in_a_line(error))
    return Finding(name, "pass")


def in_a_line(error: Exception) -> str:
    """What was raised and where, without the pages of a compiler's trace."""
    first, _, rest = str(error).strip().partition("\n")
    raised = re.search("raised exception (.*)", rest)  # in the code that was being compiled
    places = re.findall(r'File "(?:[^"]*[/\\])?([^"]+)", line (\d+)', rest)
    where = f" ({places[-1][0]}, line {places[-1][1]})" if places else ""
    words = f"{type(error).__name__}: {raised[1] if raised else first.rstrip(',')}"
    return words[:300] + where


def bind(entry: Loss, **parameters: Any) -> Loss:
    """The entry with parameters set; class counts get one number per class."""
    given = check_arguments(entry.name, entry.parameters, settings(entry) | parameters)
    per_class = [k for k in given if entry.parameters[k].annotation in OF_CLASSES]
    given |= {k: torch.tensor(given[k]) for k in per_class if isinstance(given[k], list)}

    def bound_to(formula: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(formula)
        def function(*inputs: Tensor, **others: Any) -> Any:
            fitted = {k: v.to(inputs[0]) if isinstance(v, Tensor) else v for k, v in given.items()}
            return formula(*inputs, **(fitted | others))

        return function

    bound = {k: replace(p, default=given.get(k, p.default)) for k, p in entry.parameters.items()}
    derivative = entry.derivative and bound_to(entry.derivative)
    total = entry.total and bound_to(entry.total)
    made = replace(
        entry,
        function=bound_to(entry.function),
        parameters=bound,
        derivative=derivative,
        total=total,
    )
    if entry.own:  # they go with every call that does not bring others
        own: dict[str, Any] = dict(own_tensors(made))
        vars(made)["parts"] = functools.partial(made.parts, **own)
    return made
