"""What strangers send cannot run code, write elsewhere, tell secrets, reach a network, or hang."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness import sweep as sweeps
from harness.cli import main
from harness.record import Record
from harness.report.cells import to_csv
from harness.report.exports import escape_latex
from harness.report.style import columns, shortened
from harness.store import Store, StoreError
from tests.harness import hostile
from tests.harness.inert import faults
from tests.harness.spine import python, start, write_sweep


def watched(kind: str, folder: Path) -> list[dict[str, Any]]:
    """Every case of a kind, run and watched by a process of its own."""
    environment = {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    process = start(["-m", "tests.harness.watched", kind], folder, **environment)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    found: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
    assert not list(folder.rglob(hostile.OWNED))
    return found


def wrong(cases: list[dict[str, Any]], lines: int = 1) -> dict[str, dict[str, Any]]:
    """Cases that ended otherwise than expected, did what they must not, or steered a terminal."""
    found = {}
    for case in cases:
        out, err = case["out"], case["err"]
        told = (out + err).replace("\n", "")
        fine = case["code"] == case["expected"] and not case["seen"] and told.isprintable()
        fine = fine and err.count("\n") <= lines and "Traceback" not in err
        fine = fine and "s3cr3t" not in told and not case.get("faults") and case.get("same", True)
        if not fine:
            found[case["name"]] = case
    return found


def test_hostile_sweep_files_are_refused_in_one_line(tmp_path: Path) -> None:
    cases = watched("files", tmp_path)
    assert len(cases) == len(hostile.TABLE) > 60
    assert wrong([{**case, "expected": 2} for case in cases]) == {}
    assert [c["name"] for c in cases if c["out"] or c["err"].count("\n") != 1] == []
    unsaid = {c["name"]: c["err"] for c in cases if c["said"] not in c["err"] or not c["said"]}
    assert unsaid == {}
    left = {path.name for path in tmp_path.iterdir()} - {"cache"}  # fonts that a library listed
    assert left == {"pipe", "sent", "small.yaml"}


def test_hostile_stores_are_reported_on_without_harm(tmp_path: Path) -> None:
    """Records, plans, samples and links; what is written of them is inert in every format."""
    cases = watched("store", tmp_path)
    assert len(cases) > 60
    assert wrong(cases) == {}
    outside = [path.name for path in tmp_path.glob("outside/*/*")]
    assert set(outside) <= {"record.json", "small"} | set(_runs(tmp_path))


def _runs(folder: Path) -> list[str]:
    return [path.name for path in (folder / "clean" / "runs").iterdir()]


def test_hostile_weights_are_refused_and_records_shown_harmlessly(tmp_path: Path) -> None:
    cases = watched("trains", tmp_path)
    assert len(cases) > 25
    assert wrong(cases) == {}


def test_a_hook_sees_what_it_watches_for(tmp_path: Path) -> None:
    """Else the tests above could not fail."""
    script = """
import json, os, subprocess, sys
from pathlib import Path
from tests.harness.watched import Watch
watch, found = Watch(), []
watch.known, watch.inside = {"json"} | sys.stdlib_module_names, Path("in").resolve()
for text in sys.argv[1:]:
    watch.seen, watch.on = [], True
    try:
        exec(text)
    except Exception:
        pass
    watch.on = False
    found.append(len(watch.seen))
print(json.dumps(found))
"""
    inside = ["os.mkdir('in')", "open('in/a', 'w')", "open('/etc/hosts')"]
    bad = ["open('a', 'w')", "os.remove('a')", "os.system('true')", "subprocess.run(['true'])"]
    bad += ["import sphinx_of_quartz", "compile('OWNED', 'a', 'eval')", "os.mkdir('b')"]
    bad += ["__import__('socket').create_connection(('127.0.0.1', 1))"]
    done = python(["-c", script, *inside, *bad], tmp_path)
    counts = json.loads(done.stdout)
    assert counts[: len(inside)] == [0] * len(inside)
    assert all(counts[len(inside) :])


def test_only_ones_own_plans_are_gone_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    path = write_sweep(tmp_path)
    wanted = sweeps.request(str(path), [])
    made = sweeps.plan(wanted)
    sweeps.save(wanted, made)
    built = []
    monkeypatch.setattr("harness.build.build_plan", lambda wanted: built.append(wanted) or made)
    assert main(["plan", str(path)]) == 0
    assert built == []
    assert (tmp_path / "mine/lossbench/seal").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    assert main(["plan", str(path)]) == 0
    assert len(built) == 1
    (tmp_path / "none").touch()  # no place for a secret: every plan is made anew
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    sweeps.save(wanted, made)
    assert main(["plan", str(path)]) == 0
    assert len(built) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "a\0b"])
def test_no_name_leads_out_of_a_store(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for folder in (store.run_folder, store.sweep_folder):
        with pytest.raises(StoreError, match="cannot be the name of a folder"):
            folder(name)
    with pytest.raises(StoreError, match="cannot be the name of a folder"):
        store.write(Record(name, "done", {}, 0))


def test_a_log_that_leads_elsewhere_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_sweep(tmp_path)
    log = sweeps.request(str(path), []).folder / "workers.log"
    log.parent.mkdir(parents=True)
    log.symlink_to(tmp_path / "profile")
    assert main(["sweep", str(path), "--jobs=1"]) == 1
    assert capsys.readouterr().err.startswith("lossbench: cannot write results/sweeps/small/work")
    assert not (tmp_path / "profile").exists()


def test_cells_are_no_formulas_and_numbers_stay() -> None:
    rows = [{"=a": "=1+1", "b": -0.5}, {"=a": "-x", "b": "-0.5"}, {"=a": " +1 ", "b": None}]
    assert to_csv(["=a", "b"], rows) == "'=a,b\n'=1+1,-0.5\n'-x,-0.5\n +1 ,\n"


def test_latex_has_no_argument_at_the_start_of_a_row() -> None:
    assert escape_latex("[2cm]*") == "{[}2cm]{*}"


def test_long_text_is_cut_at_once() -> None:
    assert shortened("a" * 10**6 + "z" * 10**6, 9) == "aaaa…zzzz"
    wide = shortened("日本" * 10**6, 9)
    assert columns(wide) <= 9
    assert wide.startswith("日")


def test_what_would_act_is_found(tmp_path: Path) -> None:
    """Else the files of a report could not be found wrong."""
    bad = {
        "a.html": "<style></style><p onclick=x>",
        "b.html": "<style></style><script>",
        "c.md": "[x](javascript:alert(1))",
        "d.md": "<img src=x>",
        "e.tex": "\\input{x}",
        "f.csv": "a,=1+1",
        "g.json": "NaN",
        "h.md": "\x1b[31m",
    }
    for name, text in bad.items():
        (tmp_path / name).write_text(text)
    assert {fault.partition(":")[0] for fault in faults(tmp_path)} == {*bad}
