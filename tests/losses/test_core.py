"""The contract every loss gets from the core: checks, masks, precision, reductions, modules."""

import copy
import inspect
import itertools
import math
import pickle
import re

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

import losses
from losses.arguments import parameters_of
from losses.core import REGISTRY, Loss
from losses.inputs import _extremes
from losses.module import LossModule


def entry_of(function, target="real", **facts):
    """A loss that is not registered."""
    return Loss("test", function, target, "nowhere", parameters_of(function), **facts)


def squares(output, target):
    return (output - target) ** 2


def scores(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def raises(message):
    return pytest.raises(ValueError, match=re.escape(message))


# Reductions


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_are_torchs(reduction):
    output, target = scores(6, 4), torch.tensor([0, 3, 2, -100, 1, 1])
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0]).double()
    ours = losses.cross_entropy(output, target, class_weight=weight, reduction=reduction)
    theirs = F.cross_entropy(output, target, weight, reduction=reduction)
    assert torch.allclose(ours, theirs, rtol=1e-14)


def test_a_fraction_is_the_mean_undivided():
    output, target = scores(6, 4), torch.tensor([0, 3, 2, -100, 1, 1])
    module = losses.build("cross_entropy", class_weight=[1, 2, 0.5, 3])
    fraction = module.fraction(output, target)
    assert fraction.denominator == 1 + 3 + 0.5 + 2 + 2
    assert fraction.numerator == losses.build(
        "cross_entropy", class_weight=[1, 2, 0.5, 3], reduction="sum"
    )(output, target)
    assert module.entry.divide(fraction) == module(output, target)


def test_an_author_may_count():
    """Values may come with what each adds to the denominator; zeros count nothing."""
    entry = entry_of(lambda output, target: (squares(output, target), target))
    output, target = torch.tensor([3.0, 4.0, 9.0]), torch.tensor([1.0, 2.0, 0.0])
    total, count = entry.fraction(output, target)
    assert (total, count) == (4 + 4 + 81, 3)
    assert entry.divide(entry.fraction(torch.zeros(2), torch.zeros(2))) == 0


def test_finish_comes_after_the_division_and_allows_only_the_mean():
    entry = entry_of(squares, finish=torch.sqrt)
    output, target = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    assert LossModule(entry, {})(output, target) == torch.tensor((9 + 1) / 2).sqrt()
    for reduction in ("sum", "none"):
        with raises(f"test: reduction must be one of mean, got '{reduction}'"):
            LossModule(entry, {}, reduction)(output, target)


def test_classes_are_summed_and_an_item_counts_once():
    entry = entry_of(
        lambda output, target: (output, torch.ones_like(output)), "binary", sum_classes=True
    )
    output = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    target = torch.tensor([[0, 1], [-100, 1], [-100, -100]])
    values, counts = entry.parts(output, target)
    assert values.tolist() == [1 + 2, 4, 0]
    assert counts.tolist() == [1, 1, 0]


def test_classes_are_summed_with_labels_too():
    """As many classes as items, so that a mask along the wrong axis would go unnoticed."""
    entry = entry_of(lambda output, target: output, "index", sum_classes=True)
    output, target = torch.arange(9.0).reshape(3, 3), torch.tensor([0, -100, 1])
    values, counts = entry.parts(output, target)
    assert values.tolist() == [0 + 1 + 2, 0, 6 + 7 + 8]
    assert counts.tolist() == [1, 0, 1]


@pytest.mark.parametrize("reduction", ["average", None])
def test_an_unknown_reduction_is_refused(reduction):
    with raises(f"mse: reduction must be one of mean, sum, none, got {reduction!r}"):
        losses.mse(torch.zeros(2), torch.zeros(2), reduction=reduction)
    with raises("mse: reduction must be one of mean, sum, none"):
        losses.build("mse", reduction=reduction)


# Ignored items


@pytest.mark.parametrize("ignored", [-100, -1, 0, 255])
def test_ignored_items_leave_numerator_and_denominator(ignored):
    output, target = scores(5, 4), torch.tensor([1, ignored, 3, ignored, 2])
    kept = target != ignored
    fraction = losses.build("focal", ignore_index=ignored).fraction(output, target)
    alone = losses.get("focal").fraction(output[kept], target[kept])
    assert torch.allclose(torch.stack(fraction), torch.stack(alone), rtol=1e-14)
    values = losses.focal(output, target, ignore_index=ignored, reduction="none")
    assert (values[~kept] == 0).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_no_label_is_taken_for_the_ignored_one(dtype):
    """A uint8 holds -100 as 156, which is a class like any other."""
    output, target = scores(2, 200), torch.tensor([156, 3])
    assert losses.focal(output, target.to(dtype)) == losses.focal(output, target)


def test_binary_integers_can_be_ignored_and_probabilities_cannot():
    output, target = scores(3), torch.tensor([1, -100, 0])
    assert losses.bce(output, target) == losses.bce(output[::2], target[::2])
    with raises("bce needs targets in [0, 1], got values from -100 to 1 in shape [3]"):
        losses.bce(output, target.double())


