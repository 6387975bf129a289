"""Every YAML file composes, plans and builds; every task takes a batch with every loss it fits."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import losses
from harness import build, data, models
from harness.build import build_plan
from harness.compose import compose
from harness.config import check
from harness.doctor import fitting, own_tasks, some_task, together
from harness.doctor import needs_files as needs_files_of_data
from harness.paths import config_dir
from harness.prepare import prepare, probe
from harness.store import Store
from harness.sweep import Request
from harness.sweepfile import read
from tests.harness import tiny

GROUPS = ("task", "data", "model", "loss", "sweep", "claim")
SWEEPS = sorted((config_dir() / "sweep").rglob("*.yaml"))


def files(group: str) -> list[str]:
    """Names of the YAML files of a group."""
    folder = config_dir() / group
    found = sorted(folder.rglob("*.yaml"))
    return [path.relative_to(folder).with_suffix("").as_posix() for path in found]


SMALL = {
    "segmentation": ("data.size=[32,32]",),
    "detection": ("data.size=[64,64]",),
    "classification": ("data.size=[32,32]",),
    "embedding": ("data.size=[32,32]", "task.per_class=2", "trainer.batch_size=4"),
}


@pytest.fixture(autouse=True)
def _tiny_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny.trust(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def overrides(given: dict[str, Any]) -> list[str]:
    return [f"data.{key}={value}" for key, value in given.items()]


def needs_files(task: str) -> bool:
    return task not in own_tasks()


def test_every_file_lies_in_a_group() -> None:
    lying = {path.relative_to(config_dir()).parts[0] for path in config_dir().rglob("*.yaml")}
    assert lying <= set(GROUPS)


@pytest.mark.parametrize("name", files("task"))
def test_every_task_composes_and_takes_a_batch(name: str, tmp_path: Path) -> None:
    chosen = from_files(name, tmp_path) if needs_files(name) else [usual(name)]
    config = compose([f"task={name}", *chosen])
    assert config.task["name"] == name.partition("/")[0]
    assert probe(config).steps > 0


def usual(task: str) -> str:
    """A loss that a task takes, cross-entropy or squared error where it does."""
    fits = fitting(task)
    return together(task, next((n for n in ("cross_entropy", "bce", "mse") if n in fits), fits[0]))


def from_files(task: str, folder: Path) -> list[str]:
    """A loss, and small pictures from files that are written here."""
    name = task_data(task)
    found = overrides(tiny.write(name, folder))
    if name == "csv":
        numbers = task.startswith("regression/")
        return [*found, f"data.kind={'regression' if numbers else 'multiclass'}",
                f"loss={'mse' if numbers else 'cross_entropy'}"]  # fmt: skip
    group = task.partition("/")[0]
    if group == "detection":
        loss = "loss=[binary_focal,giou]" if name == "coco_json" else "loss=fcos"
    elif group == "embedding":
        loss = "loss=triplet"
    else:
        masks = task in ("segmentation/pets", "segmentation/image_masks")
        loss = f"loss={'bce' if masks else 'cross_entropy'}"
    return [loss, "trainer.batch_size=6", *SMALL[group], *found]


def task_data(task: str) -> str:
    """The data set that a task's file names."""
    text = (config_dir() / "task" / f"{task}.yaml").read_text()
    return re.findall(r"/data: (\w+)", text)[0]


@pytest.mark.parametrize(
    ("group", "name"), [(g, name) for g in ("data", "model", "loss") for name in files(g)]
)
def test_every_other_file_serves_a_task(group: str, name: str) -> None:
    config = some_task(group, name)
    size = min(config.trainer.batch_size, 16)  # some of these models are large
    trainer = dataclasses.replace(config.trainer, batch_size=size)
    assert probe(dataclasses.replace(config, trainer=trainer)).gradient != 0


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_plans(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of data in files on a few tiny pictures in their true format, and are not rehearsed."""
    given: list[str] = []
    if needs_files_of_data(path):
        monkeypatch.setattr(build, "rehearse", lambda _config: (1.0, 0.1))
        task = str(read(path, ()).task)
        tiny.write(task_data(task), tmp_path / "data")
        group = task.partition("/")[0]
        given = [*SMALL[group], f"data.root={tmp_path / 'data'}", "trainer.batch_size=3"]
        given += ["trainer.epochs=1", "trainer.precision=32-true", "trainer.workers=0"]
    plan = build_plan(Request(path, tuple(given), Store(tmp_path)))
    assert plan.baseline in plan.arms
    assert len(list(plan.runs())) == len({run.id for run in plan.runs()})
    for cell in plan.cells:
        assert cell.steps > 0
        assert cell.gradient is not None  # finite at the first batch
    assert plan.question, "a shipped sweep says what it asks"


def saved_model(plain: dict[str, Any], folder: Path) -> Path:
    """Weights of the config's own model, from another seed."""
    path = folder / "teacher.pt"
    models.save(prepare(check({**plain, "seed": 1})).task.model, path)
    return path


@pytest.mark.parametrize("task", own_tasks())
def test_every_fitting_loss_takes_a_batch(task: str, tmp_path: Path) -> None:
    """The gradient is finite, and not 0 but where a loss declares or can reach a flat place."""
    names = fitting(task)
    assert names
    plain = compose([f"task={task}", together(task, names[0])]).plain()
    for name in names:
        entry = losses.get(name)
        if any(parameter.required for parameter in entry.parameters.values()):
            continue
        config = {**plain, "loss": compose([f"task={task}", together(task, name)]).loss}
        if entry.target == "real" and entry.within:  # counts and logarithms need targets as is
            config["data"] = {**plain["data"], "standardise": False}
        if "teacher" in entry.inputs:
            config["teacher"] = {**plain["model"], "pretrained": str(saved_model(plain, tmp_path))}
        tried = probe(check(config))
        assert tried.gradient is not None, name
        assert tried.gradient > 0 or name == "binary_perceptron", name  # it starts all right


def test_every_data_set_has_a_task() -> None:
    composed = {compose([f"task={task}", "loss=mse"]).data["name"] for task in own_tasks()}
    named = {task_data(task) for task in files("task") if needs_files(task)}
    assert composed | named == set(data.names())
    assert all(data.get(name).needs for name in named)
    assert not any(data.get(name).needs for name in composed)
