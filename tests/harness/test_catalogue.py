"""What `losses`, `tasks` and `data` tell, and how quickly they can."""

import re
from pathlib import Path

import pytest

import losses
from harness import catalogue as module
from harness import data
from harness.catalogue import TARGETS, catalogue, show
from harness.cli import main
from harness.compose import options
from tests.harness.spine import modules_after


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_everything_there_is_has_an_entry() -> None:
    found = {group: catalogue(group) for group in ("losses", "tasks", "data")}
    everything = {*losses.names(), *losses.penalty_names(), *losses.projection_names()}
    assert found["losses"].keys() == everything
    assert list(found["data"]) == data.names()
    assert sorted(found["tasks"]) == options("task")
    for group in found.values():
        for name, entry in group.items():
            assert entry["summary"], name
            assert "\n" not in entry["summary"]


@pytest.mark.parametrize("group", ["losses", "tasks", "data"])
def test_a_table_has_a_line_per_entry(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([group]) == 0
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[0] for line in lines if group != "losses" or line.startswith("  ")]
    assert sorted(named) == sorted(catalogue(group))
    assert not re.search(r":\w+:`", "".join(lines))


def test_losses_stand_below_what_they_compare_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["losses"]) == 0
    blocks = capsys.readouterr().out.rstrip().split("\n\n")
    assert [block.partition(":")[0] for block in blocks] == list(TARGETS)
    for block in blocks:
        target = block.partition(":")[0]
        for line in block.splitlines()[1:]:
            assert catalogue("losses")[line.split()[0]]["target"] == target


def test_a_page_has_parameters_defaults_formula_and_source(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in losses.names():
        show("losses", name)
        page = capsys.readouterr().out
        entry = losses.get(name)
        assert page.startswith(f"{name}\n")
        assert entry.source in page
        assert ":math:" not in page
        for parameter in entry.parameters.values():
            assert f"  {parameter}" in page  # name, type and default
    show("losses", "focal")
    page = capsys.readouterr().out
    assert r"(1 - p" in page
    assert "gamma: number >= 0 = 2.0" in page


def test_pages_of_data_and_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    for name in data.names():
        show("data", name)
        page = capsys.readouterr().out
        assert data.get(name).source in page
        assert all(f"  {parameter}" in page for parameter in data.get(name).parameters.values())
    for name in options("task"):
        show("tasks", name)
        assert capsys.readouterr().out.startswith(f"{name}\n")


@pytest.mark.parametrize(
    ("group", "name", "message"),
    [
        ("losses", "focl", "there is no loss 'focl'; did you mean 'focal'?"),
        ("data", "irs", "there is no data set 'irs'; did you mean 'iris'?"),
        (
            "tasks",
            "classification/irs",
            "there is no task 'classification/irs'; did you mean 'classification/iris'?",
        ),
    ],
)
def test_an_unknown_name_gets_the_nearest(
    group: str, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([group, name]) == 2
    assert capsys.readouterr() == ("", f"lossbench: {message}\n")


def test_the_second_listing_needs_no_torch(tmp_path: Path) -> None:
    for group in ("losses", "data", "tasks"):
        first = modules_after([group], tmp_path)
        assert "torch" in first
        assert ("lightning" in first) == (group == "tasks")  # a task's metrics are its own
    for command in (["losses"], ["losses", "focal"], ["data"], ["tasks"]):
        assert not {"torch", "lightning", "sklearn"} & modules_after(command, tmp_path)


def test_a_cache_that_cannot_be_used_is_made_anew(cache: Path) -> None:
    made = catalogue("data")
    (file,) = cache.rglob("*.json")
    file.write_text("{")
    assert catalogue("data") == made
    assert file.read_text() != "{"


def test_a_cache_that_cannot_be_written_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert catalogue("losses")["focal"]


def test_changed_code_or_configs_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, configs = tmp_path / "code", tmp_path / "configs"
    for folder in (code, configs):
        folder.mkdir()
    monkeypatch.setattr(module, "PACKAGES", (code,))
    monkeypatch.setattr(module, "config_dir", lambda: configs)
    seen = {module._cache_path("losses", [])}
    for path in (code / "a.py", configs / "b.yaml", tmp_path / "plugin.py"):
        for text in ("x = 1", "x = 2"):
            path.write_text(text)
            found = module._cache_path("losses", [str(path)] if path.name == "plugin.py" else [])
            assert found not in seen
            seen.add(found)
