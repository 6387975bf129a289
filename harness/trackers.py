"""Optional mirrors of a run in TensorBoard, Weights & Biases or MLflow.

Comparisons read records and nothing else; a mirror shows the same numbers where a team is used to
looking. It may fail without harm: its first error is told on stderr and closes it.
"""

import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from harness.nested import flat
from losses.arguments import nearest

PROJECT = "lossbench"


class Tracker(Protocol):
    """Where a run is mirrored."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add one point per metric at an optimiser step."""

    def finish(self, status: str, metrics: Mapping[str, float]) -> None:
        """Add the record's status and final metrics, and close."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise unless every name is a tracker whose library is installed; imports none of them.

    Raises:
        ValueError: an unknown name, or a missing library and how to install it.
    """
    for name in names:
        if name not in _TRACKERS:
            raise ValueError(f"trackers: there is no tracker '{name}'{nearest(name, _TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"trackers: {name} is missing: pip install {PROJECT}[{name}]")


def open_trackers(
    names: Sequence[str], folder: Path, run_id: str, config: Mapping[str, Any], group: str
) -> list[Tracker]:
    """Open the named mirrors of one run; one that cannot open is warned of and left out.

    Args:
        names: any of `tensorboard`, `wandb`, `mlflow`.
        folder: the run's own folder; whatever stays on this machine is written below it.
        run_id: the record's id.
        config: the resolved config.
        group: what runs are gathered under: W&B's group, MLflow's experiment.

    W&B uploads only where WANDB_MODE or WANDB_API_KEY asks for it, and is offline otherwise. MLflow
    writes to MLFLOW_TRACKING_URI, or to a sqlite file in the folder where that is not set.

    Raises:
        ValueError: as :func:`check_trackers`.
    """
    check_trackers(names)
    mirrors: list[Tracker] = []
    for name in dict.fromkeys(names):
        try:
            mirrors.append(_Mirror(name, _TRACKERS[name](folder, run_id, config, group)))
        except Exception as error:
            _warn(name, error)
    return mirrors


class _Mirror:
    """A tracker that cannot harm its run."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name = name
        self.tracker: Tracker | None = tracker

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._attempt(lambda tracker: tracker.log(metrics, step))

    def finish(self, status: str, metrics: Mapping[str, float]) -> None:
        self._attempt(lambda tracker: tracker.finish(status, metrics))
        self.tracker = None

    def _attempt(self, action: Callable[[Tracker], None]) -> None:
        if self.tracker is None:
            return
        try:
            action(self.tracker)
        except Exception as error:
            _warn(self.name, error)
            with suppress(Exception):  # told already
                self.tracker.finish("failed", {})
            self.tracker = None


def _warn(name: str, error: Exception) -> None:
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    print(f"warning: {name} is closed and the run goes on: {what}", file=sys.stderr)


class _TensorBoard:
    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], group: str) -> None:
        library = importlib.import_module("torch.utils.tensorboard")
        self.writer = library.SummaryWriter(str(folder / "tensorboard"))
        self.step = 0
        text = json.dumps(dict(config), indent=2, default=str)
        self.writer.add_text("config", f"{group} {run_id}\n```\n{text}\n```")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.step = step
        for key, value in metrics.items():
            self.writer.add_scalar(key, value, step)
        self.writer.flush()

    def finish(self, status: str, metrics: Mapping[str, float]) -> None:
        self.log(metrics, self.step)
        self.writer.add_text("status", status)
        self.writer.close()


class _Wandb:
    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], group: str) -> None:
        library = importlib.import_module("wandb")
        default = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        mode = os.environ.get("WANDB_MODE", default)
        self.run = library.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(folder),
            id=run_id,
            group=group,
            config=dict(config),
            mode=mode,
            resume="allow" if mode == "online" else None,  # a forced run has the replaced one's id
            reinit="create_new",  # arms stacked in one process are open at the same time
            settings=library.Settings(silent=True, console="off"),
        )
        # An own axis: W&B drops points whose step is below the last one, as in a run done again.
        self.run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log({**metrics, "step": step})

    def finish(self, status: str, metrics: Mapping[str, float]) -> None:
        self.run.summary.update({**metrics, "status": status})
        self.run.finish(exit_code=0 if status == "done" else 1)


class _MLflow:
    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], group: str) -> None:
        library = importlib.import_module("mlflow")
        self.entities = importlib.import_module("mlflow.entities")
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve()}/mlflow.db")
        # A client of its own leaves MLflow's process-wide tracking URI and active run alone.
        self.client = library.MlflowClient(uri)
        self.step = 0
        with suppress(library.MlflowException):  # made before, by this run or another
            self.client.create_experiment(group)
        experiment = self.client.get_experiment_by_name(group).experiment_id
        self.id = self.client.create_run(experiment, run_name=run_id).info.run_id
        params = [self.entities.Param(key, str(value)) for key, value in flat(config).items()]
        for start in range(0, len(params), 100):  # as many as MLflow takes at once
            self.client.log_batch(self.id, params=params[start : start + 100])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.step = step
        now = int(time.time() * 1000)  # milliseconds
        points = [self.entities.Metric(key, value, now, step) for key, value in metrics.items()]
        self.client.log_batch(self.id, metrics=points)

    def finish(self, status: str, metrics: Mapping[str, float]) -> None:
        self.log(metrics, self.step)
        self.client.set_tag(self.id, "status", status)
        self.client.set_terminated(self.id, "FINISHED" if status == "done" else "FAILED")


_TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any], str], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _MLflow,
}
