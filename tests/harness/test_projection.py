"""Projections in training: after every step, checked when composed, part of the identity."""

from pathlib import Path

import pytest
import torch

from harness.compose import compose
from harness.config import RunConfig, check, run_id
from harness.prepare import prepare
from harness.run import run_once
from harness.store import Store

SHORT = ["task=classification/iris", "loss=cross_entropy", "trainer.epochs=2", "model=linear"]


def weights(config: RunConfig, folder: Path) -> dict[str, torch.Tensor]:
    """What a run leaves of its model."""
    path = folder / f"{run_id(config, 0)}.pt"
    saving = check({**config.plain(), "save": str(path)})
    record = run_once(saving, Store(folder / "store"))
    assert record
    assert record.status == "done", record.error
    return dict(torch.load(path, weights_only=True))


def test_a_norm_is_bounded_and_what_is_short_stays(tmp_path: Path) -> None:
    limited = [*SHORT, "optimizer.lr=0.5", "projection=max_norm", "projection.max_norm.limit=0.7"]
    free = weights(compose([*SHORT, "optimizer.lr=0.5"]), tmp_path)["1.weight"]
    bound = weights(compose(limited), tmp_path)["1.weight"]
    assert free.norm(dim=1).max() > 0.7
    assert bound.norm(dim=1).max() <= 0.7 * (1 + 1e-6)  # float32
    loose = compose([*limited, "projection.max_norm.limit=1e6"])
    assert torch.equal(weights(loose, tmp_path)["1.weight"], free)


def test_a_proximal_step_makes_exact_zeros_and_uses_the_step_size(tmp_path: Path) -> None:
    sparse = [*SHORT, "optimizer.lr=0.1", "projection=proximal_l1", "trainer.epochs=20"]
    found = weights(compose([*sparse, "projection.proximal_l1.strength=0.5"]), tmp_path)
    plain = weights(compose([*SHORT, "optimizer.lr=0.1", "trainer.epochs=20"]), tmp_path)
    assert (found["1.weight"] == 0).any()
    assert (plain["1.weight"] != 0).all()
    assert (found["1.bias"] != 0).all()  # biases only where that is asked for


def test_one_step_is_the_optimisers_and_then_the_projection(tmp_path: Path) -> None:
    settings = ["optimizer.name=sgd", "optimizer.lr=0.5", "trainer.batch_size=90"]
    own = ["projection=proximal_l1", "projection.proximal_l1.strength=0.1", "trainer.epochs=1"]
    config = compose([*SHORT, *settings, *own])
    task = prepare(config).task
    inputs, target = next(iter(task.batches))
    weight = task.model.get_parameter("1.weight")
    task.objective(task.compare(inputs, target), task.model).total.backward()
    assert weight.grad is not None
    stepped = weight.detach() - 0.5 * weight.grad
    expected = stepped.sign() * (stepped.abs() - 0.5 * 0.1).clamp(min=0)
    torch.testing.assert_close(weights(config, tmp_path)["1.weight"], expected)


def test_several_projections_are_part_of_what_a_run_is() -> None:
    one = compose([*SHORT, "projection=max_norm", "projection.max_norm.limit=2"])
    other = compose([*SHORT, "projection=max_norm", "projection.max_norm.limit=3"])
    both = compose(
        [
            *SHORT,
            "projection=[max_norm,clip_weights]",
            "projection.max_norm.limit=2",
            "projection.clip_weights.limit=1",
        ]
    )
    ids = {run_id(config, 0) for config in (one, other, both, compose(SHORT))}
    assert len(ids) == 4
    assert [repr(p) for p in prepare(both).task.projections] == [
        "Projection(max_norm, biases=False, limit=2.0)",
        "Projection(clip_weights, biases=False, limit=1.0)",
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["projection=maxnorm"], "no projection 'maxnorm'; did you mean 'max_norm'?"),
        (["projection=max_norm"], "needs a value for projection.max_norm.limit"),
        (["projection=max_norm", "projection.max_norm.limit=-1"], "limit must be > 0, got -1"),
        (["projection=max_norm", "projection.max_norm.limt=1"], "did you mean 'projection.max_nor"),
        (["+projection.l3={}"], "no projection 'l3'"),
    ],
)
def test_a_wrong_projection_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        compose([*SHORT, *overrides])
    assert message in str(raised.value)
