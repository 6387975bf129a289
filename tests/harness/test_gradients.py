"""Gradients of the single terms are what autograd says, and looking at them changes nothing."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from harness.commands import Choice, to_do
from harness.compose import compose
from harness.config import run_id
from harness.gradients import Pulls, pulls
from harness.plan import Trial
from harness.prepare import prepare, probe
from harness.record import Record
from harness.run import run, run_once
from harness.store import Store
from tests.harness.builders import make_plan, make_records
from tests.harness.spine import IRIS, on_one_and_two_devices

SHORT = [*IRIS, "trainer.epochs=4", "trainer.evaluations=2"]
COLUMNS = {"every", "terms", "steps", "weights", *Pulls._fields}


def flat(term: Tensor, parameters: list[Tensor]) -> Any:
    """A term's gradient as one float64 vector of numpy, nothing where it does not depend."""
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    parts = [torch.zeros_like(p) if g is None else g for g, p in pairs]
    return torch.cat([part.flatten() for part in parts]).double().numpy()


def by_hand(terms: list[Tensor], weights: list[float], parameters: list[Tensor]) -> Pulls:
    vectors = [flat(term, parameters) for term in terms]
    weighted = [w * v for w, v in zip(weights, vectors, strict=True)]
    whole = sum(weighted)
    norms = [np.linalg.norm(v) for v in vectors]
    pairs = itertools.combinations(vectors, 2)
    return Pulls(
        [float(n) for n in norms],
        [float(v @ whole / (whole @ whole)) for v in weighted],
        [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs],
        float(np.linalg.norm(whole)),
    )


def close(found: Pulls, expected: Pulls, rel: float) -> None:
    for name in Pulls._fields:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=rel), name


