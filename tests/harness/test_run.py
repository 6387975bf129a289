"""A run leaves a record whatever comes of it, and the same run leaves the same one."""

import json
import logging
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from harness.batches import Batches
from harness.compose import compose
from harness.config import RunConfig, check, run_id
from harness.prepare import prepare, probe
from harness.record import Record
from harness.run import check_ready, rehearse, run, run_once
from harness.store import Store, StoreError
from tests.harness.spine import IRIS, iris, start

SHORT = [*IRIS, "trainer.epochs=6", "trainer.evaluations=3"]


def trained(*overrides: str, store: Path, callbacks: Any = ()) -> Record:
    return run(compose([*SHORT, *overrides]), Store(store), callbacks=callbacks)


# The same again

SETTINGS = {
    "classes": ["model.dropout=0.3", "loss=ce_focal", "data.label_noise=0.1"],
    "numbers": ["task=regression/diabetes", "loss=huber", "data.outliers=0.1", "seed=3"],
}


def reproduce(path: str) -> None:
    """Train all settings and leave what came out at `path`."""
    found = {}
    for name, overrides in SETTINGS.items():
        record = trained(*overrides, store=Path(path).with_suffix(""))
        found[name] = [record.id, record.metrics, record.curve, record.fingerprints, record.seeds]
    Path(path).write_text(json.dumps(found))


def test_a_run_repeats_to_the_last_bit_in_another_process(tmp_path: Path) -> None:
    """Whatever the threads and hash seed of the process, or what it has done before."""
    code = "from tests.harness.test_run import reproduce; reproduce({!r})"
    fresh = [
        start(["-c", code.format(f"{n}.json")], tmp_path, PYTHONHASHSEED=n, OMP_NUM_THREADS=n)
        for n in ("1", "2")
    ]
    torch.manual_seed(5)
    torch.rand(7)
    reproduce(str(tmp_path / "here.json"))
    for process in fresh:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    texts = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    assert texts["1.json"] == texts["2.json"] == texts["here.json"]
    assert len(json.loads(texts["1.json"])["classes"][2]) == 3  # points of the curve


def test_arms_of_a_seed_share_all_that_is_drawn(tmp_path: Path) -> None:
    arms = ("loss=cross_entropy", "loss=focal", "loss=ce_l2")
    noisy = ["data.label_noise=0.2", "model.dropout=0.5"]
    by_seed = {
        seed: [trained(arm, *noisy, f"seed={seed}", store=tmp_path) for arm in arms]
        for seed in (0, 1)
    }
    for records in by_seed.values():
        for shared in ("data", "split", "init", "order"):
            assert len({record.fingerprints[shared] for record in records}) == 1
        assert len({record.fingerprints["loss"] for record in records}) == len(arms)
        assert len({json.dumps(record.seeds) for record in records}) == 1
        assert len({record.id for record in records}) == len(arms)
    first, second = (records[0] for records in by_seed.values())
    assert first.fingerprints["data"] == second.fingerprints["data"]
    for drawn in ("split", "init", "order"):
        assert first.fingerprints[drawn] != second.fingerprints[drawn]


def test_a_mix_without_a_share_is_the_other_loss(tmp_path: Path) -> None:
    """A control arm: to the last bit, with dropout."""
    plain = trained("loss=cross_entropy", "model.dropout=0.2", store=tmp_path)
    mixed = trained(
        "loss=ce_focal", "loss.mix=convex", "loss.p=0", "model.dropout=0.2", store=tmp_path
    )
    assert mixed.id != plain.id
    assert mixed.metrics == plain.metrics


