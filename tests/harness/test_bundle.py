"""Archives of sweeps: written, read back with distrust, and repeated."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import signal
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from scipy.stats import median_abs_deviation

from harness import config as configs
from harness import data
from harness.bundles import agreement, contents, pack
from harness.bundles.agreement import ABSOLUTE, NORMAL, RELATIVE, SPREADS, Noise, Pair
from harness.bundles.contents import FILES, Bundle, Manifest
from harness.bundles.received import Received, changes, given_by, made_here
from harness.bundles.reproduce import NOT_REPRODUCED, sampled
from harness.cli import main
from harness.compare import compare
from harness.nested import flat
from harness.plan import Plan
from harness.record import Record
from harness.report import to_html
from harness.sweep import request
from tests.harness.builders import make_plan, make_records
from tests.harness.spine import (
    ROOT,
    iris,
    python,
    records,
    start,
    started,
    wait_for,
    write_sweep,
)

Members = dict[str, bytes]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two arms and two seeds, its store, and its archive `small.zip`."""
    folder = tmp_path_factory.mktemp("swept")
    write_sweep(folder, overrides=["trainer.epochs=4"])
    with contextlib.chdir(folder):
        assert main(["sweep", "small.yaml", "--jobs", "1"]) == 0
        assert main(["bundle", "small.yaml"]) == 0
    return folder


