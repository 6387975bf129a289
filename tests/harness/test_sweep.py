"""Plans: how arms expand, what makes a plan stale, and what is refused before anything trains."""

import dataclasses
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from harness import sweep as sweeps
from harness.cli import main
from harness.config import run_id
from harness.plan import Plan
from harness.sweep import Request, request, slug
from harness.sweepfile import SweepFile, read
from tests.harness.spine import iris, modules_after, write_sweep


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(path: Path, *overrides: str) -> Plan:
    return sweeps.plan(request(str(path), overrides))


def kept(path: Path, *overrides: str) -> Request:
    """A request whose plan has been made and saved."""
    wanted = request(str(path), overrides)
    sweeps.save(wanted, sweeps.plan(wanted))
    return wanted


# Arms


def test_arms_expand_by_the_product_of_their_values(here: Path) -> None:
    arms = {
        "ce": ["loss=cross_entropy"],
        "f": ["loss=focal", "loss.focal.gamma=1,2", "optimizer.lr=choice(0.1,0.2)"],
        "one": ["loss=focal", "loss.focal.gamma=3"],
    }
    plan = planned(write_sweep(here, arms=arms))
    swept = [f"f:gamma={gamma},lr={lr}" for gamma in (1, 2) for lr in (0.1, 0.2)]
    assert plan.arms == ["ce", *swept, "one"]
    assert [cell.arm for cell in plan.cells] == plan.arms
    configs = {cell.arm: cell.config for cell in plan.cells}
    assert configs["f:gamma=2,lr=0.1"]["loss"]["focal"]["gamma"] == 2.0
    assert configs["f:gamma=2,lr=0.1"]["optimizer"]["lr"] == 0.1
    assert plan.differences["one"]["objective"] == "focal(gamma=3.0)"
    assert plan.differences["f:gamma=1,lr=0.2"]["optimizer.lr"] == 0.2


def test_runs_are_interleaved_over_arms_and_tasks(here: Path) -> None:
    tasks = {"iris": ["task=classification/iris"], "wine": ["task=classification/wine"]}
    plan = planned(write_sweep(here, task=None, tasks=tasks, seeds=[4, 2]))
    order = [(run.seed, run.task, run.arm) for run in plan.runs()]
    cells = [(task, arm) for task in tasks for arm in ("ce", "focal")]
    assert order == [(seed, *cell) for seed in (4, 2) for cell in cells]
    assert len({run.id for run in plan.runs()}) == len(order)


def test_overrides_go_from_task_to_file_to_arm_to_command_line(here: Path) -> None:
    path = write_sweep(
        here,
        task=None,
        tasks={"iris": ["task=classification/iris", "trainer.batch_size=11", "seeds=1"][:2]},
        overrides=["trainer.epochs=1", "optimizer.lr=0.5"],
        arms={"ce": ["loss=cross_entropy", "optimizer.lr=0.25", "trainer.evaluations=3"]},
    )
    (cell,) = planned(path, "trainer.evaluations=4").cells
    assert cell.config["trainer"]["batch_size"] == 11
    assert cell.config["optimizer"]["lr"] == 0.25
    assert cell.config["trainer"]["evaluations"] == 4


def test_a_run_has_one_id_wherever_it_is_asked_for(here: Path) -> None:
    """So that two sweeps, and `train`, share what is trained."""
    first = planned(write_sweep(here, "first", seeds=[0, 7]))
    second = planned(
        write_sweep(here, "second", seeds=[7], question="Again?"), "optimizer.momentum=0"
    )
    ids = {cell.arm: cell.runs for cell in first.cells}
    assert {cell.arm: cell.runs[7] for cell in second.cells} == {a: r[7] for a, r in ids.items()}
    assert ids["focal"][7] == run_id(iris("loss=focal"), 7)


def test_options_on_the_command_line_replace_those_of_the_file(here: Path) -> None:
    path = write_sweep(here)
    plan = planned(path, "seeds=[3,5]", "baseline=focal", "metric=val/nll", "margin=0.01")
    assert (plan.seeds, plan.baseline, plan.metric, plan.margin) == (
        [3, 5],
        "focal",
        "val/nll",
        0.01,
    )
    assert plan.directions["val/nll"] == "lower"