def bare_loop(config: RunConfig) -> tuple[nn.Module, list[float]]:
    """The same training in plain PyTorch: the model, and the mean loss of each epoch."""
    prepared = prepare(config)
    model, part = prepared.task.model, prepared.data.train
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    given: dict[str, Any] = {"lr": config.optimizer.lr}
    given |= {"weight_decay": config.optimizer.weight_decay}
    given |= {"momentum": config.optimizer.momentum} if config.optimizer.name == "sgd" else {}
    optimizer = kinds[config.optimizer.name](model.parameters(), **given)
    batches = Batches(part, config.trainer.batch_size, prepared.seeds["order"])
    steps = len(batches) * config.trainer.epochs
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    means = []
    for _ in range(config.trainer.epochs):
        losses = []
        for inputs, target in batches:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), target)
            loss.backward()
            if config.trainer.gradient_clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.trainer.gradient_clip)
            optimizer.step()
            if config.optimizer.schedule == "cosine":
                cosine.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    return model, means


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer.name=adamw", "optimizer.weight_decay=0.1"],
        ["optimizer.name=sgd", "optimizer.momentum=0.9", "optimizer.schedule=cosine"],
        ["optimizer.name=sgd", "optimizer.lr=1", "trainer.gradient_clip=0.5"],
    ],
)
def test_a_run_is_what_a_bare_loop_would_do(overrides: list[str], tmp_path: Path) -> None:
    config = compose([*SHORT, "trainer.evaluations=6", *overrides])
    record = run(config, Store(tmp_path))
    model, means = bare_loop(config)
    task = prepare(config).task
    task.model.load_state_dict(model.state_dict())
    for split, part in (("val", task.data.val), ("test", task.data.test)):
        expected = task.evaluate(part)
        assert {name: record.metrics[f"{split}/{name}"] for name in expected} == expected
    assert record.steps == 6 * len(Batches(task.data.train, config.trainer.batch_size))
    # the curve sums in float32
    assert [point["train/loss"] for point in record.curve] == pytest.approx(means, rel=1e-6)
    assert [point["epoch"] for point in record.curve] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_train(precision: str, tmp_path: Path) -> None:
    """Both come near float32: bfloat16 has 8 bits, and an accuracy moves by items of 30."""
    for task in ("classification/iris", "regression/diabetes"):
        loss = {"c": "loss=ce_l2", "r": "loss=mse"}[task[0]]
        given = [f"task={task}", loss]
        plain = trained(*given, store=tmp_path)
        record = trained(*given, f"trainer.precision={precision}", store=tmp_path)
        assert record.status == "done", record.error
        name = {"c": "val/nll", "r": "val/rmse"}[task[0]]
        near = 1e-4 if precision == "64-true" else 0.05
        assert record.metrics[name] == pytest.approx(plain.metrics[name], rel=near)


# What a record says


