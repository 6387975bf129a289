"""The objective against hand computation: sums, mixes, schedules, penalties, several processes."""

import math
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.objective import OUTPUT, Compared, Evaluated, Facts, Objective, Subject
from harness.terms import Schedule, parse_objective
from tests.harness.spine import start

EXACT = 1e-12  # float64, a few dozen additions of numbers of size 1


def batch(items: int = 12, classes: int = 4, seed: int = 0) -> tuple[nn.Linear, Tensor, Tensor]:
    """A float64 model, inputs and class labels, drawn from the seed."""
    torch.manual_seed(seed)
    model = nn.Linear(5, classes).double()
    return model, torch.randn(items, 5).double(), torch.randint(classes, (items,))


def build(config: dict[str, Any], counts: Tensor | None = None) -> Objective:
    return Objective(parse_objective(config), Facts(counts)).double()


def pair(output: Tensor, target: Tensor) -> Compared:
    return Compared({OUTPUT: Subject((output, target))})


def gradient(total: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(total, list(model.parameters()), materialize_grads=True))


def evaluate(objective: Objective, seed: int = 0) -> tuple[Evaluated, list[Tensor]]:
    """The objective on a batch, and its gradient with respect to the model's parameters."""
    model, inputs, target = batch(seed=seed)
    evaluated = objective(pair(model(inputs), target), model)
    return evaluated, gradient(evaluated.total, model)