def scene(seed: int = 0) -> tuple[nn.Module, list[Tensor]]:
    """A small float64 network and four scalars of one graph, one of them of its weights alone."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x, y = torch.randn(11, 5).double(), torch.randn(11, 3).double()
    output = model(x)
    penalty = sum(p.square().sum() for p in model.parameters() if p.ndim > 1)
    assert isinstance(penalty, Tensor)
    return model, [(output - y).square().mean(), (output - y).abs().mean(), penalty, output.max()]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_norms_shares_and_cosines_are_those_of_autograd(seed: int, count: int) -> None:
    model, terms = scene(seed)
    weights = [1.0, 0.3, 1e-3, 7.0][:count]
    found = pulls(terms[:count], weights, model.parameters())
    close(found, by_hand(terms[:count], weights, [*model.parameters()]), 1e-10)
    assert sum(share for share in found.shares if share is not None) == pytest.approx(1)
    assert len(found.cosines) == count * (count - 1) // 2
    scaled = pulls(terms[:count], weights, model.parameters(), 2.0**16)
    close(scaled, found, 1e-12)


def test_a_term_of_weight_0_has_a_norm_and_no_share() -> None:
    model, terms = scene()
    found = pulls(terms[:2], [0.0, 2.0], model.parameters())
    assert found.norms[0]
    assert found.shares == pytest.approx([0, 1])
    assert found.whole == pytest.approx(2 * (found.norms[1] or 0))


def test_what_has_no_direction_is_none() -> None:
    model, (first, *_) = scene()
    constant = torch.ones((), dtype=torch.float64)
    found = pulls([first, constant], [1.0, 1.0], model.parameters())
    assert found.norms[1] == 0
    assert found.cosines == [None]
    assert found.shares == [1, 0]
    against = pulls([first, -first], [1.0, 1.0], model.parameters())
    assert against.cosines == [pytest.approx(-1)]
    assert (against.shares, against.whole) == ([None, None], 0)
    broken = pulls([first * torch.inf, first], [1.0, 1.0], model.parameters())
    assert broken.norms[0] is None
    assert broken.shares == [None, None]
    assert pulls([first], [1.0], []) == Pulls([0], [None], [], 0)


def test_frozen_parameters_do_not_count() -> None:
    model, _ = scene()
    model[0].requires_grad_(False)
    term = model(torch.ones(1, 5).double()).sum()
    found = pulls([term], [1.0], model.parameters())
    assert found.norms == [pytest.approx(np.linalg.norm(flat(term, [*model[2].parameters()])))]


def test_the_graph_is_left_for_the_step_itself() -> None:
    """Gradients that come after are equal to the last bit, and nothing is accumulated before."""
    model, terms = scene()
    twin, others = scene()
    pulls(terms, [1.0, 1.0, 1.0, 1.0], model.parameters())
    assert all(p.grad is None for p in model.parameters())
    for scalars in (terms, others):
        torch.stack(scalars).sum().backward()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad)


# In a run

SETTINGS = {
    "penalty": ["loss=ce_l2", "model.dropout=0.4", "data.label_noise=0.1"],
    "one term": ["loss=focal", "optimizer.name=sgd", "optimizer.momentum=0.9"],
    "convex": ["task=classification/breast_cancer", "loss=mse_bce", "trainer.gradient_clip=0.1"],
    "scheduled": ["loss=ce_focal", "loss.focal.weight={schedule:linear,start:0,end:1}"],
    "half precision": ["loss=ce_l2", "model.dropout=0.4", "trainer.precision=bf16-mixed"],
    "regions": ["task=segmentation/rare_digits", "loss=[bce,binary_batch_dice]", "model=unet",
                "model.channels=2", "model.depth=1", "data.train_size=64"],
    "own tensors": ["task=embedding/digits", "loss=arcface", "data.train_size=128"],
}  # fmt: skip


def trained(store: Path, *overrides: str) -> Record:
    return run(compose([*SHORT, *overrides, f"save={store / 'weights.pt'}"]), Store(store))


@pytest.mark.parametrize("name", SETTINGS)
def test_looking_changes_no_bit(name: str, tmp_path: Path) -> None:
    (tmp_path / "on").mkdir()
    (tmp_path / "off").mkdir()
    on = trained(tmp_path / "on", *SETTINGS[name], "trainer.gradients=3")
    off = trained(tmp_path / "off", *SETTINGS[name])
    assert (on.status, off.error) == ("done", None), on.error
    assert on.id == off.id
    for what in ("config", "metrics", "curve", "references", "start", "fingerprints", "seeds"):
        assert json.dumps(getattr(on, what)) == json.dumps(getattr(off, what)), what
    weights = [torch.load(tmp_path / folder / "weights.pt") for folder in ("on", "off")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert off.gradients == {}
    assert "gradients" not in off.seconds
    assert on.seconds["gradients"] > 0
    seen = on.gradients
    assert seen.keys() == COLUMNS
    assert seen["steps"] == list(range(0, on.steps, 3))
    assert {len(seen[key]) for key in COLUMNS - {"every", "terms"}} == {len(seen["steps"])}
    assert json.loads(json.dumps(seen)) == seen
    assert seen["whole"][0] == pytest.approx(on.start["gradient"], rel=1e-4)


@pytest.mark.parametrize("name", sorted({*SETTINGS} - {"half precision"}))
def test_the_first_step_is_as_by_hand(name: str, tmp_path: Path) -> None:
    """Built anew, with the same first batch; 1e-4: a record keeps six digits of float32."""
    words = [*SETTINGS[name], "model.dropout=0.0"] if name == "penalty" else SETTINGS[name]
    record = trained(tmp_path, *words, "trainer.gradients=1000")
    config = compose([*SHORT, *words])
    task = prepare(config).task
    inputs, target = next(iter(task.batches))
    total, terms = task.objective(task.compare(inputs, target), task.model)
    seen = record.gradients
    assert seen["terms"] == list(terms)
    assert seen["weights"] == [task.objective.current()]
    expected = by_hand([*terms.values()], seen["weights"][0], [*task.model.parameters()])
    first = Pulls(*[seen[key][0] for key in Pulls._fields])
    close(first, expected, 1e-4)
    assert record.start["loss"] == pytest.approx(total.item(), rel=1e-5)
    assert record.start["gradient"] == pytest.approx(expected.whole, rel=1e-5)
    assert record.start["gradient"] == pytest.approx(probe(config).gradient, rel=1e-5)


def test_terms_of_weight_0_are_left_out_unless_they_may_rise(tmp_path: Path) -> None:
    constant = trained(tmp_path, "loss=ce_l2", "loss.l2.weight=0", "trainer.gradients=1")
    assert constant.gradients["terms"] == ["cross_entropy"]
    assert constant.gradients["shares"] == [[1.0]] * constant.steps
    assert constant.gradients["cosines"] == [[]] * constant.steps
    rising = trained(tmp_path, *SETTINGS["scheduled"], "trainer.gradients=1")
    at = rising.gradients["terms"].index("focal")
    shares = [row[at] for row in rising.gradients["shares"]]
    assert shares[0] == 0
    assert rising.gradients["norms"][0][at] > 0
    assert shares[-1] > 0.1
    weights = [row[at] for row in rising.gradients["weights"]]
    assert weights == pytest.approx([i / rising.steps for i in range(rising.steps)], rel=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "regions",
        pytest.param("penalty", marks=pytest.mark.slow),
        pytest.param("own tensors", marks=pytest.mark.slow),
    ],
)
def test_two_devices_see_what_one_sees(name: str, tmp_path: Path) -> None:
    """The model of `regions` has batch statistics, which both share; 1e-5: six digits are kept."""
    words = [*SHORT, *SETTINGS[name], "trainer.epochs=1", "trainer.gradients=2"]
    words += ["model.dropout=0"] if name == "penalty" else []
    one, two = on_one_and_two_devices(words, tmp_path)
    assert one["status"] == two["status"] == "done", two["error"]
    for key in ("norms", "shares", "cosines", "whole", "steps"):
        mine, theirs = (np.array(r["gradients"][key], float) for r in (one, two))
        assert mine.size or key == "cosines"
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-9, err_msg=key)
    assert one["start"] == pytest.approx(two["start"])


@pytest.mark.slow
def test_looking_changes_no_bit_on_two_devices(tmp_path: Path) -> None:
    found = []
    for every in (2, 0):
        words = [*SHORT, *SETTINGS["regions"], "trainer.epochs=2", f"trainer.gradients={every}"]
        folder = tmp_path / f"{every}"
        folder.mkdir()
        found.append(on_one_and_two_devices(words, folder)[1])
    on, off = found
    assert on["gradients"]["steps"]
    assert not off["gradients"]
    for what in ("metrics", "curve", "start"):
        assert on[what] == off[what], what


class Stop(Callback):
    """Ctrl-C at a step."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 7:
            raise KeyboardInterrupt


