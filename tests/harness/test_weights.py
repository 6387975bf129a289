"""Which weights of a run stay in its folder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from harness.cli import main
from harness.commands import Choice, planned, to_do
from harness.config import run_id
from harness.prepare import prepare
from harness.record import Record
from harness.run import run, run_once
from harness.store import Store
from harness.sweep import request
from tests.harness.spine import iris, on_one_and_two_devices, started, write_sweep
from tests.harness.test_checkpoint import LONG, Stop, stopped

# a learning rate at which validation accuracy comes and goes
RESTLESS = [*LONG, "trainer.evaluations=4", "optimizer.lr=0.1"]
BOTH = {"weights-best.pt", "weights-last.pt"}


def kept(store: Store, run: str) -> dict[str, dict[str, torch.Tensor]]:
    """The weights in a run's folder, read as anybody may."""
    files = store.run_folder(run).glob("weights-*")
    return {path.name: torch.load(path, weights_only=True) for path in files}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], set()),
        (["trainer.checkpoint=7"], BOTH),
        (["trainer.checkpoint=7", "trainer.keep=none"], set()),
        (["trainer.keep=last"], {"weights-last.pt"}),
        (["trainer.keep=best"], {"weights-best.pt"}),
        (["trainer.keep=both"], BOTH),
    ],
)
def test_what_is_kept_is_a_choice_that_decides_no_outcome(
    words: list[str], names: set[str], tmp_path: Path
) -> None:
    config = iris(*words)
    record = run(config, Store(tmp_path))
    assert record.status == "done", record.error
    assert record.id == run_id(iris(), 0)
    assert kept(Store(tmp_path), record.id).keys() == names
    assert not [*tmp_path.rglob(".weights*")]


