"""Properties of use: torch's transforms, devices, dtypes, errors, state, documentation."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from losses.arguments import ClassCounts, ClassWeight, PerClass
from losses.conformance.base import (
    Counterexample,
    NotApplicable,
    gradient,
    mean,
    prop,
    require,
    same,
    short,
)
from losses.conformance.samples import (
    CLASSES,
    Sample,
    accepts_rows,
    batch,
    columns,
    fresh_tensors,
    hard_samples,
    one_hot,
    own_tensors,
    samples,
)
from losses.core import Loss
from losses.module import LossModule
from losses.peers import Peer

BINARY_TYPES = (torch.bool, torch.uint8, torch.int32, torch.float32, torch.float64)
INDEX_TYPES = (torch.uint8, torch.int16, torch.uint16, torch.int32)
REAL_TYPES = (torch.int32, torch.int64, torch.float32)


@prop("compile")
def compiles(entry: Loss) -> None:
    """One graph without a break (`fullgraph=True`) gives the same value and gradient."""
    torch.compiler.reset()  # or the graphs of other losses count against this one's recompilations

    @torch.compile(fullgraph=True, backend="eager")
    def compiled(output: Tensor, target: Tensor) -> Tensor:
        return mean(entry, output, target)

    sample = samples(entry)[0]
    got = gradient(entry, sample, lambda _, output, target: compiled(output, target))
    for ours, theirs in zip(got, gradient(entry, sample), strict=True):
        same(ours, theirs, "compiled against eager")


@prop("vmap")
def vmaps(entry: Loss) -> None:
    """Over a leading axis of outputs, `torch.func.vmap` of value and gradient equals a loop."""
    for output, target in samples(entry):

        def cost(output: Tensor, target: Tensor = target) -> Tensor:
            return mean(entry, output, target)

        slope_and_value = torch.func.grad_and_value(cost)
        arms = torch.stack([output, output.flip(0)])
        loop = zip(*(slope_and_value(arm) for arm in arms), strict=True)
        for ours, theirs in zip(torch.func.vmap(slope_and_value)(arms), loop, strict=True):
            same(ours, torch.stack(theirs), "vmap against a loop")


@prop("no synchronisation")
def no_synchronisation(entry: Loss) -> None:
    """Forward and backward never look at a value: tensors on the meta device have none."""
    own: dict[str, Any] = {name: t.to("meta") for name, t in own_tensors(entry).items()}
    for output, target in samples(entry):
        gradient(entry, Sample(output.to("meta"), target.to("meta")), **own)


@prop("no mutation")
def no_mutation(entry: Loss) -> None:
    """Output and target are left as they were."""
    for sample in samples(entry):
        # A leaf refuses to be written to, so the loss gets none.
        output = sample.output.clone().requires_grad_().clone()
        target = sample.target.clone()
        versions = output._version, target._version
        torch.autograd.backward(mean(entry, output, target))
        require((output._version, target._version) == versions, "an input was written to")


@prop("determinism")
def determinism(entry: Loss) -> None:
    """Two equal calls give equal bits under deterministic algorithms."""
    with deterministic():
        for sample in samples(entry):
            calls = zip(gradient(entry, sample), gradient(entry, sample), strict=True)
            for first, second in calls:
                same(first, second, "first against second call", 0)


@contextmanager
def deterministic() -> Iterator[None]:
    """A context in which torch refuses to use algorithms that are not deterministic."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@prop("target types")
def target_types(entry: Loss) -> None:
    """Whatever dtype or encoding holds the target, the same values give the same loss."""
    forms = dict.fromkeys(("real", "boxes", "place"), REAL_TYPES) | {"binary": BINARY_TYPES}
    kinds = forms.get(entry.target, INDEX_TYPES)
    for output, target in hard_samples(entry):
        target = target.round() if entry.target in ("real", "boxes") else target
        expected = mean(entry, output, target)
        for kind in kinds:
            same(mean(entry, output, target.to(kind)), expected, f"target of {kind}")
        if accepts_rows(entry):
            same(mean(entry, output, one_hot(target)), expected, "one-hot rows against indices")


