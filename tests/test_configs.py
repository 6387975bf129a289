"""Every YAML file composes, plans and builds; every task takes a batch with every loss it fits."""

from pathlib import Path
from typing import Any

import pytest

import losses
from harness import data, models
from harness.build import build_plan
from harness.compose import compose
from harness.config import check
from harness.doctor import fitting, own_tasks, some_task, together
from harness.paths import config_dir
from harness.prepare import prepare, probe
from harness.store import Store
from harness.sweep import Request

GROUPS = ("task", "data", "model", "loss", "sweep")
SWEEPS = sorted((config_dir() / "sweep").rglob("*.yaml"))


def files(group: str) -> list[str]:
    """Names of the YAML files of a group."""
    folder = config_dir() / group
    found = sorted(folder.rglob("*.yaml"))
    return [path.relative_to(folder).with_suffix("").as_posix() for path in found]


def table(folder: Path, kind: str) -> list[str]:
    """Overrides for a CSV file of one's own, which is written here."""
    path = folder / "table.csv"
    rows = [f"{i},{i % 7},{i % (60 if kind == 'regression' else 3)}" for i in range(60)]
    path.write_text("\n".join(["a,b,wanted", *rows]))
    return [f"data.path={path}", "data.target=wanted", f"data.kind={kind}"]


def test_every_file_lies_in_a_group() -> None:
    lying = {path.relative_to(config_dir()).parts[0] for path in config_dir().rglob("*.yaml")}
    assert lying <= set(GROUPS)


@pytest.mark.parametrize("name", files("task"))
def test_every_task_composes_and_takes_a_batch(name: str, tmp_path: Path) -> None:
    kind = "regression" if name.startswith("regression/") else "multiclass"
    own = table(tmp_path, kind) if name.endswith("/csv") else []
    usual = "mse" if kind == "regression" else "cross_entropy"
    fits = [usual] if own else fitting(name)
    loss = next((each for each in (usual, "bce", "mse") if each in fits), fits[0])
    config = compose([f"task={name}", f"loss={loss}" if own else together(name, loss), *own])
    assert config.task["name"] == name.partition("/")[0]
    assert probe(config).steps > 0


@pytest.mark.parametrize(
    ("group", "name"), [(g, name) for g in ("data", "model", "loss") for name in files(g)]
)
def test_every_other_file_serves_a_task(group: str, name: str) -> None:
    config = some_task(group, name)
    assert probe(config).gradient != 0


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_plans(path: Path, tmp_path: Path) -> None:
    plan = build_plan(Request(path, (), Store(tmp_path)))
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
    used = {compose([f"task={task}", "loss=mse"]).data["name"] for task in own_tasks()}
    assert used | {"csv"} == set(data.names())
