"""The atlas: what tables of losses assert, measured.

`measure("focal")` gives a loss's numbers (is its gradient bounded, does it jump, is it convex in
the logit, what does its least expected value predict) and the curve to draw. Every finding has its
number and the threshold that makes it a yes or a no; the functions of :data:`PROPERTIES` define
them. Whatever is registered can be measured; nothing here knows a loss by its name but
:mod:`losses.atlas.claims`, which holds the notes' table against the measured one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, ones

from losses.atlas import curves
from losses.atlas.expected import proper
from losses.atlas.finding import Finding, nothing
from losses.atlas.line import Line, slopes
from losses.atlas.lines import line_of
from losses.conformance import bind
from losses.conformance.samples import CLASSES, settings
from losses.core import Loss, get

Measurement = Callable[[Loss, Line], Finding]
PROPERTIES: dict[str, Measurement] = {
    "robust": curves.robust,
    "smooth": curves.smooth,
    "convex": curves.convex,
    "saturates": curves.saturates,
    "scale": curves.scale,
    "bounded": curves.bounded,
    "at target": curves.at_target,
    "symmetric": curves.symmetric,
    "proper": proper,
}
"""Titles of the table's columns, and what measures each."""
DRAWN = 121


@dataclass(frozen=True)
class Portrait:
    """What was measured of one loss.

    Attributes:
        name: the loss.
        parameters: those that were not left at their defaults.
        target: the kind of target, "fields" or "binary (region)", say.
        inputs: the names of what the loss takes.
        coordinate: what the line's x is.
        right: the place of the target on it, None where it is not known; may be infinite.
        curve: places, loss and gradient, each a list of numbers.
        findings: by the titles of :data:`PROPERTIES`.
    """

    name: str
    parameters: dict[str, Any]
    target: str
    inputs: tuple[str, ...]
    coordinate: str
    right: float | None
    curve: tuple[list[float], list[float], list[float]]
    findings: dict[str, Finding]

    @property
    def title(self) -> str:
        """The name, with what differs from the defaults."""
        given = ", ".join(f"{key} = {value}" for key, value in self.parameters.items())
        return f"{self.name} ({given})" if given else self.name


def measure(loss: str | Loss, **parameters: Any) -> Portrait:
    """Measure everything of one loss.

    Args:
        loss: a registered name, or an entry that need not be registered.
        parameters: values for its own parameters; the defaults otherwise, and classes of one size.

    Raises:
        ValueError: no such loss or parameter, or a value that it does not take.
    """
    given = get(loss) if isinstance(loss, str) else loss
    entry = prepared(given, 2, parameters)
    three = prepared(given, 3, parameters)
    line = line_of(entry)
    findings = {
        name: _found(finds, three if name == "proper" and _per_class(given) else entry, line)
        for name, finds in PROPERTIES.items()
    }
    return Portrait(
        given.name,
        parameters,
        given.target + (" (region)" if given.region else ""),
        given.inputs,
        line.coordinate,
        line.right,
        _curve(entry, line),
        findings,
    )


def prepared(entry: Loss, classes: int, parameters: dict[str, Any]) -> Loss:
    """The loss with its parameters; factors and counts per class are all alike."""
    if entry.target == "labels" or entry.own:
        classes = CLASSES
    alike = {name: ones(classes) for name in _per_class(entry)}
    return bind(entry, **(alike | parameters))


def _per_class(entry: Loss) -> list[str]:
    return [name for name, value in settings(entry).items() if isinstance(value, Tensor)]


def _found(finds: Measurement, entry: Loss, line: Line) -> Finding:
    """A finding, whatever somebody's loss does."""
    try:
        return finds(entry, line)
    except Exception as error:
        return nothing(f"{type(error).__name__}: {error}")


def _curve(entry: Loss, line: Line) -> tuple[list[float], list[float], list[float]]:
    x = line.grid(min(line.points, DRAWN))
    value, slope = slopes(entry, line.inputs, x)
    return tuple([float(f"{n:.6g}") for n in row.tolist()] for row in (x, value, slope))  # type: ignore[return-value]
