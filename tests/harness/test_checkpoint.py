"""A run that is stopped goes on from its checkpoint, to the last bit as if it had not been."""

import dataclasses
import json
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from harness import checkpoint
from harness.config import run_id
from harness.record import Record
from harness.run import run, run_once
from harness.store import Store, StoreError
from tests.harness import tiny
from tests.harness.spine import iris, python, records, start, wait_for, write_sweep

# Twenty steps in four epochs, with everything that has a state: dropout, Adam, a schedule, means of
# terms between two evaluations.
LONG = ["loss=ce_focal", "trainer.epochs=4", "trainer.evaluations=2", "trainer.batch_size=20"]
LONG += ["model.dropout=0.3", "optimizer.schedule=cosine", "trainer.gradients=2"]


class Stop(Callback):
    """Ends the training after a step, as Ctrl-C would, or as nothing else: by SIGKILL."""

    def __init__(self, step: int, *, dead: bool = False) -> None:
        self.step, self.dead = step, dead

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            if self.dead:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt


def outcome(record: Record) -> dict[str, Any]:
    """What must not depend on having been stopped."""
    facts = dataclasses.asdict(record)
    facts.pop("provenance")
    return facts | {"seconds": None, "peak_memory": None}


def folder(store: Store, record: Record) -> Path:
    return store.run_folder(record.id)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Record:
    record = run(iris(*LONG), Store(tmp_path_factory.mktemp("whole")))
    assert (record.status, record.steps) == ("done", 20)
    return record


def stopped(place: Path, step: int, every: int) -> Store:
    """A store in which the run was stopped after a step."""
    store = Store(place)
    with pytest.raises(KeyboardInterrupt):
        run(iris(*LONG, f"trainer.checkpoint={every}"), store, callbacks=[Stop(step)])
    return store


@pytest.mark.parametrize("every", [1, 3, 5])
def test_a_run_goes_on_to_the_last_bit_from_any_step(
    every: int, whole: Record, tmp_path: Path
) -> None:
    """The last step of an epoch is among them, and with 5 every checkpoint lies between two."""
    config = iris(*LONG, f"trainer.checkpoint={every}")
    for step in (1, 3, 5, 6, 10, 14, 19):
        store = stopped(tmp_path / str(step), step, every)
        kept = checkpoint.newest(folder(store, whole), {"run": whole.id})
        assert (kept is None) == (step <= every)  # written before the next step begins
        resumed = run_once(config, store)
        assert resumed is not None
        assert outcome(resumed) == outcome(whole), step
        assert not list(folder(store, whole).glob("checkpoint*"))


def test_the_key_decides_no_outcome() -> None:
    assert run_id(iris(*LONG), 0) == run_id(iris(*LONG, "trainer.checkpoint=7"), 0)


def test_seconds_of_training_add_up(whole: Record, tmp_path: Path) -> None:
    store = stopped(tmp_path, 9, 3)
    path = next(folder(store, whole).glob("checkpoint-*"))
    content = torch.load(path, weights_only=True)
    content["callbacks"]["Checkpoints"]["seconds"] = 1000.0
    for name in checkpoint.GENERATIONS:
        torch.save(content, path.with_name(name))
    resumed = run_once(iris(*LONG, "trainer.checkpoint=3"), store)
    assert resumed is not None
    assert 1000 < resumed.seconds["train"] < 1100
    assert resumed.seconds["train"] < resumed.seconds["total"] < 1100


KILLS = """
import json, os, random, sys
import torch
torch.set_num_threads(1)
from harness.run import run_once
from harness.store import Store
from tests.harness.spine import iris
from tests.harness.test_checkpoint import LONG, Stop
store, draw, codes = Store("killed"), random.Random(0), []
config = iris(*LONG, "trainer.checkpoint=1")
while store.read(sys.argv[1]) is None and len(codes) < 60:
    child = os.fork()
    if child == 0:
        run_once(config, store, callbacks=[Stop(draw.randint(1, 20), dead=True)])
        os._exit(0)
    codes.append(os.waitpid(child, 0)[1])
    draw.random()
print(json.dumps(codes))
"""