def by_hand(weights: dict[str, float], seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Weighted sum of plain torch expressions and its gradient."""
    model, inputs, target = batch(seed=seed)
    logits = model(inputs)
    log_p = logits.log_softmax(1).gather(1, target[:, None]).squeeze(1)
    expressions = {
        "cross_entropy": F.cross_entropy(logits, target),
        "focal": (-((1 - log_p.exp()) ** 2) * log_p).mean(),
        "l1": model.weight.abs().sum(),
        "l2": model.weight.square().sum(),
    }
    total = torch.stack([w * expressions[name] for name, w in weights.items()]).sum()
    return total, gradient(total, model)


def assert_equal_to_hand(config: dict[str, Any], weights: dict[str, float]) -> None:
    (total, _), found = evaluate(build(config))
    expected, slopes = by_hand(weights)
    assert torch.allclose(total, expected, rtol=EXACT, atol=EXACT)
    for ours, theirs in zip(found, slopes, strict=True):
        assert torch.allclose(ours, theirs, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize(
    "weights",
    [
        {"cross_entropy": 1.0},
        {"cross_entropy": 0.3, "focal": 1.7},
        {"cross_entropy": 1.0, "l1": 0.01, "l2": 0.1},
        {"focal": 1e-3, "l2": 1e3},
    ],
)
def test_a_sum_is_the_weighted_sum_of_its_terms(weights: dict[str, float]) -> None:
    assert_equal_to_hand({name: {"weight": w} for name, w in weights.items()}, weights)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_convex_mixes_the_two_losses_in_their_order(p: float) -> None:
    config = {
        "mix": "convex",
        "p": p,
        "cross_entropy": {},
        "l2": {"weight": 0.1},
        "focal": {"weight": 2.0},
    }
    expected = {"cross_entropy": 1 - p, "focal": 2 * p, "l2": 0.1}
    assert_equal_to_hand(config, expected)
    swapped = {"mix": "convex", "p": 1 - p, "focal": {"weight": 2.0}, "cross_entropy": {}}
    assert_equal_to_hand(swapped | {"l2": {"weight": 0.1}}, expected)


def test_terms_are_reported_raw() -> None:
    config = {"cross_entropy": {"weight": 0.3}, "focal": {"weight": 1.7}, "l2": {"weight": 1e-3}}
    (_, terms), _ = evaluate(build(config))
    assert list(terms) == list(config)
    for name, value in terms.items():
        assert torch.allclose(value, by_hand({name: 1.0})[0], rtol=EXACT, atol=EXACT)


def test_identity_weight_changes_no_bit() -> None:
    """float32: an addition of 0 or a product with 1 that is not exact would show here."""
    model, inputs, target = batch()
    model, inputs = model.float(), inputs.float()
    objective = Objective(parse_objective({"cross_entropy": {"weight": 1.0}}))
    values = []
    for term in (
        lambda logits: objective(pair(logits, target), model).total,
        lambda logits: F.cross_entropy(logits, target),
    ):
        value = term(model(inputs))
        values.append((value, *gradient(value, model)))
    for ours, bare in zip(*values, strict=True):
        assert torch.equal(ours, bare)


def test_a_weight_of_constant_zero_leaves_the_graph() -> None:
    """Also beside a scheduled weight, and where the mix makes it 0."""
    ramp = {"schedule": "linear"}
    for config in (
        {"cross_entropy": {}, "focal": {"weight": 0}},
        {"cross_entropy": {"weight": ramp}, "focal": {"weight": 0.0}},
        {"cross_entropy": {}, "focal": {}, "mix": "convex", "p": 0},
    ):
        (_, terms), _ = evaluate(build(config))
        assert list(terms) == ["cross_entropy"]
    # a schedule that starts at 0 does not
    (_, terms), _ = evaluate(build({"cross_entropy": {}, "focal": {"weight": ramp}}))
    assert list(terms) == ["cross_entropy", "focal"]


@pytest.mark.parametrize("name", ["l1", "l2", "elastic_net"])
def test_penalties_are_over_weights_and_over_biases_on_request(name: str) -> None:
    model, inputs, target = batch()
    penalty = {
        "l1": lambda p: p.abs(),
        "l2": lambda p: p.square(),
        "elastic_net": lambda p: p.abs() + p.square(),
    }[name]
    for biases, parts in ((False, [model.weight]), (True, [model.weight, model.bias])):
        objective = build({"cross_entropy": {}, name: {"biases": biases}})
        term = objective(pair(model(inputs), target), model).terms[name]
        expected = torch.stack([penalty(part).sum() for part in parts]).sum()
        assert torch.allclose(term, expected, rtol=EXACT)
        for ours, theirs in zip(gradient(term, model), gradient(expected, model), strict=True):
            assert torch.allclose(ours, theirs, rtol=EXACT, atol=EXACT)


def test_balanced_class_weights_come_from_counts() -> None:
    counts = torch.tensor([50, 5, 30, 15])
    weight = counts.sum() / (len(counts) * counts.double())
    objective = build({"cross_entropy": {"class_weight": "balanced"}}, counts)
    (total, _), found = evaluate(objective)
    model, inputs, target = batch()
    # the scheme's weights are float32
    expected = F.cross_entropy(model(inputs), target, weight=weight.float().double())
    assert torch.allclose(total, expected, rtol=1e-7)
    slopes = gradient(expected, model)
    for ours, theirs in zip(found, slopes, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-8)


def test_one_loss_can_be_two_terms() -> None:
    config = {
        "soft": {"loss": "cross_entropy", "smoothing": 0.2, "weight": 0.5},
        "cross_entropy": {},
        "gentle": {"loss": "l2", "weight": 0.01},
    }
    (total, terms), _ = evaluate(build(config))
    model, inputs, target = batch()
    logits = model(inputs)
    soft = F.cross_entropy(logits, target, label_smoothing=0.2)
    assert torch.allclose(terms["soft"], soft, rtol=EXACT)
    expected = 0.5 * soft + F.cross_entropy(logits, target) + 0.01 * model.weight.square().sum()
    assert torch.allclose(total, expected, rtol=EXACT)


@pytest.mark.parametrize("shape", ["linear", "cosine", "step"])
def test_schedules_follow_their_formula(shape: str) -> None:
    schedule = Schedule(shape, start=2.0, end=0.5, begin=0.2, until=0.7)
    for t in np.linspace(0, 1, 101):
        u = np.clip((t - 0.2) / 0.5, 0, 1)
        u = {"linear": u, "cosine": (1 - np.cos(np.pi * u)) / 2, "step": float(t >= 0.7)}[shape]
        assert schedule.at(t) == pytest.approx(2.0 - 1.5 * u, abs=1e-12)
    assert schedule.at(0.0) == schedule.at(0.2) == 2.0
    assert schedule.at(0.7) == schedule.at(1.0) == 0.5


@pytest.mark.parametrize("shape", ["linear", "cosine", "step"])
def test_defaults_of_a_schedule_are_a_warm_up_over_the_whole_training(shape: str) -> None:
    schedule = Schedule(shape)
    assert (schedule.at(0.0), schedule.at(1.0)) == (0.0, 1.0)
    rise = [schedule.at(t) for t in np.linspace(0, 1, 50)]
    assert rise == sorted(rise)


def test_scheduled_weights_and_mixes_move_with_the_training() -> None:
    ramp = {"schedule": "linear", "start": 0.0, "end": 4.0, "until": 0.5}
    objective = build({"cross_entropy": {}, "focal": {"weight": ramp}})
    for progress, weight in ((0.0, 0.0), (0.25, 2.0), (0.5, 4.0), (1.0, 4.0)):
        objective.advance(progress)
        (total, _), found = evaluate(objective)
        expected, slopes = by_hand({"cross_entropy": 1.0, "focal": weight})
        assert torch.allclose(total, expected, rtol=EXACT)
        assert torch.allclose(found[0], slopes[0], rtol=EXACT, atol=EXACT)
    mixed = build({"cross_entropy": {}, "focal": {}, "mix": "convex", "p": {"schedule": "cosine"}})
    for progress in (0.0, 0.3, 1.0):
        mixed.advance(progress)
        p = (1 - math.cos(math.pi * progress)) / 2
        expected, _ = by_hand({"cross_entropy": 1 - p, "focal": p})
        # the weights of a schedule are a buffer made in float32
        assert torch.allclose(evaluate(mixed)[0].total, expected, rtol=1e-7)


def test_a_moving_weight_recompiles_nothing() -> None:
    objective = build({"cross_entropy": {}, "focal": {"weight": {"schedule": "linear"}}})
    model, inputs, target = batch()
    graphs = []

    def count(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(
        lambda inputs: objective(pair(model(inputs), target), model).total, backend=count
    )
    for progress in (0.0, 0.4, 0.9):
        objective.advance(progress)
        plain = objective(pair(model(inputs), target), model).total
        assert torch.allclose(compiled(inputs), plain, rtol=EXACT)
    assert len(graphs) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "loss needs at least one loss beside penalties, got []"),
        ({"l2": {}}, "loss needs at least one loss beside penalties, got ['l2']"),
        ({"focl": {}}, "there is no loss 'focl'; did you mean 'focal'?"),
        ({"a": {"loss": "focl"}}, "there is no loss 'focl'; did you mean 'focal'?"),
        ({"a": {"loss": "l22"}}, "there is no loss 'l22'; did you mean 'l2'?"),
        ({"focal": 3}, "loss.focal must be a mapping of parameters, got 3"),
        (
            {"focal": {"gama": 1}},
            "loss.focal has no parameter 'gama'; did you mean 'gamma'?",
        ),
        ({"focal": {"gamma": -1}}, "loss.focal.gamma must be >= 0, got -1"),
        ({"focal": {"gamma": "big"}}, "loss.focal.gamma must be number >= 0, got 'big'"),
        (
            {"focal": {"biases": True}},
            "loss.focal has no parameter 'biases': focal is no penalty",
        ),
        ({"focal": {}, "l2": {"biases": 1}}, "loss.l2.biases must be true or false, got 1"),
        ({"focal": {}, "mix": "convx"}, "loss.mix must be one of sum, convex, got 'convx'"),
        (
            {"focal": {}, "mix": "convex", "p": 0.5},
            "loss.mix=convex needs exactly two losses and loss.p, got focal and p=0.5",
        ),
        (
            {"focal": {}, "cross_entropy": {}, "mix": "convex"},
            "loss.mix=convex needs exactly two losses and loss.p, "
            "got focal, cross_entropy and p=None",
        ),
        ({"focal": {}, "p": 0.5}, "loss.p=0.5 is read with loss.mix=convex only"),
    ],
)
def test_what_makes_no_objective_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_objective(config)


@pytest.mark.parametrize(
    ("weight", "given"),
    [
        (-1, "-1"),
        (True, "True"),
        ({"schedule": "linaer"}, "linaer"),
        ({"schedule": "linear", "until": 0}, "until"),
        ({"schedule": "linear", "end": -1}, "-1"),
        ({"schedule": "linear", "stop": 1}, "stop"),
        ({"start": 1}, "schedule"),
    ],
)
def test_wrong_weights_are_refused(weight: Any, given: str) -> None:
    for config in (
        {"focal": {"weight": weight}},
        {"focal": {}, "cross_entropy": {}, "mix": "convex", "p": weight},
    ):
        with pytest.raises(ValueError, match=rf"^loss\.[^\n]*{re.escape(given)}[^\n]*$"):
            parse_objective(config)


def test_what_cannot_be_built_is_refused() -> None:
    for config, message in (
        ({"focal": {"weight": 0}}, "loss: every term of focal has weight 0"),
        (
            {"focal": {"class_weight": "balanced"}},
            "loss.focal.class_weight=balanced needs a task with classes",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            build(config)
    with pytest.raises(ValueError, match=r"^class_weight has no scheme 'balancd'; did you"):
        build({"focal": {"class_weight": "balancd"}}, torch.tensor([1, 2, 3, 4]))


def test_an_objective_reads_back_what_it_writes() -> None:
    config = {
        "mix": "convex",
        "p": {"schedule": "step", "until": 0.5},
        "soft": {"loss": "cross_entropy", "class_weight": [1, 2, 3, 4]},
        "l2": {"half": True, "biases": True, "weight": 0.1},
        "focal": {"weight": {"schedule": "cosine", "end": 2}},
    }
    parsed = parse_objective(config)
    assert parse_objective(parsed.plain()) == parsed
    assert list(parsed.plain()) == ["mix", "p", "soft", "l2", "focal"]


# Several processes

CASES: dict[str, dict[str, Any]] = {
    "weighted cross-entropy": {"cross_entropy": {"class_weight": [0.5, 1.0, 3.0, 0.1]}},
    "focal and a penalty": {"focal": {"weight": 0.7}, "l2": {"weight": 0.1}},
    "rmse": {"rmse": {}},
    "convex": {"mix": "convex", "p": 0.3, "cross_entropy": {"smoothing": 0.1}, "focal": {}},
}
SHARES = {  # which of 13 items each of two processes has
    "ragged": (slice(0, 9), slice(9, 13)),
    "one ignored": (slice(0, 6), slice(6, 13)),  # the first six labels are marked as ignored
    "one empty": (slice(0, 13), slice(13, 13)),
}


def shared_batch(name: str, share: str) -> tuple[nn.Linear, Tensor, Tensor]:
    model, inputs, target = batch(items=13, seed=7)
    if name == "rmse":
        return model, inputs, torch.randn(13, 4).double()
    target[2 if share != "one ignored" else slice(0, 6)] = -100
    return model, inputs, target


def total_and_gradient(name: str, share: str, items: slice) -> tuple[Tensor, list[Tensor]]:
    model, inputs, target = shared_batch(name, share)
    total = build(CASES[name])(pair(model(inputs[items]), target[items]), model).total
    return total.detach(), gradient(total, model)


def serve(rank: int, port: int) -> None:
    """One of two processes: all cases, the gradients averaged as DDP does, saved by each."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    found = {}
    for name in CASES:
        for share, slices in SHARES.items():
            total, slopes = total_and_gradient(name, share, slices[rank])
            for slope in slopes:
                torch.distributed.all_reduce(slope)
                slope /= 2
            found[name, share] = total, slopes
    torch.save(found, f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one_with_the_whole_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from tests.harness.test_objective import serve; serve({}, {})"
    processes = [start(["-c", code.format(rank, port)], tmp_path) for rank in (0, 1)]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    found = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    for (name, share), (total, averaged) in found[0].items():
        expected, slopes = total_and_gradient(name, share, slice(0, 13))
        where = f"{name}, {share}"
        for ours in (total, found[1][name, share][0]):
            assert abs(ours - expected) <= 1e-10 * abs(expected), where
        for ours, theirs in zip(averaged, slopes, strict=True):
            assert (ours - theirs).norm() <= 1e-10 * theirs.norm(), where