def test_a_record_says_all_that_a_reader_may_ask_for(tmp_path: Path) -> None:
    record = trained("loss=ce_l2", "seed=4", store=tmp_path)
    assert record.status == "done"
    assert record.error is None
    assert check({**record.config, "seed": record.seed}).objective.terms.keys() == {
        "cross_entropy",
        "l2",
    }
    assert run_id(check(record.config), 4) == record.id  # it can be run again from its record
    assert record.parameters == 4 * 64 + 64 + 64 * 64 + 64 + 64 * 3 + 3
    assert record.peak_memory > 10e6
    assert 0 < record.seconds["train"] <= record.seconds["total"] < 60
    names = ["cross_entropy", "l2"]
    for point in record.curve:
        weighted = [point[f"train/{name}.weighted"] for name in names]
        assert point["train/loss"] == pytest.approx(sum(weighted), rel=1e-5)  # float32
        weights = (1.0, 1e-4)
        for name, weight, value in zip(names, weights, weighted, strict=True):
            assert value == pytest.approx(weight * point[f"train/{name}"], rel=1e-5)
    assert record.provenance["started"] < record.provenance["finished"]
    assert record.provenance["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert {"commit", "dirty", "platform", "device", "threads"} <= record.provenance.keys()
    assert Store(tmp_path).read(record.id) == record


def test_a_divergence_is_recorded_with_its_step(tmp_path: Path) -> None:
    record = trained("optimizer.name=sgd", "optimizer.lr=1e30", store=tmp_path)
    assert record.status == "diverged"
    assert record.error is not None
    assert record.error.endswith(f"is not finite at step {record.steps}")
    assert 0 < record.steps < 18
    assert record.metrics == {}
    assert record.fingerprints["init"]
    assert Store(tmp_path).read(record.id) == record


def test_a_late_divergence_keeps_the_curve_so_far(tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_train_epoch_start(self, trainer: Any, task: Any) -> None:
            if trainer.current_epoch == 4:
                next(task.model.parameters()).data.fill_(float("nan"))

    record = trained(store=tmp_path, callbacks=[Spoil()])
    assert record.status == "diverged"
    assert record.error == "the training loss is not finite at step 12"
    assert [point["epoch"] for point in record.curve] == [2, 4]


class Break(Callback):
    """Raises at the end of the second epoch."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_epoch_end(self, trainer: Any, _: Any) -> None:
        if trainer.current_epoch == 1:
            raise self.error


def test_a_failure_is_recorded_with_its_error_and_may_be_tried_again(tmp_path: Path) -> None:
    config, store = compose(SHORT), Store(tmp_path)
    failed = run_once(config, store, callbacks=[Break(RuntimeError("disk\n  on fire"))])
    assert failed is not None
    assert (failed.status, failed.error) == ("failed", "RuntimeError: disk on fire")
    assert failed.metrics == {}
    assert failed.seconds["total"] > 0
    text = (store.run_folder(failed.id) / "error.txt").read_text()
    assert text.startswith("Traceback")
    assert "on_train_epoch_end" in text
    assert run_once(config, store) == failed  # not tried again unasked
    done = run_once(config, store, force=True)
    assert done is not None
    assert done.status == "done"
    earlier = store.run_folder(failed.id) / "record.json.earlier-1"
    assert json.loads(earlier.read_text())["status"] == "failed"
    assert run_once(config, store) == done


def test_a_stop_writes_nothing(tmp_path: Path) -> None:
    handler, store = signal.getsignal(signal.SIGINT), Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_once(compose(SHORT), store, callbacks=[Break(KeyboardInterrupt())])
    assert signal.getsignal(signal.SIGINT) is handler
    (folder,) = (tmp_path / "runs").iterdir()
    assert [path.name for path in folder.iterdir()] == [".lock"]
    again = run_once(compose(SHORT), store)  # the claim is free
    assert again is not None
    assert again.status == "done"


def test_a_store_that_cannot_be_written_is_no_failed_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for attempt in (run_once, run):
        with pytest.raises(StoreError, match=r"^cannot write"):
            attempt(iris(), Store(tmp_path / "file"))


def test_a_claimed_run_is_left_to_who_claimed_it(tmp_path: Path) -> None:
    store, config = Store(tmp_path), iris()
    with store.claim(run_id(config, 0)):
        assert run_once(config, store) is None
    assert run_once(config, store) is not None


# Around a run


def test_a_run_leaves_the_process_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    states = torch.get_rng_state(), list(warnings.filters), logging.getLogger().level
    lightning = logging.getLogger("lightning.pytorch").level
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    trained("trainer.precision=64-true", store=tmp_path)
    trained("optimizer.lr=1e30", store=tmp_path)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (list(warnings.filters), logging.getLogger().level) == states[1:]
    assert logging.getLogger("lightning.pytorch").level == lightning
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == (grad, dtype)
    assert capfd.readouterr() == ("", "")  # hundreds of runs share a terminal


def test_a_probe_trains_and_keeps_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    config = compose([*SHORT, "optimizer.lr=1e30"])
    tried = probe(config)
    check_ready(config)
    assert tried.steps == 6 * 3
    assert tried.seconds > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []
    prepared = prepare(config)
    inputs, target = next(iter(prepared.task.batches))
    nn.functional.cross_entropy(prepared.task.model(inputs), target).backward()
    norm = torch.cat([p.grad.flatten() for p in prepared.task.model.parameters()]).norm()  # type: ignore[union-attr]
    assert tried.gradient == pytest.approx(float(norm), rel=1e-6)  # float32


def test_a_rehearsal_that_diverges_refuses_no_sweep() -> None:
    """Its run will be recorded as diverged, as any other's."""
    seconds, step = rehearse(compose([*SHORT, "optimizer.name=sgd", "optimizer.lr=1e30"]))
    assert seconds > 0
    assert step >= 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=mse"], "task classification refuses loss mse"),
        (["data=diabetes"], "task classification needs binary or multiclass or multilabel data"),
        (["task=regression/diabetes"], "task regression refuses loss cross_entropy"),
        (["model=cnn"], "cnn with 2 convolutions needs inputs"),
        (["loss.cross_entropy.class_weight=[1,2]"], "needs one number per class, 3 of them"),
        (["trainer.accelerator=abacus"], "trainer: You selected an invalid accelerator name"),
        (["trainer.strategy=abacus"], "trainer: You selected an invalid strategy name"),
        (["trackers=[diary]"], "trackers: there is no tracker 'diary'"),
    ],
)
def test_what_cannot_take_a_step_is_refused_beforehand(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        check_ready(compose([*SHORT, *overrides]))