HOSTILE = {
    "ümläut ☃ 学习": ["loss=cross_entropy"],
    "<script>alert('x')</script> & \"quotes\"": ["loss=focal"],
    "../../up/and/away": ["loss=focal", "loss.focal.gamma=1"],
    "a,b;c=d\\ $HOME `id` %s {0} \\textbf{x} |": ["loss=focal", "loss.focal.gamma=4"],
    "x" * 300: ["loss=focal", "loss.focal.gamma=3"],
    "-rf": ["loss=focal", "loss.focal.gamma=5"],
}


def test_names_of_arms_may_be_any_printable_text(here: Path) -> None:
    path = write_sweep(here, "näme with spaces", arms=HOSTILE, baseline="-rf", seeds=1)
    wanted = kept(path)
    assert sweeps.plan(wanted).arms == list(HOSTILE)
    assert {file.name for file in here.iterdir()} == {path.name, "results"}
    assert main(["plan", str(path)]) == 0


def test_yaml_anchors_are_followed(here: Path) -> None:
    path = here / "anchors.yaml"
    path.write_text(
        "task: classification/iris\nmetric: test/accuracy\nbaseline: ce\nseeds: 1\n"
        "overrides: &short [trainer.epochs=1]\n"
        "arms:\n  ce: &ce [loss=cross_entropy]\n  focal: [loss=focal]\n"
        "question: 'What about ${this}, & that?'\n"
    )
    plan = planned(path)
    assert plan.arms == ["ce", "focal"]
    assert plan.question == "What about ${this}, & that?"


def test_interpolations_reach_the_arms(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = here / "my data"
    table.mkdir()
    rows = "\n".join(f"{i},{i % 5},{'abc'[i % 3]}" for i in range(60))
    (table / "t.csv").write_text(f"x,y,kind\n{rows}\n")
    monkeypatch.setenv("DATA", str(table))
    path = write_sweep(
        here,
        task=None,
        tasks={"own": ["task=classification/csv", "data.target=kind", "data.kind=multiclass"]},
        overrides=["trainer.epochs=1", "trainer.evaluations=${trainer.epochs}"],
    )
    words = ("data.path=${oc.env:DATA}/t.csv", "trainer.batch_size='${oc.decode:${oc.env:BATCH}}'")
    monkeypatch.setenv("BATCH", "16")
    plan = sweeps.plan(kept(path, *words))
    trainer = plan.cells[0].config["trainer"]
    assert (trainer["batch_size"], trainer["evaluations"]) == (16, 1)
    assert plan.watched.keys() == {str(table / "t.csv")}
    monkeypatch.setenv("BATCH", "8")
    assert planned(path, *words).cells[0].config["trainer"]["batch_size"] == 8


# Names of folders and commands


def test_slugs_are_names_of_folders(here: Path) -> None:
    assert slug("quick", []) == "quick"
    names = ["a/b", "..", "x" * 300, "学" * 80, "a b", "a_b", "", "q@seeds=3", "𝒳" * 80]
    texts: list[list[str]] = [[], ["seeds=3"], ["seeds=3", "a=1"], ["p=/x/y z"], ["x" * 5000]]
    made = {}
    for name in names:
        for overrides in texts:
            folder = slug(name, overrides)
            made[folder] = (name, overrides)
            inner = here / "sweeps" / folder
            inner.mkdir(parents=True)  # each is new, and possible
            assert inner.resolve().parent == here / "sweeps"
    assert len(made) == len(names) * len(texts)
    assert slug("q", ["b=1", "a=1"]) == slug("q", ["a=1", "b=1"])


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seeds=[3,5]", "optimizer.lr=0.5"],
        ["store=a store/with 'quotes' and spaces"],
        ["loss.focal.weight={schedule: linear, end: 2}", "store=/an/absolute/place"],
    ],
)
def test_the_command_of_a_plan_asks_for_it_again(here: Path, overrides: list[str]) -> None:
    path = write_sweep(here, "my sweep", arms={"focal": ["loss=focal"]}, baseline="focal")
    wanted = request(str(path), overrides)
    words = shlex.split(sweeps.plan(wanted).command)
    assert words[:2] == ["lossbench", "sweep"]
    again = request(words[2], words[3:])
    assert (again.name, again.path, again.store.folder) == (
        wanted.name,
        wanted.path,
        wanted.store.folder,
    )
    assert again.digest() == wanted.digest()