def test_kills_at_random_steps_change_nothing(whole: Record, tmp_path: Path) -> None:
    """One process after the other is killed for good, wherever the last one left the run (seed 0).

    A step before the place it goes on from does not come, and so kills nobody.
    """
    done = python(["-c", KILLS, whole.id], tmp_path)
    assert done.returncode == 0, done.stderr
    *codes, last = json.loads(done.stdout.splitlines()[-1])
    assert set(codes) == {signal.SIGKILL}
    assert last == 0
    found = Store(tmp_path / "killed").read(whole.id)
    assert found is not None
    assert outcome(found) == outcome(whole)


TWO = """
import sys
from harness.compose import compose
from harness.run import run_once
from harness.store import Store
from tests.harness.test_checkpoint import Stop
at, *words = sys.argv[1:]
config = compose(words)
run_once(config, Store(config.store), callbacks=[Stop(int(at), dead=True)] if int(at) else [])
"""


@pytest.mark.slow
def test_two_processes_and_readers_of_pictures_go_on_too(tmp_path: Path) -> None:
    """Killed at the last step of an epoch; pictures are read by two workers each."""
    path = tiny.folder(tmp_path / "own", n=15)
    words = ["task=classification/image_folder", f"data.path={path}", "data.size=[16,16]"]
    words += ["model=cnn", "loss=cross_entropy", "data.memory=0", "trainer.workers=2"]
    words += ["trainer.batch_size=5", "trainer.epochs=3", "trainer.accelerator=cpu"]
    words += ["trainer.strategy=ddp", "trainer.devices=2", "trainer.precision=64-true"]
    (tmp_path / "two.py").write_text(TWO)
    found = []
    for store, steps in (("whole", [0]), ("killed", [4, 0])):
        own = [*words, f"store={store}", "trainer.checkpoint=1"]
        for step in steps:
            done = python(["two.py", str(step), *own], tmp_path)
            errors = [record["error"] for record in records(tmp_path / store).values()]
            assert errors == ([None] if step == 0 else []), done.stderr
        (record,) = records(tmp_path / store).values()
        found.append(record)
    assert found[0]["metrics"] == found[1]["metrics"]
    assert found[0]["curve"] == found[1]["curve"]


@pytest.mark.parametrize("wanted", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_has_the_run_write_down_where_it_is(
    wanted: signal.Signals, tmp_path: Path
) -> None:
    words = ["-m", "harness", "train", "task=classification/iris", "loss=cross_entropy"]
    words += ["trainer.epochs=1000000", "trainer.checkpoint=200", "trainer.evaluations=1"]
    process = start(words, tmp_path)
    place = tmp_path / "results" / "runs"
    wait_for(lambda: list(place.glob("*/checkpoint-1.pt")), "two checkpoints")
    process.send_signal(wanted)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert not records(tmp_path / "results")
    (one,) = place.iterdir()
    latest = checkpoint.newest(one, {"run": one.name})
    assert latest is not None
    assert torch.load(latest, weights_only=True)["global_step"] % 200


def test_a_spoilt_checkpoint_leaves_the_one_before(whole: Record, tmp_path: Path) -> None:
    store = stopped(tmp_path, 17, 3)
    place = folder(store, whole)
    latest = checkpoint.newest(place, {"run": whole.id})
    assert latest is not None
    latest.write_bytes(latest.read_bytes()[:-2000])
    older = checkpoint.newest(place, {"run": whole.id})
    assert older not in (None, latest)
    resumed = run_once(iris(*LONG, "trainer.checkpoint=3"), store)
    assert resumed is not None
    assert outcome(resumed) == outcome(whole)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_flipped_byte_is_seen(share: float, whole: Record, tmp_path: Path) -> None:
    """Wherever it is: in the numbers of a tensor too, of which torch keeps a sum it never reads."""
    store = stopped(tmp_path, 17, 3)
    latest = checkpoint.newest(folder(store, whole), {"run": whole.id})
    assert latest is not None
    content = bytearray(latest.read_bytes())
    content[int(share * len(content))] ^= 0xFF
    latest.write_bytes(content)
    resumed = run_once(iris(*LONG, "trainer.checkpoint=3"), store)
    assert resumed is not None
    assert outcome(resumed) == outcome(whole)


@pytest.mark.parametrize("other", ["trainer.gradients=3", "trainer.devices=2"])
def test_a_checkpoint_of_other_measurements_or_processes_is_passed_over(
    other: str, whole: Record, tmp_path: Path
) -> None:
    store = stopped(tmp_path, 9, 3)
    path = checkpoint.newest(folder(store, whole), {"run": whole.id})
    assert path is not None
    about = dict(torch.load(path, weights_only=True)[checkpoint.ABOUT])
    key, value = other.removeprefix("trainer.").split("=")
    assert checkpoint.newest(path.parent, about) == path
    assert checkpoint.newest(path.parent, about | {key: int(value)}) is None
    assert checkpoint.newest(path.parent, about | {"versions": {"torch": "0"}}) is None


def test_a_retry_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """The record of the failure is there all the while; what a killed write left goes."""
    config, store = iris(*LONG, "trainer.checkpoint=3"), Store(tmp_path)
    identity = run_id(config, 0)
    store.write(Record(identity, "failed", {}, 0, error="it was full"))
    with pytest.raises(KeyboardInterrupt):
        run_once(config, store, force=True, callbacks=[Stop(9)])
    left = store.run_folder(identity) / ".checkpoint-1.pt-abcdef"
    left.write_bytes(b"half")
    steps: list[int] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            steps.append(trainer.global_step)

    run_once(config, store, force=True, callbacks=[Watch()])
    assert steps == list(range(6, 20))
    assert not left.exists()


def test_workers_of_a_sweep_that_ends_write_down_where_they_are(tmp_path: Path) -> None:
    write_sweep(tmp_path, seeds=1, overrides=["trainer.epochs=1000000", "trainer.checkpoint=300"])
    process = start(["-m", "harness", "sweep", "small.yaml", "--jobs=1"], tmp_path)
    place = tmp_path / "results" / "runs"
    wait_for(lambda: list(place.glob("*/checkpoint-1.pt")), "two checkpoints", 120)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    (one,) = (path.parent for path in place.glob("*/checkpoint-1.pt"))

    def last() -> bool:
        latest = checkpoint.newest(one, {"run": one.name})
        return bool(latest and torch.load(latest, weights_only=True)["global_step"] % 300)

    wait_for(last, "a checkpoint between two")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps(Trap())])