def test_real_losses_have_no_ignore_index():
    with raises("mse has no parameter 'ignore_index'"):
        losses.mse(torch.zeros(2), torch.zeros(2), ignore_index=0)
    with raises("huber has no parameter 'ignore_index'"):
        losses.build("huber", ignore_index=0)
    with raises("focal.ignore_index must be whole number, got 'none'"):
        losses.build("focal", ignore_index="none")


# Precision and devices


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_upcast_and_its_gradient_comes_back_in_half(dtype):
    output = scores(5, 4).to(dtype).requires_grad_()
    values = losses.focal(output, torch.arange(5) % 4, reduction="none")
    values.sum().backward()
    assert values.dtype == torch.float32
    assert output.grad.dtype == dtype


def test_autocast_is_off_inside():
    """A matrix product would be computed in bfloat16 otherwise."""
    entry = entry_of(lambda output, target: (output @ output.mT) @ output - target)
    output = scores(5, 5).float()
    expected = entry.parts(output, output).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = entry.parts(output, output).values
        assert (output @ output).dtype == torch.bfloat16  # on again, so only the loss is spared
    assert torch.equal(values, expected)


def test_shapes_alone_are_enough_on_the_meta_device():
    output, target = torch.empty(6, 4, 2, device="meta"), torch.empty(6, 2, device="meta").long()
    for reduction, shape in (("mean", ()), ("none", (6, 2))):
        loss = losses.focal(output, target, reduction=reduction, class_weight=[1, 2, 3, 4])
        assert (loss.device.type, loss.shape) == ("meta", shape)
    with raises("focal needs output [N, C, ...] and target [N, ...]"):
        losses.focal(output, target[:5])


# Errors


@pytest.mark.parametrize(
    ("name", "output", "target", "message"),
    [
        (
            "mse",
            (4, 1),
            (4,),
            "mse needs output and target of one shape; got output [4, 1] and target [4]",
        ),
        (
            "bce",
            (4,),
            (4, 1),
            "bce needs output and target of one shape; got output [4] and target [4, 1]",
        ),
        (
            "kl",
            (4, 3),
            (4, 2),
            "kl needs probabilities of the output's shape; got output [4, 3] and target [4, 2]",
        ),
        (
            "kl",
            (4,),
            (4,),
            "kl needs probabilities of the output's shape; got output [4] and target [4]",
        ),
        ("focal", (4, 3), (4, 3), "focal needs class indices (int64), got torch.float32"),
        (
            "multilabel_bce",
            (4,),
            (4,),
            "multilabel_bce needs output and target [N, C, ...]; got output [4]",
        ),
        (
            "gaussian_nll",
            (4, 3),
            (4,),
            "gaussian_nll needs output [N, 2, ...] and target [N, ...]; got output [4, 3]",
        ),
    ],
)
def test_shapes_that_differ(name, output, target, message):
    with raises(message):
        losses.build(name)(torch.zeros(output), torch.zeros(target))


@pytest.mark.parametrize(("output", "target"), [((4,), (4,)), ((4, 3), (4, 1)), ((4, 3), (3,))])
def test_label_shapes_that_differ(output, target):
    message = f"got output {list(output)} and target {list(target)}"
    with raises(f"focal needs output [N, C, ...] and target [N, ...]; {message}"):
        losses.focal(torch.zeros(output), torch.zeros(target).long())


def test_values_out_of_range():
    with raises("focal needs class indices below 3, got values from 0 to 3 in shape [2]"):
        losses.focal(torch.zeros(2, 3), torch.tensor([0, 3]))
    with raises("kl needs probabilities in [0, 1], got values from -1 to 2"):
        losses.kl(torch.zeros(1, 2), torch.tensor([[-1.0, 2.0]]))
    with raises("kl needs probabilities that sum to 1 over C, got values from 0.5 to 0.5"):
        losses.kl(torch.zeros(1, 2), torch.tensor([[0.25, 0.25]]))
    with raises("focal needs a floating-point output, got torch.int64"):
        losses.focal(torch.zeros(2, 3).long(), torch.tensor([0, 2]))


def test_nan_in_a_target_is_out_of_range():
    with raises("bce needs targets in [0, 1], got values from nan to nan"):
        losses.bce(torch.zeros(2), torch.tensor([0.0, float("nan")]))


# Parameters


def test_lists_per_class_become_buffers():
    module = losses.build("cross_entropy", class_weight=[1, 2, 3, 4], smoothing=0.1)
    assert {key: value.tolist() for key, value in module.state_dict().items()} == {
        "class_weight": [1, 2, 3, 4]
    }
    assert module.double().class_weight.dtype == torch.float64
    assert module.to("meta").class_weight.device.type == "meta"
    other = losses.build("cross_entropy", class_weight=[1, 1, 1, 1], smoothing=0.1)
    other.load_state_dict(losses.build("cross_entropy", class_weight=[4, 3, 2, 1]).state_dict())
    assert other.class_weight.tolist() == [4, 3, 2, 1]


