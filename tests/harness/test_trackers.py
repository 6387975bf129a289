import importlib
import importlib.util
import math
import struct
import types

import pytest

from harness import trackers

CONFIG = {"lr": 0.1, "loss": {"focal": {"weight": 0.5, "gamma": 2.0}}, "empty": {}}


def mirror_a_run(name, folder):
    """Two steps and an end, as a run would send them."""
    (tracker,) = trackers.open_trackers([name], folder, "abc123", CONFIG, "sweep")
    tracker.log({"train/loss": 1.5, "train/focal.weighted": 0.25}, 10)
    tracker.log({"train/loss": math.nan}, 20)
    tracker.finish("diverged", {"test/accuracy": 0.75})


class Recorder:
    """A tracker that remembers what it is told and fails at the steps given."""

    def __init__(self, fails_at=()):
        self.told, self.fails_at = [], fails_at

    def log(self, metrics, step):
        self.told.append(step)
        if step in self.fails_at:
            raise ConnectionError("no route\nlong trace")

    def finish(self, status, metrics):
        self.told.append(status)


@pytest.fixture
def installed(monkeypatch):
    """Put a tracker in the place of W&B, whether W&B is installed or not."""

    def install(open_tracker):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        monkeypatch.setitem(trackers._TRACKERS, "wandb", open_tracker)

    return install


def test_no_names_give_no_trackers(tmp_path):
    assert trackers.open_trackers([], tmp_path, "abc123", CONFIG, "sweep") == []
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_is_refused_with_the_nearest_one(tmp_path):
    with pytest.raises(ValueError, match="no tracker 'tensorbord'; did you mean 'tensorboard'"):
        trackers.open_trackers(["tensorbord"], tmp_path, "abc123", CONFIG, "sweep")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_library_is_refused_with_its_cure(name, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"pip install lossbench\[{name}\]") as refusal:
        trackers.open_trackers([name], tmp_path, "abc123", CONFIG, "sweep")
    assert "\n" not in str(refusal.value)


def test_the_first_error_is_told_once_and_closes_the_mirror(tmp_path, installed, capsys):
    recorder = Recorder(fails_at=(2, 3))
    installed(lambda *given: recorder)
    (tracker,) = trackers.open_trackers(["wandb"], tmp_path, "abc123", CONFIG, "sweep")
    for step in (1, 2, 3):
        tracker.log({"train/loss": 1.0}, step)
    tracker.finish("done", {})
    assert recorder.told == [1, 2, "failed"]
    told = capsys.readouterr().err.splitlines()
    assert told == ["warning: wandb is closed and the run goes on: ConnectionError: no route"]


def test_a_mirror_that_does_not_open_is_left_out(tmp_path, installed, capsys):
    def refuse(*given):
        raise ConnectionError("no route")

    installed(refuse)
    assert trackers.open_trackers(["wandb"], tmp_path, "abc123", CONFIG, "sweep") == []
    assert "wandb is closed" in capsys.readouterr().err


def test_an_interrupt_is_not_swallowed(tmp_path, installed):
    recorder = Recorder()
    installed(lambda *given: recorder)
    (tracker,) = trackers.open_trackers(["wandb"], tmp_path, "abc123", CONFIG, "sweep")

    def interrupt(metrics, step):
        raise KeyboardInterrupt

    recorder.log = interrupt
    with pytest.raises(KeyboardInterrupt):
        tracker.log({"train/loss": 1.0}, 1)


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "key"}, "online"),
        ({"WANDB_API_KEY": "key", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_wandb_uploads_only_when_asked(environment, mode, tmp_path, monkeypatch):
    given = {}
    run = types.SimpleNamespace(define_metric=lambda *names, **axes: None)
    fake = types.SimpleNamespace(init=lambda **a: given.update(a) or run, Settings=dict)
    monkeypatch.setattr(importlib, "import_module", {"wandb": fake}.__getitem__)
    for key in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    trackers._Wandb(tmp_path, "abc123", CONFIG, "sweep")
    assert given["mode"] == mode


def test_tensorboard_holds_the_curve_the_config_and_the_end(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    mirror_a_run("tensorboard", tmp_path)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    loss = events.Scalars("train/loss")
    assert [point.step for point in loss] == [10, 20]
    assert loss[0].value == 1.5
    assert math.isnan(loss[1].value)
    assert [(p.step, p.value) for p in events.Scalars("train/focal.weighted")] == [(10, 0.25)]
    assert [(p.step, p.value) for p in events.Scalars("test/accuracy")] == [(20, 0.75)]

    def text(tag):
        (event,) = events.Tensors(f"{tag}/text_summary")
        return event.tensor_proto.string_val[0].decode()

    assert '"gamma": 2.0' in text("config")
    assert text("status") == "diverged"


@pytest.mark.slow
# sqlalchemy 2.1 deprecates a loader that MLflow asks for; nothing of ours.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_mlflow_holds_the_curve_the_config_and_the_end(tmp_path, monkeypatch):
    library = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mirror_a_run("mlflow", tmp_path)
    mirror_a_run("mlflow", tmp_path)  # the group exists by now
    client = library.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("sweep").experiment_id
    first, second = client.search_runs([experiment])
    assert first.info.run_id != second.info.run_id
    assert first.info.run_name == "abc123"
    assert first.info.status == "FAILED"
    assert first.data.tags["status"] == "diverged"
    assert first.data.params == {
        "lr": "0.1",
        "loss.focal.weight": "0.5",
        "loss.focal.gamma": "2.0",
        "empty": "{}",
    }
    history = client.get_metric_history(first.info.run_id, "train/loss")
    assert [point.step for point in history] == [10, 20]
    assert history[0].value == 1.5
    assert math.isnan(history[1].value)
    assert first.data.metrics["test/accuracy"] == 0.75


def wandb_records(file):
    """Records of an offline run: a LevelDB log of protocol buffers behind a header of 7 bytes."""
    record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    data, at = file.read_bytes(), 7
    assert len(data) < 32768, "a second block needs a real reader"
    while at < len(data):
        _, length, kind = struct.unpack_from("<IHB", data, at)
        assert kind == 1, "a whole record"
        yield record.FromString(data[at + 7 : at + 7 + length])
        at += 7 + length


@pytest.mark.slow
def test_wandb_offline_holds_the_curve_the_config_and_the_end(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))  # caches and settings
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    mirror_a_run("wandb", tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = {kind: [] for kind in ("run", "history", "summary", "exit")}
    for record in wandb_records(file):
        kind = record.WhichOneof("record_type")
        records.setdefault(kind, []).append(getattr(record, kind))
    (run,) = records["run"]
    assert (run.run_id, run.run_group) == ("abc123", "sweep")
    assert "gamma" in str(run.config)
    points = [
        {item.key or item.nested_key[0]: item.value_json for item in point.item}
        for point in records["history"]
    ]
    assert [point["step"] for point in points] == ["10", "20"]
    assert points[0]["train/loss"] == "1.5"
    end = {i.key or i.nested_key[0]: i.value_json for s in records["summary"] for i in s.update}
    assert (end["test/accuracy"], end["status"]) == ("0.75", '"diverged"')
    assert [end.exit_code for end in records["exit"]] == [1]
