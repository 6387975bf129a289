"""Commands as a person types them: what they print, leave behind, import, and end with."""

import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import trainer
from harness.cli import main, parser
from harness.record import Record
from harness.slots import processors
from harness.store import Store
from harness.train import describe
from tests.harness.spine import (
    IRIS,
    ROOT,
    alive,
    modules_after,
    python,
    records,
    start,
    started,
    wait_for,
    write_sweep,
)

HEAVY = {"torch", "lightning", "torchmetrics", "torchvision", "sklearn"}


@pytest.fixture(autouse=True)
def here(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    return tmp_path


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    (group,) = [action for action in parser()._actions if action.dest == "command"]
    assert group.choices is not None
    for command in group.choices:
        assert re.search(rf"^ +{command} +\w", out, re.MULTILINE), command
    for example in re.findall(r"^  lossbench (\w+)", out, re.MULTILINE):
        assert example in group.choices


@pytest.mark.parametrize("command", ["sweep", "claim"])
def test_help_tells_of_clusters_and_of_processes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "launch=slurm or" in out
    assert "processes at once (one on each GPU, or else on each processor)" in out
    (path,) = re.findall(r"harness/cluster/\S+", out) if command == "sweep" else [""]
    assert (ROOT / path).exists()


def test_python_m_is_the_same_command(here: Path) -> None:
    done = python(["-m", "harness", "sweep", "quik"], here)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lossbench: there is no sweep 'quik'; did you mean 'quick'?\n"


def test_train_shows_metrics_and_trains_once(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *IRIS, "loss=focal", "loss.focal.gamma=1", "seed=3"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    ((run, record),) = records(here / "results").items()
    assert record["seed"] == 3
    for name in ("accuracy", "nll", "macro_f1"):
        pair = [record["metrics"][f"{split}/{name}"] for split in ("val", "test")]
        assert re.search(rf"^{name} +{pair[0]:.4g} +{pair[1]:.4g}$", out, re.MULTILINE)
    assert f"results/runs/{run}/record.json" in out
    before = started(here / "results")
    assert main(words) == 0
    assert "nothing trained" in capsys.readouterr().out
    assert started(here / "results") == before
    assert main([*words, "store=a place/with spaces"]) == 0
    assert records(here / "a place/with spaces").keys() == {run}


def test_train_names_the_weights_that_stay(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for keep, names in (("none", []), ("last", ["last"]), ("both", ["last", "best"])):
        assert main(["train", *IRIS, f"trainer.keep={keep}", f"store={keep}"]) == 0
        (run,) = records(here / keep)
        found = re.findall(r"^weights +(.*)$", capsys.readouterr().out, re.MULTILINE)
        assert found == [f"{keep}/runs/{run}/weights-{name}.pt" for name in names]


def test_train_says_on_how_many_devices() -> None:
    for devices, end in (({}, ""), ({"devices": 1}, ""), ({"devices": 2}, " on 2 devices")):
        facts = {"parameters": 7, "steps": 9, "seconds": {"total": 0.5}, "provenance": devices}
        told = describe(Record("a", "done", {}, 0, **facts), Store("results"))  # type: ignore[arg-type]
        assert f"model     7 parameters, 9 steps in 0.5 s{end}\n" in told


def test_a_long_run_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a minute; lines come after each, and later after a tenth of the time."""
    now = itertools.count(0.0, 60.0)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: next(now)))
    assert main(["train", *IRIS, "trainer.epochs=10"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 1/10  step 1/30  1:00  about 29:00 left"
    assert [int(line.split()[3].partition("/")[0]) for line in lines] == [
        *range(1, 11), *range(12, 21, 2), 23, 26, 29
    ]  # fmt: skip


def test_train_ends_with_1_unless_the_run_is_done(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *IRIS, "optimizer.lr=1e30", "optimizer.name=sgd"]
    for _ in range(2):  # what is not done is tried again
        assert main(words) == 1
        assert re.search(r"^error .* is not finite at step \d+$", capsys.readouterr().out, re.M)
    (folder,) = (here / "results" / "runs").iterdir()
    assert (folder / "record.json.earlier-1").exists()
    with Store(here / "other").claim(folder.name):
        assert main([*words, "store=other"]) == 1
    assert "another process is training this run" in capsys.readouterr().out


def test_multirun_lands_in_the_same_store_and_trains_nothing_twice(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = ["task=classification/iris", "trainer.epochs=1"]
    words = ["train", "-m", *task, "loss=cross_entropy,focal", "seed=0,1"]
    assert main(words) == 0
    before = started(here / "results")
    assert len(before) == 4
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "  seed " in line and "accuracy" in line]) == 4
    assert {path.name for path in here.iterdir()} == {"results"}

    assert main(words) == 0
    assert main(["train", *task, "loss=focal", "seed=1"]) == 0
    assert started(here / "results") == before
    capsys.readouterr()
    assert main(["plan", str(write_sweep(here))]) == 0
    assert "4 done, 0 to run" in capsys.readouterr().out
    assert Path.cwd() == here


def test_multirun_checks_every_point_before_the_first(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (["loss=cross_entropy,focl"], "there is no loss 'focl'; did you mean 'focal'?"),
        (["loss=cross_entropy,mse"], "task classification refuses loss mse"),
        (["loss=focal", "loss.focal.gamma=1,-1"], "loss.focal.gamma must be >= 0, got -1"),
        (["loss=focal", "+loss.focal.gama=1,2"], "loss.focal has no parameter 'gama'"),
        (["loss=focal", "seed=interval(1,2)"], "names no finite list of values"),
        (["loss=focal", "seed=0,1", "hydra.no_such=1"], "Could not override 'hydra.no_such'"),
        (["loss=focal", "hydra/launcher=no_such"], "Could not find 'hydra/launcher/no_such'"),
    ):
        assert main(["train", "-m", *IRIS[::2], *words]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(rf"lossbench: [^\n]*{re.escape(message)}[^\n]*\n", err)
        assert list(here.iterdir()) == []


def test_reading_commands_import_nothing_heavy(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_sweep(here))
    assert main(["train", "-m", *IRIS[::2], "loss=cross_entropy,focal", "seed=0,1"]) == 0
    assert main(["report", path]) == 0  # which keeps the plan
    assert main(["losses"]) == 0  # which fills the cache
    for command in (["--help"], ["plan", path], ["report", path], ["sweep", path], ["losses"]):
        assert not HEAVY & modules_after(command, here), command
    assert "4 done, 0 to run" in python(["-m", "harness", "plan", path], here).stdout


def test_a_report_works_without_any_record(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(here, name="näme <b>&", question="Which & <why>?")
    assert main(["report", str(path)]) == 0
    out = capsys.readouterr().out
    report = Path(out.rstrip().rpartition("report  ")[2])
    assert report.is_file()
    assert "Which &amp; &lt;why&gt;?" in report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "a run needs loss=NAME, such as loss=cross_entropy; see lossbench losses"),
        (["train", "loss=focal", "-x"], "train has no option -x; see lossbench train -h"),
        (["train", "loss=focal", "--seed=3"], "train has no option --seed=3"),
        (
            ["train", "loss=focal", "launch.gpus=1"],
            "config has no key 'launch.gpus'; launch= is for the commands sweep and claim",
        ),
        (["losses", "focal", "huber"], "losses takes one name and plugins=[FILE.py]"),
        (["doctor", "--all"], "doctor has no option --all"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"lossbench: {re.escape(message)}[^\n]*\n", err)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["trian"], ["sweep"], ["sweep", "quick", "--jobs", "0"]])
def test_no_command_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "lossbench" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["two", "0", "-1", "1.5", ""])
def test_a_number_of_processes_is_a_whole_one(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sweep", "quick", f"--jobs={number}"])
    assert end.value.code == 2
    said = f"lossbench: --jobs: must be a whole number of 1 or more, got '{number}'\n"
    assert capsys.readouterr().err == said


def test_options_and_overrides_mix_in_any_order(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_sweep(here))
    for words in (
        [path, "--jobs", "3", "seeds=5"],
        [path, "seeds=5", "--jobs", "3"],
        ["--jobs=3", path, "seeds=5"],
    ):
        assert main(["plan", *words]) == 0
        assert "2 arms x 5 seeds = 10 runs; 0 done, 10 to run in 3 proc" in capsys.readouterr().out


def test_a_run_on_more_processors_than_there_are_does_not_start(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trainer.accelerator=cpu", "trainer.devices=5000", "trainer.strategy=ddp"]
    assert main(["train", *IRIS, *words]) == 2
    error = f"lossbench: trainer.devices=5000, but {processors()} processors can be used, one for "
    assert capsys.readouterr().err.startswith(error)
    assert not started(here / "results")


def test_an_error_is_shown_in_full_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSBENCH_DEBUG", "1")
    with pytest.raises(ValueError, match="there is no loss 'focl'"):
        main(["train", "loss=focl"])


def test_a_store_that_cannot_be_written_ends_with_1(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").write_text("")
    path = str(write_sweep(here))
    for words in (
        ["train", *IRIS],
        ["train", "-m", *IRIS],
        ["sweep", path],
        ["plan", path],
        ["report", path],
    ):
        assert main([*words, "store=file"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err == "lossbench: store=file is a file, not a folder\n"


def test_a_reader_that_has_seen_enough_is_no_error(here: Path) -> None:
    main(["losses"])
    command = f"'{sys.executable}' -m harness losses | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


@pytest.mark.slow
def test_several_processes_of_a_run_leave_one_record_like_that_of_one(here: Path) -> None:
    """Batches of 13 leave one process of two an item less, and the last batch has 3."""
    words = ["-m", "harness", "train", *IRIS[:1], "loss=ce_focal", "trainer.epochs=4"]
    words += ["loss.cross_entropy.class_weight=balanced", "trainer.batch_size=13"]
    words += ["trainer.accelerator=cpu"]
    found = []
    for devices in (1, 2):
        done = python([*words, f"trainer.devices={devices}", f"store=d{devices}"], here)
        assert done.returncode == 0, done.stderr
        ((_, record),) = records(here / f"d{devices}").items()
        found.append(record)
    one, two = found
    assert one["id"] == two["id"]
    assert one["steps"] == two["steps"]
    # float32 sums in another order, over 28 steps
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-4)
    for mine, theirs in zip(one["curve"], two["curve"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("multirun", [[], ["-m"]])
def test_ctrl_c_ends_a_run_and_writes_nothing(multirun: list[str], here: Path) -> None:
    words = ["train", *multirun, *IRIS[:2], "trainer.epochs=1000000"]
    process = start(["-m", "harness", *words], here)
    store = here / "results"
    wait_for(lambda: list(store.glob("runs/*/.lock")), "the run to begin")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err == "\nlossbench: stopped; the same command goes on\n"
    assert records(store) == {}
    assert not alive(process.pid)


@pytest.mark.parametrize(
    ("word", "said"),
    [("trian", "did you mean 'train'?"), ("xyzzy", "there are train, sweep, plan")],
)
def test_an_unknown_command_names_the_nearest(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([word])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert f"there is no command '{word}'; " in err
    assert said in err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert not stop.value.code
    assert re.fullmatch(
        r"lossbench (\d+\.\d+\S*|from source, not installed)\n", capsys.readouterr().out
    )