POWER = '''
from torch import Tensor
from losses import loss

@loss("power", target="real", source="a test")
def power(prediction: Tensor, target: Tensor, *, exponent: float = 1.5) -> Tensor:
    """Absolute error to a power.

    Args:
        prediction: float [...].
        target: float [...].
        exponent: 2 is the squared error.
    """
    return (prediction - target).abs() ** exponent
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep on a CSV and with a loss of one's own, and its archive `own.zip`."""
    folder = tmp_path_factory.mktemp("own")
    rows = "".join(f"{i},{i % 7},{i * 0.5 + i % 7}\n" for i in range(60))
    (folder / "houses.csv").write_text(f"rooms,age,price\n{rows}")
    (folder / "power.py").write_text(POWER)
    arms = {"mse": ["loss=mse"], "power": ["loss=power"]}
    table = ["trainer.epochs=1", "data.target=price", f"data.path={folder / 'houses.csv'}"]
    task, metric = "regression/csv", "test/rmse"
    write_sweep(folder, "own", task=task, metric=metric, baseline="mse", overrides=table, arms=arms)
    code = (
        "from harness.cli import main\n"
        "words = ['own.yaml', 'plugins=[power.py]']\n"
        "raise SystemExit(main(['sweep', *words, '--jobs=1']) or main(['bundle', *words]))"
    )
    done = python(["-c", code], folder)
    assert done.returncode == 0, done.stderr
    return folder


def unzipped(path: Path) -> Members:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(members: Mapping[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return written.getvalue()


def fixed(members: Mapping[str, bytes], **manifest: Any) -> bytes:
    """The archive with a manifest that says of every member what it is, and what else is given."""
    rest = {name: text for name, text in members.items() if name != "manifest.json"}
    sums = {name: hashlib.sha256(text).hexdigest() for name, text in rest.items()}
    said = json.loads(members["manifest.json"]) | {"members": sums} | manifest
    return zipped({**rest, "manifest.json": json.dumps(said).encode()})


def edited(members: Mapping[str, bytes], change: Callable[[str, Any], Any]) -> Members:
    """All JSON but the manifest as `change(name, content)` leaves it."""
    found = dict(members)
    for name, text in members.items():
        if name == "plan.json" or name.startswith("records/"):
            content = json.loads(text)
            change(name, content)
            found[name] = json.dumps(content).encode()
    return found


def of_focal(name: str, content: Any) -> list[dict[str, Any]]:
    """The configs of the arm `focal` in a plan or in a record."""
    if name == "plan.json":
        return [cell["config"] for cell in content["cells"] if cell["arm"] == "focal"]
    return [content["config"]] if "focal" in content["config"]["loss"] else []


# What is in an archive


def test_an_archive_holds_what_a_reader_needs_and_nothing_else(swept: Path) -> None:
    members = unzipped(swept / "small.zip")
    manifest = json.loads(members["manifest.json"])
    rest = {name: text for name, text in members.items() if name != "manifest.json"}
    assert manifest["members"] == {n: hashlib.sha256(t).hexdigest() for n, t in rest.items()}
    kept = {n.partition("/")[2][:-5]: json.loads(t) for n, t in rest.items() if "records/" in n}
    assert kept == records(swept / "results")
    written = {path.name for path in (swept / "results" / "sweeps" / "small").iterdir()}
    reports = {n.partition("/")[2] for n in rest if n.startswith("reports/")}
    assert reports == written - {"plan.json", "workers.log"} >= {"report.html", "comparison.csv"}
    assert {*rest} - {f"records/{run}.json" for run in kept} == {
        "plan.json",
        *(name for name in rest if name.startswith("reports/")),
    }
    assert {*manifest["losses"]} == {"cross_entropy", "focal"}
    assert manifest["needs"] == []
    marks = {record["fingerprints"]["data"] for record in kept.values()}
    assert manifest["data"] == {"iris": sorted(marks)}
    versions = next(iter(kept.values()))["provenance"]["versions"]
    assert manifest["versions"] == {name: [version] for name, version in versions.items()}


def test_what_is_in_an_archive_is_read_back(swept: Path) -> None:
    sent = contents.read(swept / "small.zip")
    assert sent.plan.arms == ["ce", "focal"]
    assert sent.digest == hashlib.sha256((swept / "small.zip").read_bytes()).hexdigest()
    assert {r.id: r.metrics for r in sent.records.values()} == {
        run: record["metrics"] for run, record in records(swept / "results").items()
    }


def test_the_same_content_gives_the_same_bytes_and_no_file_is_overwritten(
    swept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(swept)
    first = (swept / "small.zip").read_bytes()
    assert main(["bundle", "small.yaml", "--output", "again.zip"]) == 0
    assert (swept / "again.zip").read_bytes() == first
    (swept / "note.txt").write_text("mine")
    capsys.readouterr()
    assert main(["bundle", "small.yaml", "--output", "note.txt"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "note.txt is there already" in err
    assert (swept / "note.txt").read_text() == "mine"
    assert [path.name for path in swept.iterdir() if path.name.startswith(".")] == []


def test_a_sweep_without_records_makes_no_archive(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(here)
    assert main(["bundle", "small.yaml"]) == 2
    assert "there is no record of small yet" in capsys.readouterr().err
    assert not (here / "small.zip").exists()


def test_no_folder_of_the_machine_and_no_file_of_ones_own_is_packed(own: Path) -> None:
    members = unzipped(own / "own.zip")
    table = (own / "houses.csv").read_bytes()
    for name, content in members.items():
        for folder in (own, own.parent, Path.home(), ROOT):
            assert str(folder).encode() not in content, (name, folder)
        assert table[:200] not in content
        assert b"return (prediction - target)" not in content
    needs = json.loads(members["manifest.json"])["needs"]
    files = {"file": own / "houses.csv", "plugin": own / "power.py"}
    assert needs == [
        {"kind": k, "name": f.name, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()}
        for k, f in files.items()
    ]


def test_paths_are_cut_down_wherever_they_stand(here: Path) -> None:
    """But what only looks like a part of a folder's name is left as it is."""
    wanted = request(str(write_sweep(here)), [])
    places = pack.places_of(wanted)
    for before, after in {
        f"cannot read {here}/a b/c.csv, row 2": "cannot read a b/c.csv, row 2",
        f"plugins=[{Path.home()}/x.py]": "plugins=[x.py]",
        "cannot read /srv/some one/else": "cannot read some one/else",
        "'/srv/data/houses.csv' and ~alice/x/y.csv": "'houses.csv' and y.csv",
        "classification/iris and/or https://example.org/a/b": None,
        f"results{here}": None,
        f"{here}x": f"{here.name}x",
    }.items():
        assert pack.without({before: [before]}, places) == {after or before: [after or before]}


def test_every_config_key_that_names_a_file_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `outcome` replaces by a hash is what an archive must not say as a path."""
    monkeypatch.setattr(data, "file_hash", lambda _: "hash")
    plain = iris()
    places = dict.fromkeys(("path", "images", "test"), "x")
    config = dataclasses.replace(
        plain,
        data={**plain.data, **places},
        model={**plain.model, "pretrained": "x"},
        teacher={**plain.model, "pretrained": "x"},
    )
    found = {key for key, value in flat(configs.outcome(config)).items() if value == "hash"}
    assert found == {*FILES}


# Repeating


def test_a_bundle_is_reproduced_to_the_last_bit_by_another_process(
    swept: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", "harness", "reproduce", str(swept / "small.zip"), "--jobs", "1"]
    done = python(words, here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("reproduced: 4 runs to the last bit, and all verdicts\n")
    (store,) = (here / "results" / "reproduced").iterdir()
    mine, theirs = records(store), records(swept / "results")
    for key in ("metrics", "curve", "config", "fingerprints", "steps"):
        assert {i: r[key] for i, r in mine.items()} == {i: r[key] for i, r in theirs.items()}
    assert not {*started(store).items()} & {*started(swept / "results").items()}
    before = started(store)
    capsys.readouterr()
    assert main(words[2:]) == 0  # nothing is left to train
    assert started(store) == before
    assert "training" not in capsys.readouterr().out


def test_a_changed_value_is_found_by_repeating_alone(
    swept: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the archive itself nothing is wrong; and the sample holds every arm and every seed."""
    members = unzipped(swept / "small.zip")
    sent = contents.read(swept / "small.zip")
    liar = next(cell.runs[1] for cell in sent.plan.cells if cell.arm == "focal")
    claimed = sent.records[liar].metrics["test/nll"] + 1e-12

    def lie(name: str, content: Any) -> None:
        if name == f"records/{liar}.json":
            content["metrics"]["test/nll"] = claimed

    (here / "lie.zip").write_bytes(fixed(edited(members, lie)))
    words = ["reproduce", "lie.zip", "--sample", "2", "--jobs", "1", "--store", "again"]
    assert main(words) == NOT_REPRODUCED
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if line.startswith(liar)]
    true = sent.records[liar].metrics["test/nll"]
    parts = [liar, "classification/iris", "focal", "1", "test/nll", repr(claimed), repr(true)]
    assert row.split() == [*parts, "0"]
    assert out.endswith("NOT reproduced: 1 of 2 runs and 0 verdicts differ\n")
    made = records(here / "again")
    assert {record["seed"] for record in made.values()} == {0, 1}
    assert {"focal" in record["config"]["loss"] for record in made.values()} == {True, False}


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_goes_on(swept: Path, here: Path) -> None:
    words = ["-m", "harness", "reproduce", str(swept / "small.zip"), "--jobs=1", "--store=again"]
    process = start(words, here)
    wait_for(lambda: records(here / "again"), "the first record")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    first = started(here / "again")
    assert first
    done = python(words, here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert first.items() <= started(here / "again").items()
    assert len(records(here / "again")) == 4


@pytest.mark.slow
def test_other_arithmetic_reproduces_within_noise(swept: Path, here: Path) -> None:
    """Other vector instructions, where the processor has several, give other last bits."""
    words = ["-m", "harness", "reproduce", str(swept / "small.zip"), "--jobs=1"]
    done = python(words, here, ATEN_CPU_CAPABILITY="default")
    assert done.returncode == 0, done.stdout + done.stderr
    made_on = contents.read(swept / "small.zip").manifest.machine
    if made_on and made_on["vectors"] != "DEFAULT":
        assert "within 3 robust sd over the bundle's seeds" in done.stdout
        assert "another machine (vectors)" in done.stdout


@pytest.mark.slow
def test_a_tuned_sweep_with_controls_is_reproduced(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials are runs like others, and controls follow the bundle's choice."""
    tune = {"trials": 2, "space": {"optimizer.lr": "log(1e-3, 1e-1)"}}
    write_sweep(here, "tuned", tune=tune, controls=["null", "identity"])
    assert main(["sweep", "tuned.yaml", "--jobs", "1"]) == 0
    assert main(["bundle", "tuned.yaml"]) == 0
    sent = contents.read(here / "tuned.zip")
    assert len(sent.records) == 4 + 4 + 4  # trials, arms, controls
    assert main(["reproduce", "tuned.zip", "--jobs", "1"]) == 0
    assert "12 runs to the last bit, and all verdicts" in capsys.readouterr().out


def test_records_of_others_never_answer(
    swept: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", str(swept / "small.zip"), "--store"]
    assert main([*words, str(swept / "results")]) == 2
    assert "holds runs of others already" in capsys.readouterr().err
    (here / "begun").mkdir()
    (here / "begun" / "reproduction.json").write_text(json.dumps({"bundle": "another"}))
    assert main([*words, "begun"]) == 2
    assert "was begun with another bundle and code" in capsys.readouterr().err


def test_files_and_code_of_ones_own_come_from_the_command_line(
    own: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = str(own / "own.zip")
    code, table = f"plugins=[{own / 'power.py'}]", here / "renamed.csv"
    table.write_bytes((own / "houses.csv").read_bytes())
    (here / "other.csv").write_text("rooms,age,price\n1,2,3\n")
    for words, said in (
        ([], "give it by plugins=[FILE], which runs with your rights"),
        ([code], "the bundle does not hold houses.csv"),
        ([code, "files=[other.csv]"], "other.csv is none of what the bundle was made with"),
        ([code, "files=[renamed.csv]", "loss=mse"], "reproduce takes plugins, files, data.root"),
    ):
        assert main(["reproduce", archive, *words]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert said in err
    assert not (here / "results").exists()


def test_a_loss_whose_code_has_changed_is_named(own: Path, here: Path) -> None:
    """Seen before anything is trained, and then in what comes out."""
    (here / "power.py").write_text(POWER.replace(".abs() **", ".abs() * 1.01 **"))
    files = f"files=[{own / 'houses.csv'}]"
    words = ["-m", "harness", "reproduce", str(own / "own.zip"), files, "--jobs=1", "--sample=2"]
    changed = python([*words, "plugins=[power.py]"], here)
    assert changed.returncode == NOT_REPRODUCED, changed.stdout + changed.stderr
    said = [line for line in changed.stdout.splitlines() if line.startswith("changed ")]
    assert said == [
        "changed   the code of power is not what it was when the bundle was made",
        "changed   the plug-in power.py is none that the bundle was made with",
    ]
    arms = {line.split()[2] for line in changed.stdout.splitlines() if "test/rmse" in line[40:]}
    assert "power" in arms - {"mse"}


def received(path: Path) -> Received:
    sent = contents.read(path)
    return made_here(sent, given_by(sent, [], None))


def test_what_is_not_as_it_was_is_named(swept: Path, here: Path) -> None:
    members = unzipped(swept / "small.zip")
    said = json.loads(members["manifest.json"])
    versions = {**said["versions"], "torch": ["1.0"], "numpy": ["1", "2"]}
    sums = {**said["losses"], "focal": "0" * 64}
    assert list(changes(received(swept / "small.zip"))) == []
    (here / "a.zip").write_bytes(fixed(members, versions=versions, losses=sums, recipe=0))
    found = list(changes(received(here / "a.zip")))
    assert [line.partition(",")[0] for line in found] == [
        "numpy was 1 and 2",
        "torch was 1.0",
        "the code of focal is not what it was when the bundle was made",
        "what a run computes (recipe 0 there",
    ]


def test_other_data_are_refused_before_anything_is_trained(
    swept: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(name: str, content: Any) -> None:
        if name != "plan.json":
            content["fingerprints"]["data"] = "0" * 64

    (here / "a.zip").write_bytes(fixed(edited(unzipped(swept / "small.zip"), other)))
    assert main(["reproduce", "a.zip"]) == 2
    assert "data iris are not those of the bundle" in capsys.readouterr().err
    assert not (here / "results").exists()


# Samples


@pytest.mark.parametrize(("arms", "seeds"), [(4, 5), (7, 3), (2, 2), (3, 10), (5, 1)])
def test_a_sample_is_spread_over_arms_and_seeds(arms: int, seeds: int) -> None:
    losses = {f"arm{i}": {"focal": {"gamma": float(i)}} for i in range(arms)}
    plan = make_plan(losses, seeds=seeds, baseline="arm0")
    made = Received(
        Bundle("", manifest(), plan, make_records(plan)),
        given_by(Bundle("", manifest(), plan, {}), [], None),
        plan,
        {run.id: run.id for run in plan.runs()},
    )
    for number in range(1, arms * seeds + 1):
        runs = sampled(made, number)
        assert runs == sampled(made, number)
        assert len({run.id for run in runs}) == number
        for counts, many in (
            (Counter(run.arm for run in runs), arms),
            (Counter(run.seed for run in runs), seeds),
        ):
            most, least = max(counts.values()), min([*counts.values(), *[0] * (many - len(counts))])
            assert most - least <= 1
    assert [run.id for run in sampled(made, None)] == [run.id for run in plan.runs()]
    assert sampled(made, 10**6) == sampled(made, None)


# What counts as the same


def manifest(**changes: Any) -> Manifest:
    facts: dict[str, Any] = {
        "recipe": 1,
        "machine": {"processor": "a"},
        "versions": {"torch": ["2"], "lossbench": ["1"]},
        "losses": {},
        "data": {},
        "needs": [],
        "members": {},
    }
    return Manifest(**facts | changes)


def test_bits_are_promised_on_the_same_processor_with_the_same_libraries() -> None:
    versions, cpu = {"torch": "2", "lossbench": "2"}, Record("", "done", {}, 0)
    cpu = dataclasses.replace(cpu, provenance={"device": "cpu"})
    gpu = dataclasses.replace(cpu, provenance={"device": "A GPU"})
    same = {"processor": "a"}
    why = agreement.why_not_exact
    assert why(manifest(), versions, same, [cpu]) == ""
    assert why(manifest(), versions, same, [cpu, gpu]) == "not on a CPU but on A GPU"
    assert why(manifest(), versions, {"processor": "b"}, [cpu]) == "another machine (processor)"
    assert "another machine" in why(manifest(), versions, None, [cpu])
    for facts in ({"devices": 2}, {"devices": "2"}):
        two = dataclasses.replace(cpu, provenance={**cpu.provenance, **facts})
        assert "made on 2 devices" in why(manifest(), versions, same, [cpu, two])
    one = dataclasses.replace(cpu, provenance={**cpu.provenance, "devices": 1})
    assert why(manifest(), versions, same, [one]) == ""
    for manifested in ({"processor": "a"}, {"processor": "b"}, None):  # a record knows better
        for own in ("a", "b"):
            facts = {**cpu.provenance, "processor": {"processor": own}}
            said = why(manifest(machine=manifested), versions, same,
                       [dataclasses.replace(cpu, provenance=facts)])  # fmt: skip
            assert said == ("" if own == "a" else "another machine (processor)")
    assert "torch was 2, here 3" in why(manifest(), {"torch": "3"}, same, [cpu])
    assert "torch was 1 and 2" in why(manifest(versions={"torch": ["1", "2"]}), versions, same, [])
    assert "does not know" in why(manifest(machine=None), versions, same, [cpu])


def pairs_of(plan: Plan, there: Mapping[str, Record], here: Mapping[str, Record]) -> list[Pair]:
    return [Pair(run, there[run.id], here.get(run.id)) for run in plan.runs()]


def noise_of(plan: Plan, found: Mapping[str, Record]) -> Noise:
    groups: dict[agreement.Group, list[Record]] = {}
    for run in plan.runs():
        groups.setdefault((run.task, run.arm, run.trial), []).append(found[run.id])
    return Noise(groups)


def test_within_noise_means_three_spreads_over_seeds_and_rounding() -> None:
    """Just below the limit that the rule gives is no difference, just above is one."""
    plan = make_plan(seeds=5)
    found = make_records(plan, seed=3)
    noise, name = noise_of(plan, found), "test/accuracy"
    spreads = {
        cell.arm: NORMAL
        * median_abs_deviation([found[run].metrics[name] for run in cell.runs.values()])
        for cell in plan.cells
    }
    for cell in plan.cells:
        run, own = cell.runs[2], spreads[cell.arm]
        value = found[run].metrics[name]
        limit = SPREADS * max(own, median(spreads.values())) + RELATIVE * value + ABSOLUTE
        for factor, differs in ((0.999, False), (-0.999, False), (1.001, True), (-1.001, True)):
            metrics = {**found[run].metrics, name: value + factor * limit}
            moved = {**found, run: dataclasses.replace(found[run], metrics=metrics)}
            rows = list(agreement.differences(pairs_of(plan, found, moved), noise))
            assert [(row.run.id, row.what) for row in rows] == [(run, name)] * differs
            assert all(row.allowed == pytest.approx(limit) for row in rows)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_one_outlying_seed_does_not_excuse_the_others(seeds: int) -> None:
    """Of two seeds nobody knows which is the outlier."""
    plan = make_plan(seeds=seeds)
    found = make_records(plan)
    for cell in plan.cells:
        run = cell.runs[1]
        metrics = dict.fromkeys(found[run].metrics, 1e3)
        found[run] = dataclasses.replace(found[run], metrics=metrics)
    run, key = plan.cells[0].runs[0], "test/accuracy"
    metrics = {**found[run].metrics, key: found[run].metrics[key] + 0.5}
    moved = {**found, run: dataclasses.replace(found[run], metrics=metrics)}
    rows = agreement.differences(pairs_of(plan, found, moved), noise_of(plan, found))
    assert [row.what for row in rows] == [key] * (seeds > 2)


def test_two_failed_runs_are_the_same_if_they_failed_alike() -> None:
    plan = make_plan(seeds=2)
    run, whole = plan.cells[0].runs[0], make_records(plan)

    def failed(error: str) -> dict[str, Record]:
        return {**whole, run: dataclasses.replace(whole[run], status="failed", error=error)}

    there = failed("cannot read a b/c.csv, row 2")
    for error, same in {
        "cannot read a b/c.csv, row 2": True,
        "cannot read /srv/a b/c.csv, row 2": True,
        "cannot read a b/c.csv, row 3": False,
        "out of memory": False,
    }.items():
        for noise in (None, noise_of(plan, whole)):
            rows = agreement.differences(pairs_of(plan, there, failed(error)), noise)
            assert [row.what for row in rows] == ["status"] * (not same)


def test_without_noise_every_bit_counts_and_with_it_the_rest_does_not() -> None:
    plan = make_plan(seeds=2)
    found = make_records(plan)
    run = plan.cells[0].runs[0]
    record = found[run]
    changed: dict[str, dict[str, Any]] = {
        "curve": {"curve": record.curve[:-1]},
        "steps": {"steps": record.steps + 1},
        "init": {"fingerprints": {**record.fingerprints, "init": "0"}},
    }
    for what, change in changed.items():
        moved = {**found, run: dataclasses.replace(record, **change)}
        pairs = pairs_of(plan, found, moved)
        assert [row.what for row in agreement.differences(pairs, None)] == [what]
        assert list(agreement.differences(pairs, noise_of(plan, found))) == []
    judged: dict[str, dict[str, Any]] = {
        "split": {"fingerprints": {**record.fingerprints, "split": "0"}},
        "status": {"status": "failed", "error": "out of luck"},
        "test/nll": {"metrics": {k: v for k, v in record.metrics.items() if k != "test/nll"}},
    }
    for what, change in judged.items():
        moved = {**found, run: dataclasses.replace(record, **change)}
        for noise in (None, noise_of(plan, found)):
            rows = list(agreement.differences(pairs_of(plan, found, moved), noise))
            assert [row.what for row in rows] == [what]
    lacking = {key: value for key, value in found.items() if key != run}
    (row,) = agreement.differences(pairs_of(plan, found, lacking), None)
    assert (row.what, row.there, row.here) == ("status", "done", "no record")


def test_other_verdicts_are_named() -> None:
    plan = make_plan(seeds=10)
    before = compare(plan, make_records(plan, {"focal": 0.05}))
    now = compare(plan, make_records(plan, {"focal": -0.05}))
    assert agreement.verdicts(before, before) == []
    assert agreement.verdicts(before, now) == ["digits focal: better there, worse here"]


# Archives of strangers


def rewritten(members: Members, **changes: Any) -> bytes:
    """The archive with a plan of which some keys are others, and a manifest that says so."""

    def change(name: str, content: Any) -> None:
        if name == "plan.json":
            content.update(changes)

    return fixed(edited(members, change))


def configured(members: Members, *path: str, value: Any) -> bytes:
    """The archive in which the arm `focal` has something else in its config, in all places."""

    def change(name: str, content: Any) -> None:
        for config in of_focal(name, content):
            for key in path[:-1]:
                config = config.setdefault(key, {})
            config[path[-1]] = value

    return fixed(edited(members, change))


def with_records(members: Members, **changes: Any) -> bytes:
    def change(name: str, content: Any) -> None:
        if name != "plan.json":
            content.update(changes)

    return fixed(edited(members, change))


def with_entry(members: Members, name: str, mode: int = 0o100644, **fields: int) -> bytes:
    """The archive with one more entry of that name and kind."""
    written = io.BytesIO(zipped(members))
    with zipfile.ZipFile(written, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that stands there twice
        info = zipfile.ZipInfo("placeholder")
        info.filename, info.create_system, info.external_attr = name, 3, mode << 16
        for field, value in fields.items():
            setattr(info, field, value)
        file.writestr(info, b"content")
    return written.getvalue()


def raw_plan(members: Members, text: str) -> bytes:
    return fixed({**members, "plan.json": text.encode("utf-8", "surrogatepass")})


def lying(members: Members) -> bytes:
    """A record of a hundred million bytes that says it has ten."""
    content = fixed({**members, "records/" + "0" * 16 + ".json": b"0" * 10**8})
    return content.replace(struct.pack("<I", 10**8), struct.pack("<I", 10))


def replaced(members: Members, before: str, after: str) -> bytes:
    """The archive with a text replaced in all its JSON."""
    found = {n: t.replace(before.encode(), after.encode()) for n, t in members.items()}
    return fixed({**found, "manifest.json": members["manifest.json"]})


A_RECORD = "records/" + "a" * 16 + ".json"


def of_zip(m: Members) -> Iterator[tuple[str, bytes, str]]:
    """Archives that are wrong as archives: name, bytes, and what must be said."""
    whole, strange = zipped(m), "is none that a bundle has"
    yield "no zip", b"certainly not", "no zip that can be read"
    yield "empty", b"", "no zip that can be read"
    yield "truncated", whole[: len(whole) // 2], "no zip that can be read"
    yield "damaged", whole[:200] + b"\0" * 64 + whole[264:], "no zip that can be read"
    yield "escape", with_entry(m, "../../evil.json"), strange
    yield "escape below", with_entry(m, "records/../../evil.json"), strange
    yield "absolute", with_entry(m, "/evil.json"), strange
    yield "backslash", with_entry(m, "records\\..\\evil.json"), strange
    yield "folder", with_entry(m, "records/", 0o040755), strange
    yield "symlink", with_entry(m, A_RECORD, 0o120777), strange
    yield "device", with_entry(m, A_RECORD, 0o020666), strange
    yield "pickle", with_entry(m, "records/model.pt"), strange
    yield "code", with_entry(m, "plugin.py"), strange
    yield "escapes", with_entry(m, "\x1b]0;owned\x07.json"), strange
    yield "null byte", with_entry(m, "plan.json\0.py"), strange
    yield "twice", with_entry(m, "plan.json"), "two members plan.json"
    yield (
        "encrypted",
        with_entry(m, A_RECORD).replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"),
        "encrypted",
    )
    yield "unlisted", zipped({**m, "reports/more.md": b"more"}), "was changed"
    yield "a member less", zipped({n: t for n, t in m.items() if n != "plan.json"}), "is missing"
    yield "changed", zipped({**m, "plan.json": m["plan.json"] + b" "}), "was changed"
    yield "no manifest", zipped({n: t for n, t in m.items() if n != "manifest.json"}), "no manifest"
    yield "no plan", fixed({n: t for n, t in m.items() if n != "plan.json"}), "no plan.json"
    yield "newer", fixed(m, version=2), "needs a newer lossbench"
    yield "version in words", fixed(m, version="1"), "not that of a bundle"
    yield "other format", fixed(m, format="zip"), "not that of a bundle"
    yield "manifest is a list", zipped({**m, "manifest.json": b"[]"}), "is no mapping"
    yield "manifest of numbers", fixed(m, losses={"a": 1}), "not as it should be"
    yield "manifest with more", fixed(m, _target_="os.system"), "no parameter '_target_'"
    yield "bomb", fixed({**m, A_RECORD: b"0" * (129 << 20)}), "has more than 128 MiB"
    yield "lying bomb", lying(m), "no zip that can be read"
    yield "no records", fixed({n: t for n, t in m.items() if "records/" not in n}), "no record"


def of_json(m: Members) -> Iterator[tuple[str, bytes, str]]:
    """Archives whose JSON is hostile."""
    cannot, wrong = "cannot be read", "not as it should be"
    yield "deep", raw_plan(m, '{"a":' + "[" * 10**5 + "]" * 10**5 + "}"), cannot
    yield "less deep", raw_plan(m, '{"a":' + "[" * 60 + "]" * 60 + "}"), "nested more than 40"
    yield "NaN", replaced(m, '"margin": null', '"margin": NaN'), "NaN is no number"
    yield "infinite", replaced(m, '"margin": null', '"margin": 1e999'), "is no number"
    yield "endless", replaced(m, '"margin": null', f'"margin": {"9" * 10**5}'), cannot
    yield "half a pair", replaced(m, '"question": ""', '"question": "\\ud800"'), cannot
    yield "a key twice", replaced(m, '"question": ""', '"question": "", "question": "a"'), "twice"
    yield "no UTF-8", fixed({**m, "plan.json": b'{"\xff\xfe'}), cannot
    yield "no plan at all", raw_plan(m, "{}"), wrong
    yield "cells of text", rewritten(m, cells=["a"]), wrong
    yield "seeds of text", rewritten(m, seeds=["0"]), wrong
    yield "more keys", rewritten(m, _target_="os.system"), "no parameter '_target_'"
    yield "escapes in a name", replaced(m, '"focal"', '"\\u001b[31mfocal"'), "printable"
    yield "a line in a name", replaced(m, '"focal"', '"fo\\ncal"'), "printable"
    yield "a path as a name", rewritten(m, name="../../up"), "no name of a sweep"
    yield "dots as a name", rewritten(m, name=".."), "no name of a sweep"
    yield "no such baseline", rewritten(m, baseline="none"), "lacks"
    yield "sideways", rewritten(m, directions={"test/accuracy": "sideways"}), "higher or lower"
    yield "text as metrics", with_records(m, metrics="all"), wrong
    yield "text as a metric", with_records(m, metrics={"test/accuracy": "1"}), wrong
    yield "a metric too large", with_records(m, metrics={"test/accuracy": 10**400}), wrong
    yield "no such status", with_records(m, status="owned"), wrong
    yield "newer record", with_records(m, version=99), "newer than"
    yield "another id", with_records(m, id="../../evil"), "is the record of run"
    yield "another seed", with_records(m, seed=7), "not of the config and seed"
    yield "more of a record", with_records(m, hydra={}), "no parameter 'hydra'"


def of_config(m: Members) -> Iterator[tuple[str, bytes, str]]:
    """Archives whose configs want what a config must not have."""
    target, env = "os.system", "${oc.env:HOME}"
    yield "_target_", configured(m, "_target_", value=target), "config has no key '_target_'"
    yield "_target_ of a loss", configured(m, "loss", "focal", "_target_", value=target), "_target_"
    yield "a term _target_", configured(m, "loss", "_target_", value=target), "_target_"
    yield "_target_ of a model", configured(m, "model", "_target_", value=target), "_target_"
    yield "_target_ of data", configured(m, "data", "_target_", value=target), "_target_"
    yield "_target_ of Adam", configured(m, "optimizer", "_target_", value=target), "_target_"
    yield "hydra", configured(m, "hydra", value={"callbacks": {}}), "config has no key 'hydra'"
    yield "defaults", configured(m, "defaults", value=[{"loss": "mse"}]), "no key 'defaults'"
    yield "dotted loss", configured(m, "loss", "focal", "loss", value=target), "there is no loss"
    yield "loss of a path", configured(m, "loss", "focal", "loss", value="os/system"), "no"
    yield "dotted model", configured(m, "model", "name", value=target), "there is no model"
    yield "model of a path", configured(m, "model", "name", value="torchvision/../x"), "no model"
    yield "dotted task", configured(m, "task", "name", value="../../x"), "there is no task"
    yield "resolver", configured(m, "data", "name", value=env), "there is no data set"
    yield "resolver in a setting", configured(m, "model", "activation", value=env), "activation"
    yield "a file", configured(m, "data", "path", value="/etc/passwd"), "no file that the manifest"
    yield "weights", configured(m, "model", "pretrained", value="/etc/passwd"), "no file that the"
    yield "root", configured(m, "data", "root", value="/etc"), "root"
    yield "download", configured(m, "data", "download", value=True), "download"
    yield "device", configured(m, "trainer", "accelerator", value="gpu"), "must not be said"
    yield "plug-ins", configured(m, "plugins", value=["evil.py"]), "must not say plugins"
    yield "store", configured(m, "store", value="/etc"), "must not say store"
    yield "trackers", configured(m, "trackers", value=["wandb"]), "must not say trackers"
    yield "save", configured(m, "save", value="/etc/passwd"), "must not say save"
    yield "a list as a loss", configured(m, "loss", value=[1]), "arm focal"
    yield "a number too large", configured(m, "optimizer", "lr", value=10**400), "arm focal"
    yield "endless memory", configured(m, "data", "train_size", value=10**18), "iris"


AUDIT = """
import contextlib, io, json, os, sys
from harness import data, models, prepare, tasks
from harness.bundles import received, reproduce  # what they open is their own
from harness.cli import main

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SPAWNING = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
            "socket.", "os.remove", "os.rename", "os.mkdir", "os.link", "os.symlink", "shutil.",
            "os.rmdir", "os.chmod", "os.truncate", "pickle.", "urllib.")
seen = []

def hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = any(c in (mode or "") for c in "wax+") or (flags or 0) & WRITING
        if writes or str(path).startswith("/etc/passwd"):
            seen.append([event, str(path)])
    elif event.startswith(SPAWNING):
        seen.append([event, str(arguments[:1])])

sys.addaudithook(hook)
found = {}
for archive in sorted(os.listdir("hostile")):
    out, err = io.StringIO(), io.StringIO()
    seen.clear()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["reproduce", f"hostile/{archive}"])
    found[archive] = [code, out.getvalue(), err.getvalue(), list(seen)]
print(json.dumps(found))
"""


def test_hostile_archives_are_refused_in_one_line(swept: Path, here: Path) -> None:
    """And nothing is written, spawned, connected to or removed meanwhile, nor any secret read."""
    members = unzipped(swept / "small.zip")
    cases = [*of_zip(members), *of_json(members), *of_config(members)]
    (here / "hostile").mkdir()
    for i, (_, content, _) in enumerate(cases):
        (here / "hostile" / f"{i:03}.zip").write_bytes(content)
    done = python(["-c", AUDIT], here, PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(cases) > 60
    wrong = {}
    for (name, _, expected), (code, out, err, seen) in zip(cases, found.values(), strict=True):
        line = re.fullmatch(r"lossbench: [^\n]*\n", err) and err[:-1].isprintable()
        if (code, out, seen) != (2, "", []) or not line or expected not in err:
            wrong[name] = (code, out, err, seen)
    assert wrong == {}
    assert [path.name for path in here.iterdir()] == ["hostile"]


def test_markup_in_names_is_harmless(swept: Path) -> None:
    markup = "<img src=x onerror=alert(1)>"
    content = replaced(unzipped(swept / "small.zip"), '"focal"', f'"{markup}"')
    # a name of an arm is any printable text, but no name of a loss
    with pytest.raises(ValueError, match="there is no loss"):
        made_here(sent := contents.parse(content), given_by(sent, [], None))
    page = to_html(compare(sent.plan, sent.records))
    assert markup not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
