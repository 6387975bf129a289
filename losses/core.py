"""The registry of losses and the one place of reduction.

An author writes the maths, one value per item, and registers it with :func:`loss`. Everything else
that a loss must do alike is done here, once: shapes and labels are checked, half precision is
computed in float32, ignored items are masked, and values become a scalar. Numerator and denominator
stay apart (:meth:`Loss.fraction`) until somebody divides, so that batches split over processes or
over gradient-accumulation steps can be put together exactly.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from losses import fused
from losses.arguments import (
    Bounds,
    Parameter,
    look_up,
    nearest,
    parameters_of,
)
from losses.calls import Reduction, checked, in_order, own_apart, torch_like
from losses.inputs import (
    IGNORE_INDEX,
    IGNORING,
    as_declared,
    as_field,
    as_numbers,
    autocast_off,
    check_fields,
    check_own,
    check_shapes,
    fitted,
    kept_items,
    like,
    over_classes,
    upcast,
)

Target = Literal[
    "index",
    "index or probabilities",
    "probabilities",
    "ordinal",
    "place",
    "binary",
    "real",
    "boxes",
    "labels",
    "fields",
]
"""What a loss compares its output with.

- `index`: output [N, C, ...], target int [N, ...] holding class indices.
- `index or probabilities`: the same, or float [N, C, ...] holding one distribution over C.
- `probabilities`: float [N, C, ...]; class indices are accepted and turned into one-hot rows.
- `ordinal`: output [N, C - 1, ...], one question per step between ordered classes, target int
  [N, ...] holding indices of the C classes.
- `place`: output [N, K, ...] over K bins, target [N, ...] from 0 to K - 1, at a bin or between two.
- `binary`: output [...], target of the same shape in [0, 1], of any dtype.
- `real`: output [...], target of the same shape, any finite number; with `heads` above 1, output
  [N, heads, ...] and target [N, ...].
