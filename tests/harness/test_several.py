"""Several sweeps on one page, and every page in a real browser."""

import csv
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest

from harness import report
from harness.cli import main
from harness.compare import compare
from harness.comparison import Comparison, Level, RunStatus, Verdict
from harness.plan import Direction
from harness.report.several import lowered, to_csv, to_html, to_json, to_markdown
from harness.report.several import write_several as write
from tests.harness import test_made_of, test_response
from tests.harness.builders import make_plan, make_records, with_controls
from tests.harness.spine import write_sweep
from tests.harness.test_report import CASES, Page

Part = tuple[Comparison, tuple[()]]


def parts_of(*comparisons: Comparison) -> list[Part]:
    return [(comparison, ()) for comparison in comparisons]


def named(name: str, case: str) -> Comparison:
    return dataclasses.replace(compare(*CASES[case]), name=name)


@pytest.fixture(scope="module")
def three() -> list[Comparison]:
    return [named("one", "done"), named("two", "controls"), named("three", "crowd")]


def test_the_table_of_sweeps_leads_to_each_of_them(three: list[Comparison]) -> None:
    text = to_html(parts_of(*three))
    page = Page(text)
    links = [link["href"] for link in page.all("a")]
    assert links == [*(f"#sweep-{i}" for i in (1, 2, 3)), *["#"] * 3]
    assert [article["id"] for article in page.all("article")] == ["sweep-1", "sweep-2", "sweep-3"]
    top = text[: text.index("<article")]
    for comparison in three:
        assert comparison.name in top
        assert comparison.question in top
        assert comparison.sentence in top
        assert f"{comparison.done}" in top
    words = "\n".join(page.words)
    for comparison in three:
        for _, result in comparison.results():
            assert all(run.id in words for run in result.runs)
        assert comparison.command in words


def test_a_sweep_says_the_same_as_on_a_page_of_its_own(three: list[Comparison]) -> None:
    text = to_html(parts_of(*three))
    for comparison in three:
        own = report.to_html(comparison)
        main_part = own[own.index("<main>") + len("<main>") : own.index("</main>")]
        assert re.sub(r"(</?h)([2-5])", "", main_part) in re.sub(r"(</?h)([2-5])", "", text)
    made = [compare(*test_made_of.sweep(tasks=tasks)) for tasks in (["a"], ["a", "b"])]
    text = to_html(parts_of(*three, *made))
    levels = [int(tag[1]) for tag, _ in Page(text).elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_lowering_touches_headings_alone() -> None:
    text = '<header><h2 class="x">a &lt;h2&gt;</h2><h3>b</h3><hr></header>'
    expected = '<header><h3 class="x">a &lt;h2&gt;</h3><h4>b</h4><hr></header>'
    assert lowered(text) == expected  # type: ignore[arg-type]


def test_exports_hold_every_sweep(three: list[Comparison], tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(three))))
    own = [list(csv.DictReader(io.StringIO(report.to_csv(one)))) for one in three]
    assert [row["sweep"] for row in rows] == [
        one.name for one, mine in zip(three, own, strict=True) for _ in mine
    ]
    for row, mine in zip(rows, [row for some in own for row in some], strict=True):
        assert {key: row[key] for key in mine} == mine
        assert all(not row[key] for key in row.keys() - mine.keys() - {"sweep"})
    content = json.loads(to_json(three))
    assert content["sweeps"] == [json.loads(report.to_json(one)) for one in three]
    text = to_markdown(three)
    assert text.count("\n| one |") == 1
    for one in three:
        assert report.to_markdown(one).strip() in text
    page = write(parts_of(*three), tmp_path / "made")
    assert {path.name for path in page.parent.iterdir()} == {
        "report.html", "report.json", "comparison.csv", "comparison.md", "comparison.tex"
    }  # fmt: skip