def test_a_run_that_was_stopped_knows_what_it_saw_before(tmp_path: Path) -> None:
    config = compose([*SHORT, *SETTINGS["penalty"], "trainer.gradients=2", "trainer.checkpoint=3"])
    whole = run(config, Store(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run(config, Store(tmp_path), callbacks=[Stop()])
    resumed = run(config, Store(tmp_path))
    assert whole.steps > 7
    assert (resumed.gradients, resumed.start) == (whole.gradients, whole.start)
    assert resumed.metrics == whole.metrics


# Records with and without


def test_the_key_is_no_part_of_a_runs_identity() -> None:
    off, on = (compose([*SHORT, f"trainer.gradients={n}"]) for n in (0, 7))
    assert run_id(off, 0) == run_id(on, 0)
    with pytest.raises(ValueError, match="gradients"):
        compose([*SHORT, "trainer.gradients=-1"])


def test_a_record_without_them_is_trained_again_when_they_are_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def asked(every: int) -> Record:
        record = run_once(compose([*SHORT, f"trainer.gradients={every}"]), store)
        assert record is not None
        return record

    plain, measured = asked(0), asked(5)
    assert not plain.gradients
    assert measured.gradients["every"] == 5
    assert measured.metrics == plain.metrics
    folder = store.run_folder(plain.id)
    assert (folder / "record.json.earlier-1").exists()
    assert asked(0).provenance == asked(3).provenance == measured.provenance
    assert not (folder / "record.json.earlier-2").exists()


def test_a_sweep_trains_those_again_that_lack_them() -> None:
    plan = make_plan(seeds=2)
    wanted = {"trainer": {"gradients": 5}}
    cells = [dataclasses.replace(cell, config=cell.config | wanted) for cell in plan.cells]
    records, asking = make_records(plan), dataclasses.replace(plan, cells=cells)
    assert to_do(plan, records, Choice()) == []
    assert len(to_do(asking, records, Choice())) == len(records)
    lost = {run: dataclasses.replace(record, status="failed") for run, record in records.items()}
    assert to_do(asking, lost, Choice()) == []


def test_trials_of_a_tuner_are_not_looked_into() -> None:
    trial = Trial("t", "a", 0, {}, {"trainer": {"test": True, "gradients": 9}}, {}, {})
    assert trial.trained()["trainer"] == {"test": False, "gradients": 0}