class Every(Callback):
    """Keeps the weights at every evaluation for itself."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_validation_end(self, _: Any, task: Any) -> None:
        self.seen.append({key: value.clone() for key, value in task.model.state_dict().items()})


def test_the_best_is_that_of_the_best_evaluation_and_the_last_that_of_the_end(
    tmp_path: Path,
) -> None:
    config, every = iris(*RESTLESS, "trainer.keep=both"), Every()
    record = run(config, Store(tmp_path), callbacks=[every])
    values = [point["val/accuracy"] for point in record.curve]
    first = values.index(max(values))
    assert len(every.seen) == len(values) > first + 1
    found = kept(Store(tmp_path), record.id)
    for name, index in (("best", first), ("last", -1)):
        mine = found[f"weights-{name}.pt"]
        assert mine.keys() == every.seen[index].keys()
        assert all(torch.equal(mine[key], value) for key, value in every.seen[index].items())
    for name, value in (("best", max(values)), ("last", values[-1])):
        path = Store(tmp_path).run_folder(record.id) / f"weights-{name}.pt"
        task = prepare(iris(*RESTLESS, f"model.pretrained={path}")).task
        assert task.evaluate(task.data.val)["accuracy"] == value


def test_lower_is_better_where_it_is(tmp_path: Path) -> None:
    words = ["task=regression/diabetes", "loss=mse", "trainer.epochs=5", "trainer.evaluations=5"]
    words += ["optimizer.lr=0.3", "trainer.keep=best"]
    config, every = iris(*words), Every()
    record = run(config, Store(tmp_path), callbacks=[every])
    values = [point["val/rmse"] for point in record.curve]
    assert values[-1] != min(values)
    (found,) = kept(Store(tmp_path), record.id).values()
    best = every.seen[values.index(min(values))]
    # one output per item: the model stands within what flattens it, and is kept without that
    assert all(map(torch.equal, found.values(), best.values()))


@pytest.mark.parametrize("step", [3, 5, 9, 12, 17])
def test_a_run_that_was_stopped_keeps_the_same(step: int, tmp_path: Path) -> None:
    words = [*RESTLESS, "trainer.checkpoint=3"]
    whole = run(iris(*words), Store(tmp_path / "whole"))
    store = Store(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run(iris(*words), store, callbacks=[Stop(step)])
    assert run_once(iris(*words), store) is not None
    expected, found = kept(Store(tmp_path / "whole"), whole.id), kept(store, whole.id)
    assert found.keys() == expected.keys() == BOTH
    for name, weights in expected.items():
        assert all(torch.equal(found[name][key], value) for key, value in weights.items())


def test_a_checkpoint_of_a_run_that_kept_others_is_passed_over(tmp_path: Path) -> None:
    """Its best evaluation may lie before the checkpoint, and its weights would be nowhere."""
    store = stopped(tmp_path, 9, 3)
    steps: list[int] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            steps.append(trainer.global_step)

    run_once(iris(*LONG, "trainer.checkpoint=3", "trainer.keep=best"), store, callbacks=[Watch()])
    assert steps == list(range(20))


def test_a_done_run_trains_again_for_weights_that_are_asked_for_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = run(iris(), store)
    for word in ("auto", "none"):
        assert run_once(iris(f"trainer.keep={word}"), store) == first
    assert run_once(iris("trainer.checkpoint=7"), store) == first
    again = run_once(iris("trainer.keep=last"), store)
    assert again is not None
    assert again != first
    assert (again.metrics, again.curve) == (first.metrics, first.curve)
    assert kept(store, first.id).keys() == {"weights-last.pt"}
    assert run_once(iris("trainer.keep=last"), store) == again
    assert run_once(iris(), store) == again


def test_a_diverged_run_keeps_its_best_and_is_not_asked_for_more(tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_train_epoch_start(self, trainer: Any, task: Any) -> None:
            if trainer.current_epoch == 2:
                next(task.model.parameters()).data.fill_(float("nan"))

    config, store = iris(*RESTLESS, "trainer.keep=both"), Store(tmp_path)
    record = run_once(config, store, callbacks=[Spoil()])
    assert record is not None
    assert record.status == "diverged"
    assert kept(store, record.id).keys() == {"weights-best.pt"}
    assert run_once(config, store) == record


def test_without_a_number_to_judge_by_the_last_is_the_best(tmp_path: Path) -> None:
    class Blind(Callback):
        def on_validation_end(self, _: Any, task: Any) -> None:
            task.curve[-1]["val/accuracy"] = float("nan")

    config = iris("trainer.keep=both", "trainer.evaluations=1")
    record = run(config, Store(tmp_path), callbacks=[Blind()])
    found = kept(Store(tmp_path), record.id)
    best, last = (found[f"weights-{name}.pt"] for name in ("best", "last"))
    assert all(torch.equal(best[key], value) for key, value in last.items())


@pytest.mark.slow
def test_sweeps_keep_weights_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path, store = str(write_sweep(tmp_path, seeds=1)), Store("results")
    assert main(["sweep", path, "--jobs=1"]) == 0
    before = started(tmp_path / "results")
    assert not [*tmp_path.rglob("weights-*")]
    wanted = request(path, ["trainer.keep=last"])
    _, plan, records = planned(wanted)
    assert len(to_do(plan, records, Choice(), store)) == 2
    failed = {i: Record(i, "failed", {}, 0) for i in records}
    assert to_do(plan, failed, Choice(), store) == []
    assert main(["sweep", path, "--jobs=1", "trainer.keep=last"]) == 0
    assert started(tmp_path / "results").keys() == before.keys()
    assert {file.parent.name for file in tmp_path.rglob("weights-last.pt")} == before.keys()
    capsys.readouterr()
    assert main(["sweep", path, "--jobs=1", "trainer.keep=last"]) == 0
    assert "2 done, 0 to run" in capsys.readouterr().out


@pytest.mark.slow
def test_of_two_processes_the_first_writes_what_one_would(tmp_path: Path) -> None:
    """In float64, of sums in another order; dropout is drawn by each process for itself."""
    words = ["task=classification/iris", *RESTLESS, "model.dropout=0", "trainer.checkpoint=7"]
    one, two = on_one_and_two_devices(words, tmp_path)
    assert one["id"] == two["id"]
    mine, theirs = (kept(Store(tmp_path / f"d{n}"), one["id"]) for n in (1, 2))
    assert mine.keys() == theirs.keys() == BOTH
    for name, weights in mine.items():
        for key, value in weights.items():
            torch.testing.assert_close(theirs[name][key], value, rtol=1e-7, atol=1e-9)


def test_weights_of_an_earlier_run_of_one_id_are_not_those_of_the_new_record(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    first = run(iris("trainer.keep=both"), store)
    before = kept(store, first.id)
    again = run_once(iris("trainer.keep=none"), store, force=True)
    assert again is not None
    assert again.id == first.id
    there = {path.name for path in store.run_folder(first.id).glob("weights-*")}
    assert there == {f"{name}.earlier" for name in before}
    assert run_once(iris("trainer.keep=last"), store) is not None
    assert (store.run_folder(first.id) / "weights-last.pt").exists()