def test_the_command_takes_several_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name in ("first", "second"):
        write_sweep(tmp_path, name, question=f"What of the {name}?")
    assert main(["report", "first.yaml", "second.yaml", "seeds=1"]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "results" / "reports" / "first+second@seeds=1"
    assert out.endswith("report  results/reports/first+second@seeds=1/report.html\n")
    text = (folder / "report.html").read_text()
    for name in ("first", "second"):
        assert f"What of the {name}?" in out
        assert f"What of the {name}?" in text
    assert "0 of 2 runs are there" in text
    assert main(["report", "first.yaml", "first.yaml"]) == 2
    assert "first.yaml is named twice" in capsys.readouterr().err
    assert main(["report", "first.yaml", "seconds"]) == 2
    assert "there is no sweep 'seconds'" in capsys.readouterr().err
    assert main(["report", "first.yaml", "seeds=1", "--against", "test/acuracy"]) == 2
    assert "--against test/acuracy" in capsys.readouterr().err
    assert main(["report", "first.yaml", "seeds=1", "--against", "test/nll"]) == 0


# In a browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LEAK = "leak.example"
HOSTILE = (
    f'"\'><img src=http://{LEAK}/a onerror="document.body.dataset.hit=1"></title></style></svg>'
    f"<injected-mark></injected-mark><script>document.body.dataset.hit=1</script>"
    f"<style>@import 'https://{LEAK}/b';</style>&lt;injected-mark&gt;"
)
WORDS = {word for kind in (Level, RunStatus, Verdict, Direction) for word in get_args(kind)}
WORDS |= {"decade", "unit"}
OWN = (".google.com", ".googleapis.com", ".gvt1.com")
"""What the browser asks for by itself, for which no page is to blame."""


def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a browser: one of {', '.join(NAMES)}")
    return found


@contextmanager
def proxy() -> Iterator[tuple[int, list[str]]]:
    """A port of this machine that refuses every request, and the hosts that were asked for."""
    server = socket.create_server(("127.0.0.1", 0))
    hosts: list[str] = []

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                client.settimeout(5)
                first = client.recv(4096).decode(errors="replace").partition("\r\n")[0]
                asked = re.match(r"\w+ (?:\w+://)?([^/:\s]+)", first)
                hosts.append(asked[1] if asked else first)
                client.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1], hosts
    finally:
        server.close()


def opened(page: Path) -> tuple[str, set[str]]:
    """The document as a browser understands it, and the hosts it asked on the page's behalf."""
    command = [browser(), "--headless", "--disable-gpu", "--disable-background-networking"]
    command += ["--disable-component-update", "--disable-sync", "--no-first-run"]
    command += ["--proxy-bypass-list=<-loopback>", f"--user-data-dir={page.parent / 'profile'}"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    with proxy() as (port, hosts):
        command.append(f"--proxy-server=http://127.0.0.1:{port}")
        command += ["--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, {host for host in hosts if not f".{host}".endswith(OWN)}


def poisoned(value: Any) -> Any:
    """The same with markup behind every string, keys too, but for words of a closed list."""
    if isinstance(value, str):
        return value if value in WORDS else value + HOSTILE
    if isinstance(value, dict):
        return {poisoned(key): poisoned(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(poisoned(entry) for entry in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return type(value)(**{f.name: poisoned(getattr(value, f.name)) for f in fields})
    return value


def everything() -> list[Comparison]:
    """Comparisons that together have every section of the page."""
    swept = compare(*test_response.sweep())
    made = compare(*test_made_of.sweep(tasks=("digits", "iris")))
    lost = compare(*CASES["hostile"])
    plan = make_plan(margin=0.02)
    held = compare(*with_controls(plan, make_records(plan)), against="val/nll")
    return [swept, made, lost, held, compare(*CASES["tuned"]), compare(*CASES["references"])]


def test_the_browser_is_able_to_tell(tmp_path: Path) -> None:
    """What the next test rules out does happen on a page that lets markup through."""
    page = tmp_path / "bad.html"
    page.write_text(f"<!doctype html><body><p>{HOSTILE}</p></body>")
    document, hosts = opened(page)
    assert hosts == {LEAK}
    assert "data-hit" in document
    assert "<injected-mark>" in document


def test_no_request_leaves_the_page_and_no_name_becomes_markup(tmp_path: Path) -> None:
    comparisons = [poisoned(comparison) for comparison in everything()]
    page = tmp_path / "report.html"
    page.write_text(to_html(parts_of(*comparisons)))
    document, hosts = opened(page)
    assert hosts == set()
    seen = Page(document.partition("<!DOCTYPE html>")[2] or document)
    names = {name for name, _ in seen.elements}
    forbidden = {"injected-mark", "script", "img", "link", "iframe", "object", "embed", "base"}
    assert names.isdisjoint(forbidden)
    assert [name for name, _ in seen.elements].count("style") == 1
    for _, attributes in seen.elements:
        assert "data-hit" not in attributes
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
    shown = " ".join(seen.words)
    for section in (
        "Leaderboard", "Controls", "Paired differences", "Learning curves", "Across tasks",
        "Response to a parameter", "Two metrics against each other", "How each arm was tuned",
        "Cost", "What the loss is made of", "Other metrics", "Runs without a result", "Arms",
        "Provenance",
    ):  # fmt: skip
        assert section in shown
    assert shown.count("<injected-mark>") > 500  # there they are, as text