def test_a_store_may_be_quoted_as_hydra_wants_it() -> None:
    for text in ("store=a place", "store='a place'", 'store="a place"'):
        assert request("quick", [text]).store.folder == Path("a place")


# Saved plans


def test_a_saved_plan_is_read_without_torch(here: Path) -> None:
    path = write_sweep(here, seeds=[0, 3])
    wanted = kept(path)
    fresh = dataclasses.replace(wanted, store=sweeps.Store(here / "other"))
    made, read = sweeps.plan(fresh), sweeps.plan(wanted)
    for cells in (made.cells, read.cells):  # measured times differ
        cells[:] = [dataclasses.replace(cell, seconds=0.0) for cell in cells]
    store = f" store={here / 'other'}"
    assert dataclasses.replace(made, command=made.command.removesuffix(store)) == read
    heavy = {"torch", "lightning", "hydra", "sklearn"}
    assert not heavy & modules_after(["plan", str(path)], here)


def test_whatever_a_plan_is_made_from_makes_it_stale(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sweep(here)
    code, configs = here / "code", here / "configs"
    for folder in (code, configs):
        folder.mkdir()
    (code / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(sweeps, "PACKAGES", (code,))
    monkeypatch.setattr(sweeps, "config_dir", lambda: configs)
    seen = {request(str(path), []).digest()}

    def assert_stale(*overrides: str) -> None:
        digest = request(str(path), overrides).digest()
        assert digest not in seen
        assert digest == request(str(path), overrides).digest()
        seen.add(digest)

    assert_stale("seeds=3")
    path.write_text(path.read_text() + "margin: 0.1\n")
    assert_stale()
    (code / "a.py").write_text("x = 2\n")
    assert_stale()
    (code / "inner").mkdir()
    (code / "inner" / "b.py").write_text("")
    assert_stale()
    (configs / "c.yaml").write_text("a: 1\n")
    assert_stale()


def test_a_changed_table_makes_a_plan_stale(here: Path) -> None:
    table = here / "t.csv"
    rows = [f"{i},{i % 3}" for i in range(30)]
    table.write_text("\n".join(["x,kind", *rows]))
    tasks = {
        "own": [
            "task=classification/csv",
            "data.path=t.csv",
            "data.target=kind",
            "data.kind=multiclass",
        ]
    }
    path = write_sweep(here, task=None, tasks=tasks)
    wanted = kept(path)
    before = sweeps.plan(wanted)
    assert sweeps.plan(wanted) == before
    table.write_text("\n".join(["x,kind", *rows, "7,1"]))
    after = sweeps.plan(wanted)
    ids = [{run.id for run in plan.runs()} for plan in (before, after)]
    assert not ids[0] & ids[1]


def test_a_saved_plan_that_cannot_be_read_is_made_anew(here: Path) -> None:
    wanted = kept(write_sweep(here))
    before = [run.id for run in sweeps.plan(wanted).runs()]
    saved = wanted.folder / "plan.json"
    whole = json.loads(saved.read_text())
    for content in ("", "{", "[]", "null", json.dumps(whole | {"plan": {}})):
        saved.write_text(content)
        assert [run.id for run in sweeps.plan(wanted).runs()] == before


def test_two_files_of_one_name_do_not_share_a_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a").mkdir()
    (here / "b").mkdir()
    first, second = write_sweep(here / "a"), write_sweep(here / "b", seeds=3)
    kept(first)
    saved = (here / "results/sweeps/small/plan.json").read_text()
    assert main(["sweep", str(second)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(first) in told
    assert "store=PATH" in told
    assert (here / "results/sweeps/small/plan.json").read_text() == saved
    assert not (here / "results/runs").exists()
    first.rename(here / "moved.yaml")  # a file that is gone owns nothing
    kept(second)


# What is refused


def assert_refused(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """Exit code 2, one line on stderr with these words, and nothing written."""
    before = set(here.iterdir())
    assert main(["sweep", *words]) == 2
    out, told = capsys.readouterr()
    assert re.fullmatch(rf"lossbench: [^\n]*{re.escape(message)}[^\n]*\n", told), told
    assert out == ""
    assert set(here.iterdir()) == before


FILES: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"sedes": 3}, "sweep small has no parameter 'sedes'; did you mean 'seeds'?"),
    "no metric": ({"metric": None}, "sweep small needs metric: text"),
    "no arms": ({"arms": {}}, "sweep small has no arms"),
    "a list of arms": ({"arms": [["loss=focal"]]}, "sweep small.arms must be a mapping"),
    "an arm of text": (
        {"arms": {"ce": "loss=focal"}},
        "sweep small.arms.ce must be a list of overrides, got 'loss=focal'",
    ),
    "an arm of mappings": (
        {"arms": {"ce": [{"loss": "focal"}]}},
        "sweep small.arms.ce must be a list of overrides",
    ),
    "an arm that YAML takes for a truth": (
        {"arms": {True: ["loss=focal"]}},
        "sweep small.arms: a name must be printable text, got True",
    ),
    "an arm that YAML takes for a number": (
        {"arms": {0.5: ["loss=focal"], "ce": ["loss=cross_entropy"]}},
        "a name must be printable text, got 0.5",
    ),
    "an arm of two lines": (
        {"arms": {"a\nb": ["loss=focal"]}},
        r"a name must be printable text, got 'a\nb'",
    ),
    "a terminal's commands": (
        {"arms": {"\x1b[2J": ["loss=focal"]}},
        r"a name must be printable text, got '\x1b[2J'",
    ),
    "an arm without a name": ({"arms": {"": ["loss=focal"]}}, "printable text, got ''"),
    "no task": ({"task": None}, "sweep small needs either task or tasks"),
    "task and tasks": ({"tasks": {"a": []}}, "sweep small needs either task or tasks"),
    "an unknown task": (
        {"task": "classification/irs"},
        "arm ce: there is no task 'classification/irs'; did you mean 'classification/iris'?",
    ),
    "no seeds": ({"seeds": 0}, "sweep small.seeds must be whole number >= 1 and <= 10000 or a"),
    "an empty list of seeds": ({"seeds": []}, "seeds must be at least one, each once, got []"),
    "a seed twice": ({"seeds": [1, 1]}, "seeds must be at least one, each once, got [1, 1]"),
    "a negative seed": ({"seeds": [-1]}, "sweep small.seeds must be whole number"),
    "seeds in words": ({"seeds": "many"}, "sweep small.seeds must be whole number"),
    "no margin": ({"margin": 0}, "sweep small.margin must be number > 0 or null, got 0"),
    "a baseline that is no arm": (
        {"baseline": "cee"},
        "sweep small: baseline 'cee' is no arm; did you mean 'ce'?",
    ),
    "a metric without a split": (
        {"metric": "accuracy"},
        "task classification/iris has no metric 'accuracy'; did you mean",
    ),
    "a metric of another task": (
        {"metric": "test/rmse"},
        "task classification/iris has no metric 'test/rmse'",
    ),
    "an unknown loss": (
        {"arms": {"ce": ["loss=focl"]}},
        "sweep small, arm ce: there is no loss 'focl'; did you mean 'focal'?",
    ),
    "a loss of another task": (
        {"arms": {"ce": ["loss=mse"]}},
        "sweep small, arm ce: task classification refuses loss mse",
    ),
    "a loss that another one is like": (
        {"arms": {"ce": ["loss=hinge"]}},
        "targets, and the data is multiclass; multiclass_hinge fits",
    ),
    "an unknown parameter": (
        {"arms": {"ce": ["loss=focal", "loss.focal.gama=1"]}},
        "config has no key 'loss.focal.gama'; did you mean 'loss.focal.gamma'?",
    ),
    "a key nobody reads": (
        {"arms": {"ce": ["loss=focal", "+loss.focal.gama=1"]}},
        "sweep small, arm ce: loss.focal has no parameter 'gama'; did you mean 'gamma'?",
    ),
    "a key of Hydra's": (
        {"overrides": ["hydra.run.dir=x"]},
        "sweep small: 'hydra.run.dir=x' cannot stand in a sweep file",
    ),
    "a wrong type": (
        {"overrides": ["optimizer.lr=fast"]},
        "sweep small, arm ce: optimizer.lr must be number > 0, got 'fast'",
    ),
    "a value out of range": (
        {"overrides": ["data.label_noise=2"]},
        "sweep small, arm ce: data iris.label_noise must be >= 0 and <= 1, got 2",
    ),
    "more items than there are": (
        {"overrides": ["data.train_size=1000"]},
        "iris: train_size=1000, but the training part has 90 items",
    ),
    "weights for other classes": (
        {"arms": {"ce": ["loss=focal", "loss.focal.class_weight=[1,2]"]}},
        "arm ce on classification/iris: focal.class_weight needs one number per class, 3 of them",
    ),
    "a model for other inputs": (
        {"overrides": ["model=cnn"]},
        "arm ce on classification/iris: cnn with 2 convolutions needs inputs [C, H, W]",
    ),
    "an accelerator that is not there": (
        {"overrides": ["trainer.accelerator=abacus"]},
        "arm ce on classification/iris: trainer: You selected an invalid accelerator name",
    ),
    "two arms that are the same": (
        {"arms": {"ce": ["loss=focal"], "f": ["loss=focal", "loss.focal.gamma=2"]}},
        "sweep small: arms 'ce' and 'f' are the same config",
    ),
    "two arms whose devices alone differ": (
        {"arms": {"ce": ["loss=focal"], "f": ["loss=focal", "trainer.workers=2"]}},
        "'ce' and 'f' are the same config; trainer.workers decide nothing that is compared",
    ),
    "a value twice": (
        {"arms": {"ce": ["loss=focal", "loss.focal.gamma=1,1"]}, "baseline": "ce:gamma=1"},
        "sweep small: there are two arms 'ce:gamma=1'",
    ),
    "an arm by the name of an expanded one": (
        {"arms": {"ce": ["loss=focal", "loss.focal.gamma=1,2"], "ce:gamma=2": ["loss=focal"]}},
        "sweep small: there are two arms 'ce:gamma=2'",
    ),
    "a list without an end": (
        {"arms": {"ce": ["loss=focal", "loss.focal.gamma=interval(1,2)"]}},
        "'loss.focal.gamma=interval(1,2)' names no finite list of values",
    ),
    "values for all arms": (
        {"overrides": ["optimizer.lr=0.1,0.2"]},
        "'optimizer.lr=0.1,0.2' names several values",
    ),
    "a seed in an arm": (
        {"arms": {"ce": ["loss=focal", "seed=3"]}},
        "sweep small: 'seed=3' cannot stand in a sweep file",
    ),
    "a store in the file": ({"overrides": ["store=x"]}, "'store=x' cannot stand in a sweep file"),
    "trackers in the file": ({"overrides": ["+trackers=[wandb]"]}, "cannot stand in a sweep file"),
    "no override": ({"overrides": ["trainer.epochs"]}, "cannot read 'trainer.epochs' as key"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_is_refused_before_anything_is_written(
    case: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, message = FILES[case]
    assert_refused(here, capsys, [str(write_sweep(here, **changes))], message)


@pytest.mark.parametrize("command", ["plan", "report", "sweep"])
def test_every_command_refuses_a_wrong_file(
    command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(here, arms={"ce": ["loss=focl"]})
    assert main([command, str(path)]) == 2
    assert capsys.readouterr() == (
        "",
        "lossbench: sweep small, arm ce: there is no loss 'focl'; did you mean 'focal'?\n",
    )
    assert list(here.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML"),
        ("a: 1\na: 2\n", "found duplicate key a"),
        ("- a\n- b\n", "sweep bad must be a mapping, got list"),
        ("", "sweep bad needs metric"),
        ("just words", "sweep bad has no parameter 'just words'"),
        (b"\xff\xfe\xff", "is no YAML"),
        ("question: '${'\n", "is no YAML"),
    ],
)
def test_what_is_no_sweep_file_is_refused(
    text: str | bytes, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_refused(here, capsys, [str(path)], message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quik"], "there is no sweep 'quik'; did you mean 'quick'?"),
        (["no.yaml"], "there is no file no.yaml"),
        (["small.yaml", "sed=3"], "sweep small, arm ce: config has no key 'sed'"),
        (["small.yaml", "seed=3"], "sweep small: 'seed=3' is not for a sweep, which takes seeds=N"),
        (["small.yaml", "++store=x"], "sweep small: '++store=x' is not for a sweep"),
        (["small.yaml", "hydra.run.dir=x"], "sweep small: 'hydra.run.dir=x' is not for a sweep"),
        (["small.yaml", "seeds=["], "cannot read 'seeds=['"),
        (["small.yaml", "seeds=1,2"], "sweep small.seeds must be whole number"),
        (["small.yaml", "seeds="], "sweep small.seeds must be whole number"),
        (["small.yaml", "margin=-1"], "sweep small.margin must be number > 0"),
        (["small.yaml", "metric=test/f1"], "has no metric 'test/f1'; did you mean"),
        (["small.yaml", "metric=${x}"], "cannot read 'metric=${x}'"),
        (["small.yaml", "baseline=x"], "baseline 'x' is no arm; there are ce, focal"),
        (["small.yaml", "optimizer.lr=1,2"], "names several values"),
        (["small.yaml", "plugins=no.py"], "plugins: there is no file no.py"),
        (["small.yaml", "--jobz=2"], "has no option --jobz=2"),
    ],
)
def test_wrong_words_after_a_sweep_are_refused(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(here)
    assert_refused(here, capsys, words, message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "nobody"], "--only nobody matches no arm of ce, focal"),
        (["trackers=[wandbb]"], "trackers: there is no tracker 'wandbb'; did you mean 'wandb'?"),
    ],
)
def test_wrong_options_of_a_sweep_are_refused(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(here)
    assert main(["sweep", str(path), *words]) == 2
    assert capsys.readouterr().err == f"lossbench: {message}\n"
    assert set(here.iterdir()) == {path}


def test_a_sweep_file_cannot_name_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plug-in runs with the user's rights; a file that somebody sent must not ask for one."""
    evil = here / "evil.py"
    evil.write_text(f"open({str(here / 'ran')!r}, 'w')\n")
    for changes in (
        {"overrides": [f"plugins=[{evil}]"]},
        {"arms": {"ce": ["loss=cross_entropy", f"+plugins=[{evil}]"]}},
        {"arms": {"ce": ["loss=cross_entropy", f"plugins=[{evil}],[x.py]"]}, "baseline": "ce"},
        {"task": None, "tasks": {"a": ["task=classification/iris", f"plugins={evil}"]}},
        {"plugins": [str(evil)]},
    ):
        assert main(["plan", str(write_sweep(here, **changes))]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (here / "ran").exists()


def test_a_plan_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(here, question="Which?")
    before = dict(os.environ)
    assert main(["plan", str(path)]) == 0
    out = capsys.readouterr().out
    assert "2 arms x 2 seeds = 4 runs; 0 done, 4 to run" in out
    assert "Which?" in out
    assert list(here.iterdir()) == [path]
    assert dict(os.environ) == before


def test_every_key_of_a_sweep_file_is_described() -> None:
    text = SweepFile.__doc__ or ""
    for field in dataclasses.fields(SweepFile):
        assert re.search(rf"^ *{field.name}: ", text, re.MULTILINE), field.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x]\nb: *a\n", "the alias *a cannot stand"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ('task: "\\e[31m"\n', "needs metric"),
        (
            'task: x\nmetric: "\\e[31mtest"\nbaseline: a\narms: {a: [loss=mse]}\n',
            "must be printable text",
        ),
    ],
)
def test_a_strangers_file_cannot_exhaust_or_steer(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "strange.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        read(path, [])