def test_what_is_no_checkpoint_is_passed_over_and_never_run(
    content: bytes, whole: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path)
    for name in checkpoint.GENERATIONS:
        path = folder(store, whole) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    resumed = run_once(iris(*LONG, "trainer.checkpoint=3"), store)
    assert resumed is not None
    assert outcome(resumed) == outcome(whole)
    assert not (tmp_path / "trapped").exists()


def test_no_run_takes_another_s_checkpoint(whole: Record, tmp_path: Path) -> None:
    store = stopped(tmp_path, 9, 3)
    other = iris(*LONG, "trainer.checkpoint=3", "seed=1")
    place = store.run_folder(run_id(other, 1))
    place.mkdir(parents=True)
    for name in checkpoint.GENERATIONS:
        (place / name).write_bytes((folder(store, whole) / name).read_bytes())
    assert checkpoint.newest(place, {"run": place.name}) is None
    alone = run(other, Store(tmp_path / "alone"))
    resumed = run_once(other, store)
    assert resumed is not None
    assert outcome(resumed) == outcome(alone)


def test_a_full_disk_stops_the_run_and_keeps_what_is_there(
    whole: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, store = iris(*LONG, "trainer.checkpoint=3"), Store(tmp_path)
    write, written = checkpoint.write_atomically, []

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) > 2:
            raise StoreError(f"cannot write {path}: No space left on device")
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_atomically", full)
        with pytest.raises(StoreError, match="No space left"):
            run(config, store)
    assert checkpoint.newest(folder(store, whole), {"run": whole.id}) == written[1]
    resumed = run_once(config, store)
    assert resumed is not None
    assert outcome(resumed) == outcome(whole)


def test_force_starts_anew(whole: Record, tmp_path: Path) -> None:
    store = stopped(tmp_path, 9, 3)
    config = iris(*LONG, "trainer.checkpoint=3")
    steps: list[int] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            steps.append(trainer.global_step)

    run_once(config, store, force=True, callbacks=[Watch()])
    assert steps == list(range(20))


def test_signals_are_as_before_when_a_run_has_ended(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    run(iris("trainer.checkpoint=2"), Store(tmp_path))
    assert signal.getsignal(signal.SIGUSR1) is before