def test_class_weights_take_the_outputs_dtype():
    output, target = scores(5, 4), torch.arange(5) % 4
    weight = torch.tensor([0.1, 0.2, 0.3, 0.4])
    loss = losses.cross_entropy(output, target, class_weight=weight)
    assert loss.dtype == torch.float64
    assert loss == losses.cross_entropy(output, target, class_weight=weight.double())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gama": 2}, "focal has no parameter 'gama'; did you mean 'gamma'?"),
        ({"gamma": -1}, "focal.gamma must be >= 0, got -1"),
        ({"gamma": "2"}, "focal.gamma must be number >= 0, got '2'"),
        ({"class_weight": "balanced"}, "focal.class_weight='balanced' needs class counts"),
        (
            {"class_weight": [1, -1]},
            "focal.class_weight must be a list with one number >= 0 per class",
        ),
    ],
)
def test_parameters_are_checked(given, message):
    with raises(message):
        losses.build("focal", **given)
    with raises(message):
        losses.focal(scores(5, 4), torch.arange(5) % 4, **given)


def test_one_weight_per_class_is_needed():
    with raises("focal.class_weight needs one number per class, 4 of them; got shape [3]"):
        losses.focal(scores(5, 4), torch.arange(5) % 4, class_weight=[1, 2, 3])


def test_a_parameter_without_default_must_be_given():
    def needy(output, target, *, scale: losses.Positive):
        return scale * squares(output, target)

    loss = losses.loss("needy", target="real", source="nowhere")(needy)
    try:
        for call in (lambda: loss(torch.zeros(1), torch.ones(1)), lambda: losses.build("needy")):
            with raises("needy needs scale: number > 0"):
                call()
        assert loss(torch.zeros(1), torch.ones(1), scale=2) == 2
    finally:
        del REGISTRY["needy"]


# Registration, modules


def test_names_lead_to_losses():
    assert losses.names() == sorted(REGISTRY)
    with raises("there is no loss 'cross_entropi'; did you mean 'cross_entropy'?"):
        losses.get("cross_entropi")
    with raises("loss 'mse' is registered twice"):
        losses.loss("mse", target="real", source="nowhere")(squares)


@pytest.mark.parametrize("name", losses.names())
def test_every_loss_is_a_function_of_the_package(name):
    function, entry = getattr(losses, name), losses.get(name)
    parameters = inspect.signature(function).parameters
    settings = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    ignore = ["ignore_index"] if entry.target in losses.IGNORING else []
    assert settings == [*entry.parameters, "reduction", *ignore]
    assert function.__doc__.startswith(inspect.getdoc(entry.function))
    assert entry.source in function.__doc__


def test_modules_print_pickle_and_copy():
    module = losses.build("focal", gamma=0.5, class_weight=[1, 2, 3, 4], ignore_index=3)
    assert "focal, gamma=0.5" in repr(module)
    output, target = scores(5, 4), torch.arange(5) % 4
    for again in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert again(output, target) == module(output, target)
        assert again.entry is module.entry


def test_functions_and_modules_compile_and_a_new_weight_recompiles_nothing():
    torch.compiler.reset()
    output, target = scores(5, 4), torch.arange(5) % 4
    weights = [1.0, 2.0, 3.0, 4.0]
    function = torch.compile(
        lambda x, y: losses.focal(x, y, gamma=0.5, class_weight=weights, ignore_index=1),
        fullgraph=True,
        backend="eager",
    )
    module = losses.build("focal", gamma=0.5, class_weight=weights, ignore_index=1)
    assert torch.equal(function(output, target), module(output, target))
    counter = CompileCounter()
    compiled = torch.compile(module, fullgraph=True, backend=counter)
    before = compiled(output, target)
    module.class_weight.copy_(torch.tensor([4.0, 1.0, 1.0, 1.0]))
    assert compiled(output, target) == module(output, target) != before
    assert counter.frame_count == 1


def test_a_loss_that_reduces_is_refused():
    """The commonest habit in a loss of one's own; its mean would be taken for one item's value."""
    entry = entry_of(lambda output, target: squares(output, target).mean())
    with raises("must return one value per item, 5 of them, and leave the reduction to its caller"):
        entry.parts(scores(5), scores(5))


def test_a_loss_needs_both_inputs():
    with raises("focal needs logits and target, got 1 positional arguments"):
        losses.focal(scores(5, 3))


def test_an_unknown_kind_of_target_is_refused():
    with raises("there is no target 'reel'; did you mean 'real'?"):
        losses.loss("never", target="reel", source="none")(squares)
    assert "never" not in losses.names()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_the_range_of_any_mixture_of_numbers_is_found(dtype):
    numbers = [0.0, -0.0, 1.0, 0.5, -1.0, -0.25, 1e-45, math.inf, -math.inf, math.nan, -math.nan]
    for row in itertools.chain(*(itertools.product(numbers, repeat=n) for n in (1, 2, 3))):
        tensor = torch.tensor(row, dtype=dtype)
        low, high = _extremes(tensor)
        if any(map(math.isnan, row)):
            assert math.isnan(low)
            assert math.isnan(high)
        else:
            assert (low, high) == (tensor.amin().item(), tensor.amax().item())