@prop("clear errors")
def clear_errors(entry: Loss) -> None:
    """What does not fit raises a ValueError naming the loss and what it was given."""
    for output, target in samples(entry):
        _refuses(entry, output, target[:-1], str(list(output.shape)), str(list(target[:-1].shape)))
        _refuses(entry, output.long(), target, "int64")
    output, target = samples(entry)[0]
    if columns(entry) and (entry.target != "labels" or entry.own):
        last = f"from 0 to {CLASSES - 1}"
        words = last if entry.target == "place" else f"class indices below {CLASSES}"
        _refuses(entry, output, target + CLASSES, words)
        _refuses(entry, output, target - CLASSES, "-")
    elif entry.target == "binary":
        _refuses(entry, output, target + 2, "[0, 1]")
    elif entry.within:
        _refuses(entry, output, target - 50, str(entry.within))


@prop("no broadcasting")
def no_broadcasting(entry: Loss) -> None:
    """Shapes that differ are refused, also where torch would stretch one to the other."""
    for output, target in samples(entry):
        for other in (target.unsqueeze(-1), target[:1], target[0]):
            _refuses(entry, output, other, str(list(output.shape)), str(list(other.shape)))


def _refuses(entry: Loss, output: Tensor, target: Tensor, *words: str) -> None:
    given = f"output {list(output.shape)} {output.dtype} and target {list(target.shape)}"
    try:
        mean(entry, output, target)
    except ValueError as error:
        told = () if isinstance(entry, Peer) else words  # another library has its own words
        for word in (entry.name, *told):
            require(word in str(error), f"for {given} the message lacks '{word}': {error}")
    else:
        raise Counterexample(f"{given} were accepted")


@prop("state")
def state(entry: Loss) -> None:
    """A module's state_dict carries its tensors into another, and `.to` moves them."""
    kinds = (ClassCounts, ClassWeight, PerClass)
    weights = [n for n, p in entry.parameters.items() if p.annotation in kinds]
    first = LossModule(entry, {n: torch.arange(1.0, CLASSES + 1) for n in weights})
    second = LossModule(entry, {n: torch.ones(CLASSES) for n in weights})
    second.load_state_dict(first.state_dict(), strict=True)
    require(len(first.state_dict()) == len(weights), f"state_dict holds {list(first.state_dict())}")
    first.double()
    for output, target in samples(entry):
        if not weights or output.shape[1:2] == (CLASSES,):
            same(second(output, target), first(output, target), "after loading")


@prop("own tensors")
def trains_own_tensors(entry: Loss) -> None:
    """What a loss learns itself is drawn from its generator, kept in the state, and trained."""
    if not entry.own:
        raise NotApplicable("it has no tensors of its own")
    given, again, other = (fresh_tensors(entry, seed) for seed in (0, 0, 1))
    for name, tensor in given.items():
        same(tensor, again[name], f"{name} drawn twice from one seed", 0)
    inputs = batch(entry)
    module, second = (LossModule(entry, {}, own=own).double() for own in (given, other))
    learnt = {name: tensor for name, tensor in given.items() if tensor.is_floating_point()}
    require({name for name, _ in module.named_parameters()} == set(learnt), "no parameters")
    torch.autograd.backward(module(*inputs))
    torch.optim.SGD(module.parameters(), lr=0.01).step()
    for name, tensor in module.named_parameters():
        moved = tensor.detach() - given[name].double()
        require(moved.isfinite().all() and moved.any(), f"a step moves {name} by {short(moved)}")
    second.load_state_dict(module.state_dict(), strict=True)
    same(second(*inputs), module(*inputs), "after loading", 0)

    def values(*own: Tensor) -> Tensor:
        drawn: dict[str, Any] = given | dict(zip(learnt, own, strict=True))
        return entry.parts(*inputs, **drawn).values

    torch.autograd.gradcheck(values, [t.double().requires_grad_() for t in learnt.values()])


@prop("documented")
def documented(entry: Loss) -> None:
    """There is a formula, a source, the shape of every input, and a line for every parameter."""
    text = inspect.getdoc(entry.function) or ""
    require(":math:`" in text, "the docstring has no formula (:math:)")
    require(entry.source.strip(), "there is no source")
    arguments = text.partition("Args:")[2].partition("Raises:")[0]
    for name in (*entry.inputs, *entry.own, *entry.parameters):
        lines = re.search(rf"^ *{name}: (.*(?:\n {{8}}.*)*)", arguments, re.MULTILINE)
        require(lines, f"the docstring does not describe '{name}'")
        shape = name in entry.parameters or (lines and "[" in lines[1])
        require(shape, f"the docstring gives no shape of '{name}'")