- `boxes`: output and target [N, 4], corners x1, y1, x2, y2; one value per box.
- `labels`: output [N, D] of embeddings, target int [N] saying which items belong together.
- `fields`: whatever tensors the function's own signature names, one item per row of each.
"""


Ready = tuple[Tensor, Tensor, Tensor | None, dict[str, Any]]
"""Output, target, which items count, parameters; see :meth:`Loss.ready`."""


class Parts(NamedTuple):
    """Unreduced values and what each contributes to the denominator of the mean."""

    values: Tensor
    counts: Tensor | None  # None: every value counts 1


class Fraction(NamedTuple):
    """A mean that has not been divided yet: sum of values, sum of counts; both scalars."""

    numerator: Tensor
    denominator: Tensor


@dataclass(frozen=True)
class Loss:
    """One registered loss: its maths and what is known about it.

    Attributes:
        name: the name in configs, snake case.
        function: the author's (output, target, **parameters) to values, or to (values, counts).
        target: what it compares with, see :data:`Target`.
        source: paper or book, with equation where there is one.
        parameters: the keyword-only parameters of `function`.
        minimum: the value for a perfect, confident prediction; None where there is no fixed one.
        finish: applied to the mean after the division (a root, say); such a loss has no "sum".
        sum_classes: the author's values are per element [N, C, ...]; an item is their sum over C.
        region: the author sums over elements himself: he is given `kept`, a mask of the target's
            shape or None where every element counts, and returns values and counts [N, K].
        sums: such a loss that takes its sums from :mod:`losses.regions`, by kernels if asked for.
        example: for `fields`: from a generator to tensors such as the loss takes, in float64.
        fields: for `fields`: what each input is, `float N T C`, `int N` or `bool N T`; a letter is
            one size wherever it stands, `...` at an end any further axes, the same everywhere.
            `int<C N` holds indices into an axis named before, `int<=T N` lengths along one. Its own
            tensors may stand here too.
        limits: for `fields`: where the named float inputs must lie, if not anywhere.
        own: tensors of the loss itself, named like the function's last positional parameters, and
            what makes each: a function of keywords, sizes such as `classes` and a `generator`.
            Floats are learnt, integers kept. With `labels` they are class vectors [C, D]
            or numbers per class [C].
        heads: values the output holds per real target, along axis 1 (a mean and a variance, say).
        point: from the output to the value it predicts, where that is not the output itself.
        within: where real targets must lie, if not anywhere.
        output_within: where outputs must lie, if not anywhere (log-probabilities are at most 0).
        additive: whether the sum over a batch is the sum over its parts.
        saturating: why the gradient vanishes for confident mistakes, if it does.
        unbounded: why large outputs overflow by definition, if they do.
        quality: whether the target of a positive says how good it is, not only that it is one.
        derivative: the same maths by hand, (output, target, **parameters) to (values, derivative)
            or (values, derivative, counts): the derivative of the sum of values by the output, of
            its shape. Evaluated without a graph, on pieces of a batch, see :mod:`losses.fused`; for
            losses with one value per item that depends on no other item. With an argument `into`
            it writes the derivative there, if given a tensor.
        total: torch's own function for the sum or mean of all values, (output, target, reduction=,
            **parameters) to a scalar that every value counts 1 in, or to None where torch has none
            for these parameters: torch adds up without keeping the values.
        detached: which inputs carry no gradient by design, if any; `fields` by their names.
        nonmonotone: why moving towards the target need not lower it, if so.
        opaque: why no graph of `torch.compile` holds it, nor a GPU runs it without waiting, if so.
    """

    name: str
    function: Callable[..., Tensor | tuple[Tensor, Tensor]]
    target: Target
    source: str
    parameters: dict[str, Parameter]
    minimum: float | None = 0.0
    finish: Callable[[Tensor], Tensor] | None = None
    sum_classes: bool = False
    region: bool = False
    sums: bool = False
    example: Callable[[torch.Generator], tuple[Tensor, ...]] | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, Bounds] = field(default_factory=dict)
    own: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    heads: int = 1
    point: Callable[[Tensor], Tensor] | None = None
    within: Bounds | None = None
    output_within: Bounds | None = None
    quality: bool = False
    derivative: Callable[..., tuple[Tensor, ...]] | None = None
    total: Callable[..., Tensor | None] | None = None
    additive: bool = True
    saturating: str | None = None
    unbounded: str | None = None
    detached: str | None = None
    nonmonotone: str | None = None
    opaque: str | None = None

    @functools.cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors it takes, in order, without those of its own."""
        given = inspect.signature(self.function).parameters
        others = {*self.parameters, *self.own, "kept"}
        return tuple(name for name in given if name not in others)

    @property
    def ignoring(self) -> bool:
        """Whether items can be marked as not counting."""
        return self.target in IGNORING

    @functools.cached_property
    def sizes(self) -> dict[str, Parameter]:
        """What must be known to make its own tensors, beside its parameters: `classes`, say."""
        needed = {k: v for make in self.own.values() for k, v in parameters_of(make).items()}
        known = {"generator", *self.parameters}
        return {name: size for name, size in needed.items() if name not in known}

    def make_own(
        self, sizes: Mapping[str, Any], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Fresh tensors of its own; random ones from the generator or else torch's global one.

        `sizes` are those of :attr:`sizes`, and parameters that are not to have their default.
        """
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        given = {**defaults, **sizes, "generator": generator}
        return {
            name: make(**{key: given[key] for key in parameters_of(make)})
            for name, make in self.own.items()
        }

    def parts(self, *inputs: Tensor, ignore_index: int = IGNORE_INDEX, **parameters: Any) -> Parts:
        """Check, upcast, mask, and evaluate; see :data:`Target` for shapes.

        Raises:
            ValueError: shapes that do not belong together, a target of the wrong type, labels or
                probabilities out of range (checked on the CPU in eager mode only), bad parameters.
        """
        if self.target == "fields":
            return self._parts_of_fields(inputs, parameters)
        return self.plain(*self.ready(inputs, ignore_index, parameters))

    def ready(
        self, inputs: tuple[Tensor, ...], ignore_index: int, parameters: dict[str, Any]
    ) -> Ready:
        """Checked, in the types the maths wants: output, target, which items count, parameters."""
        if len(inputs) != 2:
            wanted = " and ".join(self.inputs)
            raise ValueError(f"{self.name} needs {wanted}, got {len(inputs)} positional arguments")
        output, target = inputs
        check_shapes(self, output, target)
        output = upcast(output)
        kept, extremes = kept_items(self, target, ignore_index)
        if kept is not None:
            target = torch.where(kept, target, 0)
        target = as_declared(self, output, target, kept, extremes)
        parameters = {k: fitted(self, k, v, output) for k, v in parameters.items()}
        check_own(self, output, target, parameters)
        return output, target, kept, parameters

    def plain(
        self, output: Tensor, target: Tensor, kept: Tensor | None, parameters: dict[str, Any]
    ) -> Parts:
        """The author's maths on what is checked, without what is ignored."""
        target = as_numbers(self, target, output)
        if kept is not None:
            output = torch.where(over_classes(kept, output), output, 0)
        with autocast_off(output):
            if self.region:
                return Parts(*self.function(output, target, kept=kept, **parameters))
            parts = _as_parts(self.function(output, target, **parameters))
        if self.additive and parts.values.shape[:1] != output.shape[:1]:
            raise ValueError(
                f"{self.name} must return one value per item, {len(output)} of them, and leave the "
                f"reduction to its caller; got shape {list(parts.values.shape)}"
            )
        parts = parts if kept is None else _masked(parts, kept)
        return _summed_over_classes(parts) if self.sum_classes else parts

    def _parts_of_fields(self, inputs: tuple[Tensor, ...], parameters: dict[str, Any]) -> Parts:
        check_fields(self, inputs, {name: parameters[name] for name in self.own})
        raised = tuple(as_field(given) for given in inputs)
        own = {name: like(parameters[name], raised[0]) for name in self.own}
        with autocast_off(raised[0]):
            return _as_parts(self.function(*raised, **(parameters | own)))

    def fraction(self, *inputs: Tensor, **parameters: Any) -> Fraction:
        """Sum of values and sum of counts, undivided."""
        if self.total is None and self.derivative is None:
            return _fraction(self.parts(*inputs, **parameters))
        ignored = parameters.pop("ignore_index", IGNORE_INDEX)
        return self._undivided(self.ready(inputs, ignored, parameters))

    def mean(self, *inputs: Tensor, **parameters: Any) -> Tensor:
        """That of all values, 0 where nothing was counted."""
        ignored = parameters.pop("ignore_index", IGNORE_INDEX)
        ready = self.ready(inputs, ignored, parameters)
        mean = None if self.sum_classes else self._by_torch("mean", ready)
        if mean is None or not ready[0].numel():
            return self.divide(self._undivided(ready))
        return self.finish(mean) if self.finish else mean

    def _by_torch(self, reduction: Reduction, ready: Ready) -> Tensor | None:
        output, target, kept, given = ready
        if self.total is None or kept is not None:
            return None
        with autocast_off(output):
            numbers = as_numbers(self, target, output)
            return self.total(output, numbers, reduction=reduction, **given)

    def _undivided(self, ready: Ready) -> Fraction:
        output, target, kept, given = ready
        total = self._by_torch("sum", ready)
        if total is not None:
            return Fraction(total, total.new_full((), self._values_of(output, target)))
        if fused.applies(self, (output, target), given):
            with autocast_off(output):
                return Fraction(*fused.fraction(self, output, target, kept, given))
        return _fraction(self.plain(output, target, kept, given))

    def _values_of(self, output: Tensor, target: Tensor) -> int:
        """How many values there are, one per item, where nothing is ignored."""
        rows = self.target == "index or probabilities" and target.is_floating_point()
        per_item = output.shape[1] if rows or self.sum_classes else 1
        return target.numel() // per_item

    def divide(self, fraction: Fraction) -> Tensor:
        """The mean: numerator over denominator, 0 where nothing was counted."""
        counted = fraction.denominator != 0
        mean = fraction.numerator / torch.where(counted, fraction.denominator, 1)
        return self.finish(mean) if self.finish else mean

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name: the function's own name leads to its torch-like form."""
        registered = REGISTRY.get(self.name) is self
        return (get, (self.name,)) if registered else super().__reduce__()


REGISTRY: dict[str, Loss] = {}
RESERVED = {"weight", "loss", "biases", "mix", "reduction", "ignore_index"}
"""What a term of an objective says beside its loss's own parameters."""


def loss(
    name: str, *, target: Target, source: str, **facts: Any
) -> Callable[[Callable[..., Any]], Callable[..., Tensor]]:
    """Register a function (output, target, *, parameters) and return its torch-like form.

    The returned function takes the tensors in order or by name, `reduction` ("mean" as the default,
    "sum", "none") and, where targets may be class indices or binary integers, `ignore_index`
    (-100). `facts` are fields of :class:`Loss`.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Tensor]:
        if name in REGISTRY:
            raise ValueError(f"loss '{name}' is registered twice")
        parameters = {k: v for k, v in parameters_of(function).items() if k != "kept"}
        if target not in get_args(Target):
            kinds = get_args(Target)
            raise ValueError(
                f"loss '{name}': there is no target '{target}'{nearest(target, kinds)}"
            )
        for taken in RESERVED & {name, *parameters}:
            raise ValueError(f"loss '{name}': '{taken}' already means something in a config")
        entry = Loss(name, function, target, source, parameters, **facts)
        REGISTRY[name] = entry

        @functools.wraps(function)
        def call(*inputs: Tensor, reduction: Reduction = "mean", **given: Any) -> Tensor:
            inputs, own = own_apart(entry, in_order(entry, inputs, given))
            return reduce(entry, reduction, inputs, checked(entry, given) | own)

        call.__signature__ = torch_like(function, entry)  # type: ignore[attr-defined]
        call.__doc__ = f"{inspect.getdoc(function)}\n\nSource: {source}\n"
        return call

    return register


def get(name: str) -> Loss:
    """The registered loss of that name, or another library's: `monai/DiceCELoss`.

    Raises:
        ValueError: no such loss; the message has the nearest name.
    """
    if "/" in name and name not in REGISTRY:
        from losses import peers  # which needs this module

        return peers.get(name)
    return look_up("loss", name, REGISTRY)


def names() -> list[str]:
    """Names of all registered losses, sorted; penalties have :func:`losses.penalty_names`."""
    return sorted(REGISTRY)


def _as_parts(result: Tensor | tuple[Tensor, Tensor]) -> Parts:
    return Parts(*result) if isinstance(result, tuple) else Parts(result, None)


def check_reduction(entry: Loss, reduction: str) -> None:
    """Raise ValueError unless the loss has this reduction."""
    allowed = ("mean",) if entry.finish else ("mean", "sum", "none")
    if reduction not in allowed:
        raise ValueError(
            f"{entry.name}: reduction must be one of {', '.join(allowed)}, got {reduction!r}"
        )


def reduce(
    entry: Loss, reduction: str, inputs: tuple[Tensor, ...], parameters: dict[str, Any]
) -> Tensor:
    """The values of a loss as one of torch's three reductions."""
    check_reduction(entry, reduction)
    if reduction == "none":
        return entry.parts(*inputs, **parameters).values
    if entry.total is not None or fused.applies(entry, inputs, parameters):
        if reduction == "mean":
            return entry.mean(*inputs, **parameters)
        return entry.fraction(*inputs, **parameters).numerator
    parts = entry.parts(*inputs, **parameters)
    if reduction == "sum":
        return parts.values.sum()
    if parts.counts is None and entry.finish is None and parts.values.numel():
        return parts.values.mean()
    return entry.divide(_fraction(parts))


def _fraction(parts: Parts) -> Fraction:
    values, counts = parts
    total = values.sum()
    number = total.new_full((), values.numel()) if counts is None else counts.sum()
    return Fraction(total, number)


def _masked(parts: Parts, kept: Tensor) -> Parts:
    """Zero what is ignored; values have the shape of `kept`, or a class axis more."""
    values, counts = parts
    kept = over_classes(kept, values)
    counted = kept.to(values.dtype)
    counts = counted if counts is None else torch.where(kept, counts, 0)
    return Parts(torch.where(kept, values, 0), counts)


def _summed_over_classes(parts: Parts) -> Parts:
    """One value per item from one per element [N, C, ...]; an item counts if any element does."""
    values, counts = parts
    return Parts(values.sum(1), None if counts is None else (counts > 0).any(1).to(values.dtype))
