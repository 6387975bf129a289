import csv
import dataclasses
import io
import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness import report, tune
from harness.compare import compare
from harness.comparison import Comparison
from harness.plan import Plan
from harness.record import Record
from harness.report import style, tuning
from harness.report.exports import escape_latex, escape_markdown
from harness.report.figures import NARROW, WIDE, forest, positions, response
from harness.report.markup import VOID, element
from harness.report.panels import curve_panels, difference_panels
from harness.report.svg import Axis, fitted, text_width, tick_labels, visible
from harness.report.tuning import APART, best_of, spread_out, trials_csv
from tests.harness.builders import (
    lose,
    make_plan,
    make_records,
    tried,
    tuned_plan,
    with_controls,
)

HOSTILE = '<script>alert("1")</script>&\'`|*_[x](y)$%#{}~^\\ \x1b[31m\x00\u202e\ud800\nname'
ARMS = {
    "ce": {"cross_entropy": {"weight": 1.0}},
    HOSTILE: {"focal": {"gamma": 2.0}},
    **{f"l1={w:g}": {"cross_entropy": {"weight": 1.0}, "l1": {"weight": w}} for w in (0, 0.01, 1)},
    "日本語の損失関数": {"mae": {"weight": 1.0}},
}
GAINS = {HOSTILE: 0.03, "l1=0.01": 0.002, "l1=1": -0.3}


class Page(HTMLParser):
    """Elements of a page, checked for balance, with the text outside style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def hostile(**changes: object) -> tuple[Plan, dict[str, Record]]:
    facts = {"seeds": 7, "question": HOSTILE, "tasks": ("digits", HOSTILE), "command": HOSTILE}
    plan = make_plan(ARMS, **facts | changes)  # type: ignore[arg-type]
    records = lose(plan, make_records(plan, GAINS), HOSTILE, [2], "failed")
    broken = next(run for run, record in records.items() if record.status == "failed")
    return plan, records | {broken: dataclasses.replace(records[broken], error=HOSTILE)}


def cases() -> dict[str, tuple[Plan, dict[str, Record]]]:
    """Sweeps in every state a report may be asked for."""
    plan = make_plan()
    done = make_records(plan, {"focal": 0.02, "mae": -0.06})
    one, orphan, margin = make_plan(seeds=1), make_plan(baseline="none"), make_plan(margin=0.02)
    alone = make_plan({"ce": ARMS["ce"]})
    no_curves = {run: dataclasses.replace(record, curve=[]) for run, record in done.items()}
    many = {f"focal {gamma}": {"focal": {"gamma": float(gamma)}} for gamma in range(14)}
    crowd = make_plan({"ce": ARMS["ce"], **many}, tasks=[f"task {i}" for i in range(12)], seeds=2)
    untaught = {"raw inputs": {"test/accuracy": 0.5, "test/nll": 1.5}, HOSTILE: {"test/nll": 2.0}}
    held = {run: dataclasses.replace(r, references=untaught) for run, r in done.items()}
    huge = {
        run: dataclasses.replace(record, metrics={"test/accuracy": 1e30 * (1 + record.seed)})
        for run, record in done.items()
        if record.config["loss"] == plan.cells[2].config["loss"]
    }
    return {
        "done": (plan, done),
        "hostile": hostile(),
        "nothing": (plan, {}),
        "pending": (plan, lose(plan, done, "mae", [1], None)),
        "lost": (plan, lose(plan, done, "mae", plan.seeds, "diverged")),
        "no baseline run": (plan, lose(plan, done, "ce", plan.seeds, "failed")),
        "nothing left": (plan, {r: dataclasses.replace(done[r], status="failed") for r in done}),
        "one seed": (one, make_records(one)),
        "no baseline": (orphan, make_records(orphan)),
        "margin": (margin, make_records(margin)),
        "alone": (alone, make_records(alone)),
        "no curves": (plan, no_curves),
        "crowd": (crowd, make_records(crowd)),
        "huge": (plan, done | huge),
        "references": (plan, held),
        "controls": with_controls(plan, done),
        "violated": with_controls(plan, done, {"identity": 1e-9, "constant": 0.2}),
        "controls without a result": (with_controls(plan, done)[0], done),
        "tuned": tuned(),
        "tuned anew": tuned(number=2, anew=True),
        "tuning": (tuned_plan(), {}),
        "all trials failed": tuned(failed=True),
        "hostile tuned": tuned(arms=ARMS, number=9, tasks=("digits", HOSTILE)),
    }


def tuned(*, failed: bool = False, **changes: Any) -> tuple[Plan, dict[str, Record]]:
    """A sweep with all its trials and runs done; trials get better by their number."""
    plan = tuned_plan(seeds=3, **changes)
    assert plan.tuning
    values = {
        (trial.arm, trial.number, seed): None if failed else 0.5 + 0.01 * trial.number
        for trial in plan.tuning.trials
        for seed in trial.tried
    }
    trials = tried(plan, values)
    plan = tune.advance(plan, trials)
    return plan, trials | make_records(plan)


CASES = cases()
ARMS_OF_DONE = ("focal", "ce", "mae")


@pytest.fixture(params=CASES, scope="module")
def comparison(request: pytest.FixtureRequest) -> Comparison:
    return compare(*CASES[request.param])


@pytest.fixture(scope="module")
def done() -> Comparison:
    return compare(*CASES["done"])


def test_a_page_is_balanced_and_refers_to_nothing_outside(comparison: Comparison) -> None:
    text = report.to_html(comparison)
    page = Page(text)
    names = {name for name, _ in page.elements}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "a"})
    attributes = {key for _, given in page.elements for key in given}
    assert attributes.isdisjoint({"src", "href", "xlink:href", "srcset", "action", "http-equiv"})
    assert not [key for key in attributes if key.startswith("on")]
    assert "http://" not in text
    assert "https://" not in text
    (sheet,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    assert "url(" not in sheet
    assert "@import" not in sheet


def test_every_figure_has_title_description_and_a_largest_width(comparison: Comparison) -> None:
    text = report.to_html(comparison)
    figures = re.findall("<svg .*?</svg>", text, re.DOTALL)
    for figure in figures:
        head = r'<svg [^>]*style="max-width:\d+px"[^>]*><title>[^<]+</title><desc>'
        assert re.match(head, figure)
        assert "nan" not in re.sub(
            "<title>.*?</title>|<desc>.*?</desc>|<text.*?</text>", "", figure
        )
    assert len(figures) == len(Page(text).all("svg"))


def test_no_rendering_prints_a_negative_zero(comparison: Comparison) -> None:
    texts = [report.terminal(comparison), report.to_markdown(comparison)]
    texts += [report.to_latex(comparison), " ".join(Page(report.to_html(comparison)).words)]
    for text in texts:
        assert not re.search(r"-0\.?0*(?![\d.])(?!\w)", text)


def test_tables_have_at_most_eleven_columns(comparison: Comparison) -> None:
    for row in re.findall("<tr>(.*?)</tr>", report.to_html(comparison), re.DOTALL):
        assert len(re.findall("<t[hd][ >]", row)) <= 11


def test_nothing_hostile_gets_through() -> None:
    comparison = compare(*CASES["hostile"])
    text = report.to_html(comparison)
    shown = style.clean(HOSTILE)
    page = Page(text)
    assert any(shown in style.clean(word) for word in page.words)
    assert "alert(" not in re.sub("&lt;script&gt;alert", "", text)
    renderings = [text, report.terminal(comparison), report.to_markdown(comparison)]
    for rendering in [*renderings, report.to_latex(comparison)]:
        assert set(rendering.replace("\n", "")).isdisjoint("\x1b\x00\u202e\ud800")
    assert "<script>" not in report.to_markdown(comparison)


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_fits_the_width_and_aligns(comparison: Comparison, width: int) -> None:
    text = report.terminal(comparison, width=width)
    assert max(style.columns(line) for line in text.splitlines()) <= width
    assert "\x1b" not in text
    assert text.endswith("\n")
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_terminal_shows_the_table(done: Comparison) -> None:
    lines = report.terminal(done).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith(" arm "))
    rows = lines[head + 1 : head + 4]
    assert [row.split()[0] for row in rows] == ["*focal", "ce", "mae"]
    assert [row.split()[-1] for row in rows] == ["better", "baseline", "worse"]
    start = lines[head].index("verdict")
    assert [row[start:].split()[0] for row in rows] == ["better", "baseline", "worse"]
    focal = done.tasks[0].arms[0]
    assert focal.contrast is not None
    assert f"{focal.mean:.4f}  {focal.contrast.mean:+.4f}" in rows[0]
    assert "\x1b[32m" in report.terminal(done, color=True)


def test_what_has_learnt_nothing_stands_below_the_arms() -> None:
    comparison = compare(*CASES["references"])
    (task,) = comparison.tasks
    spread = task.references["raw inputs"]["test/accuracy"]
    assert (spread.n, spread.mean, spread.sd) == (10, 0.5, 0)
    rows = report.terminal(comparison).splitlines()
    places = {row.split()[0].strip("*"): i for i, row in enumerate(rows) if row}
    assert places["raw"] == max(places[arm] for arm in ARMS_OF_DONE) + 1
    assert rows[places["raw"]].split()[2:] == ["0.5000", "has", "learnt", "nothing"]
    assert "| raw inputs | 10 | 0.5000 | 0.0000 | – | – | – |" in report.to_markdown(comparison)
    assert "raw inputs & 10 & 0.5000 & 0.0000 & -- & -- & -- &" in report.to_latex(comparison)
    for row in csv.DictReader(io.StringIO(report.to_csv(comparison))):
        assert (row["raw inputs.mean"], row["raw inputs.sd"]) == ("0.5", "0.0")
    words = Page(report.to_html(comparison)).words
    assert words.count("raw inputs") == 2  # below the leaderboard and among the other metrics
    without = report.terminal(compare(*CASES["done"]))
    assert "learnt nothing" not in without


def test_references_are_of_the_baselines_runs_where_it_has_them() -> None:
    plan, records = CASES["done"]
    for run, record in records.items():
        of = {"ce": 0.1, "focal": 0.2, "mae": 0.3}[next(c.arm for c in plan.cells if run in
              c.runs.values())]  # fmt: skip
        known = {"untrained": {plan.metric: of}}
        records = {**records, run: dataclasses.replace(record, references=known)}
    assert compare(plan, records).tasks[0].references["untrained"][plan.metric].mean == (
        pytest.approx(0.1)
    )
    missing = lose(plan, records, "ce", plan.seeds[:5], "failed")
    spread = compare(plan, missing).tasks[0].references["untrained"][plan.metric]
    assert spread.n == 10
    assert spread.mean == pytest.approx((5 * 0.1 + 5 * 0.3) / 10)


def test_terminal_notes_come_with_their_level() -> None:
    text = report.terminal(compare(*CASES["no baseline"]))
    assert "ALARM the baseline none is no arm here" in text


def test_csv_reads_back_to_the_same_numbers(comparison: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(report.to_csv(comparison))))
    results = list(comparison.results())
    assert list(rows[0])[:2] == ["task", "arm"]
    arms = [row for row in rows if not row.get("control")]
    assert len(arms) == len(results)
    for row, (task, result) in zip(arms, results, strict=True):
        texts = (task.task, result.arm, result.text)
        shown = [style.printable(text.replace("\n", " ")) for text in texts]
        assert [row["task"], row["arm"], row["text"]] == shown
        assert (row["mean"] and float(row["mean"])) == (result.mean if result.mean else "")
        if result.contrast:
            assert float(row["difference"]) == result.contrast.mean
            for key in ("low", "high", "p", "p_holm", "effect_size"):
                value = getattr(result.contrast, key)
                assert row[key] == "" if value is None else float(row[key]) == value
        for name, spread in result.others.items():
            expected = "" if spread.mean is None else repr(spread.mean)
            assert row[f"{name}.mean"] == expected


def test_json_holds_everything(comparison: Comparison) -> None:
    content = json.loads(report.to_json(comparison))
    assert content["version"] == 1
    assert {field.name for field in dataclasses.fields(Comparison)} == set(content)
    first = content["tasks"][0]["arms"][0]
    assert first["runs"] == [dataclasses.asdict(r) for r in comparison.tasks[0].arms[0].runs]


def test_markdown_has_one_aligned_table_per_task_and_bold_best(done: Comparison) -> None:
    text = report.to_markdown(done)
    board, others = (
        [line.split(" | ") for line in block.splitlines()]
        for block in text.split("\n\n")
        if block.startswith("|")
    )
    assert {len(row) for row in [board[0], *board[2:]]} == {8}
    assert board[2][0] == "| **focal**"
    assert board[3][0] == "| ce"
    assert {len(row) for row in [others[0], *others[2:]]} == {4}


def test_markdown_shows_hostile_text_as_it_is() -> None:
    assert escape_markdown("a|b_c*<d>") == r"a\|b\_c\*&lt;d&gt;"
    text = report.to_markdown(compare(*CASES["hostile"]))
    for line in text.splitlines():
        if line.startswith("| ") and "script" in line and "metric" not in line:
            # a task's arms, or all tasks together
            assert len(re.findall(r"(?<!\\)\|", line)) in (9, 7)


@pytest.mark.parametrize("char", list("&%$#_{}"))
def test_latex_escapes_one_character_with_a_backslash(char: str) -> None:
    assert escape_latex(f"a{char}b") == f"a\\{char}b"


def test_latex_is_balanced_and_escaped(comparison: Comparison) -> None:
    text = report.to_latex(comparison)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    tables = re.findall(r"\\begin{tabular}(.*?)\\end{tabular}", body, re.DOTALL)
    assert len(tables) == len(comparison.tasks) + (comparison.tuning is not None)
    assert body.count("tabular}") == 2 * len(tables)
    unescaped = re.sub(r"\\[\\&%$#_{}]", "", body)
    assert unescaped.count("{") == unescaped.count("}")
    assert unescaped.count("$") % 2 == 0
    assert not set("%#~") & set(unescaped)
    for i, table in enumerate(tables):
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        (columns,) = {re.sub(r"\\&", "", row).count("&") for row in rows}
        assert columns == 7 or i == len(comparison.tasks)


def test_the_page_tells_the_story_in_order(done: Comparison) -> None:
    text = report.to_html(done)
    words = "\n".join(Page(text).words)
    parts = [done.question, done.sentence, "Leaderboard", "Paired differences", "Learning curves"]
    parts += ["Cost", "Other metrics", "Arms", "Provenance", done.command]
    places = [words.rindex(part) if part == "Arms" else words.index(part) for part in parts[:-3]]
    assert places == sorted(places)
    assert words.index("Provenance") < words.rindex(done.command)
    for record in CASES["done"][1].values():
        assert f"{record.seed}: {record.id}" in words
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_failed_runs_are_listed_with_their_errors() -> None:
    plan, records = CASES["done"]
    text = report.to_html(compare(plan, lose(plan, records, "mae", [4], "failed")))
    words = Page(text).words
    assert "out of luck" in words
    assert "Runs without a result" in words


def test_an_alarm_stands_above_the_table() -> None:
    text = report.to_html(compare(*CASES["no baseline"]))
    assert 0 < text.index('class="note alarm"') < text.index("Leaderboard")


def test_all_files_are_written_and_nothing_else(tmp_path: Path) -> None:
    page = report.write_report(*CASES["hostile"], tmp_path / "sweep")
    assert page == tmp_path / "sweep" / "report.html"
    names = {path.name for path in page.parent.iterdir()}
    assert names == {
        "report.html", "report.json", "comparison.csv", "comparison.md", "comparison.tex"
    }  # fmt: skip
    before = {path: path.read_bytes() for path in page.parent.iterdir()}
    report.write_report(*CASES["hostile"], page.parent)
    assert {path: path.read_bytes() for path in page.parent.iterdir()} == before


def test_tuned_arms_show_their_choice_and_every_trial() -> None:
    plan, records = CASES["tuned"]
    comparison = compare(plan, records)
    assert comparison.tuning
    shown = report.terminal(comparison)
    page = " ".join(Page(report.to_html(comparison)).words)
    markdown, latex = report.to_markdown(comparison), report.to_latex(comparison)
    for arm in comparison.tuning.arms:
        assert [trial.number for trial in arm.trials if trial.number in arm.chosen] == [2]
        (line,) = [line for line in shown.splitlines() if re.match(rf" {arm.arm} .*lr=", line)]
        assert line.split()[1:4] == [f"{value:.4f}" for value in arm.best_of]  # type: ignore[str-format]
        assert line.split()[-1] == "lr=0.010000000000000002"
        for trial in arm.trials:
            assert all(run in page for run in trial.ids)
            assert f"optimizer.lr={trial.settings['optimizer.lr']}" in page
        for text in (markdown, latex):
            assert f"{arm.best_of[-1]:.4f}" in text
    assert page.count("✓ chosen") == len(plan.arms)
    assert page.index("How each arm was tuned") > page.index("Leaderboard")
    rows = list(csv.DictReader(io.StringIO(trials_csv(comparison.tuning))))
    assert len(rows) == 3 * 3
    assert sum(int(row["chosen"]) for row in rows) == 3
    found = [float(row["val/accuracy"]) for row in rows]
    assert found == pytest.approx([0.5, 0.51, 0.52] * 3)


def test_trials_that_wait_are_not_called_failed() -> None:
    for case, failed in (("tuning", "0"), ("all trials failed", "3")):
        comparison = compare(*CASES[case])
        assert comparison.tuning
        column = tuning.head(comparison.tuning).index("failed")
        assert {row[column] for row in tuning.rows(comparison.tuning)} == {failed}


@pytest.mark.parametrize(
    ("case", "said", "banner"),
    [
        ("tuned", "at the chosen settings, not that of tuning anew", "not of the whole pipeline"),
        ("tuned anew", "and of tuning anew for each", "are of the whole pipeline"),
        ("done", "not that of tuning anew", "one untuned learning rate"),
    ],
)
def test_the_banner_says_what_the_interval_is_of(case: str, said: str, banner: str) -> None:
    comparison = compare(*CASES[case])
    for text in (report.terminal(comparison), report.to_html(comparison)):
        flowing = " ".join(text.split())
        assert said in flowing
        assert banner in flowing
    page = report.to_html(comparison)
    assert page.index(banner) < page.index("Leaderboard")
    assert ("How each arm was tuned" in page) == (case != "done")


def test_names_at_the_ends_of_curves_keep_apart() -> None:
    heights = [50.0, 51.0, 52.0, 10.0, 199.0, 200.0]
    placed = spread_out(heights, 200)
    ordered = sorted(placed)
    assert all(b - a >= APART - 1e-9 for a, b in itertools.pairwise(ordered))
    assert max(placed) <= 200
    order = sorted(range(6), key=lambda i: heights[i])
    assert [placed[i] for i in order] == ordered  # none overtakes another


def test_controls_stand_apart_with_what_they_told() -> None:
    for case, told in (("controls", "identical, as it must be"), ("violated", "differs from ce")):
        comparison = compare(*CASES[case])
        shown = report.terminal(comparison)
        lines = shown.splitlines()
        order = ["null", "identity", "scale", "constant"]
        start = lines.index(" controls")
        assert [x.split()[0] for x in lines[start + 1 :] if x and x[:2] != "  "][:4] == order
        assert any(line.startswith(" mae") for line in lines[:start])
        page = report.to_html(comparison)
        for text in (shown, page, report.to_markdown(comparison), report.to_latex(comparison)):
            assert told in " ".join(text.split())
        rows = list(csv.DictReader(io.StringIO(report.to_csv(comparison))))
        assert [row["control"] for row in rows if row["control"]] == order
        alarms = page[: page.index("Leaderboard")].count('class="note alarm"')
        assert alarms == (2 if case == "violated" else 0)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_forest_has_a_dot_or_an_arrow_with_a_number_for_every_seed(width: int) -> None:
    plan = make_plan(ARMS, seeds=7)
    comparison = compare(plan, make_records(plan, GAINS))
    drawing = forest(comparison, comparison.tasks[0], width)
    dots = len(re.findall("<circle [^>]*seed", drawing))
    assert dots == 4 * 7  # the hostile arm and l1=1 are far off
    assert drawing.count("7 seeds to ") + drawing.count("6 seeds to ") >= 1
    xs = [float(x) for x in re.findall(r'c?x[12]?="([-\d.]+)"', drawing)]
    assert min(xs) >= 0
    assert max(xs) <= width


@pytest.mark.parametrize("case", ["done", "hostile", "crowd", "huge", "tuned", "hostile tuned"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_labels_do_not_collide(case: str, width: int) -> None:
    comparison = compare(*CASES[case])
    for task in comparison.tasks:
        drawings = [forest(comparison, task, width)]
        drawings += [response(comparison, task, given, width) for given in task.responses]
        drawings += difference_panels(comparison, task) + curve_panels(comparison, task)
        result = comparison.tuning
        if result:
            arms = [arm for arm in result.arms if arm.task == task.task]
            drawings.append(best_of(comparison, result, arms, width))
        for drawing in drawings:
            assert _collisions(drawing) == []


def _collisions(drawing: str) -> list[tuple[str, str]]:
    """Pairs of labels whose boxes overlap, by the estimated width of their text."""
    boxes = []
    for given, inner in re.findall("<text ([^>]*)>(.*?)</text>", drawing):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', given))
        words = re.sub("<title>.*?</title>", "", inner)
        words = words.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')
        words = words.replace("&#x27;", "'").replace("&amp;", "&")
        wide = 0.9 * text_width(words)  # the estimate is generous
        x, y = float(attributes["x"]), float(attributes["y"])
        left = x - {"end": wide, "middle": wide / 2}.get(attributes.get("text-anchor", ""), 0)
        boxes.append((left, left + wide, y - 9, y, words))
    return [
        (a[4], b[4])
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
    ]


def test_a_curve_off_the_scale_ends_in_an_arrow_with_its_number() -> None:
    comparison = compare(*CASES["hostile"])
    task = comparison.tasks[0]
    arms = [result.arm for result in task.arms if result.contrast and result.curve]
    panel = difference_panels(comparison, task)[arms.index("l1=1")]
    result = task.arm("l1=1")
    assert result is not None
    farthest = min(p.difference for p in result.curve if p.difference is not None)
    assert style.number(farthest, style.decimals([farthest])) in panel


def test_element_escapes_all_but_its_own_markup() -> None:
    inner = element("b", "<&>")
    assert element("p", inner, "<i>", title="\"'<\x1b") == (
        '<p title="&quot;&#x27;&lt;�"><b>&lt;&amp;&gt;</b>&lt;i&gt;</p>'
    )


def test_visible_leaves_out_arms_that_are_far_off() -> None:
    near = [[-0.01, 0.01], [0.0, 0.02], [0.01, 0.03]]
    low, high = visible([*near, [0.5, 0.9]], [0.06, 5.0])
    assert low < -0.01
    assert 0.06 < high < 0.5
    low, high = visible([[0.0, 0.0]])
    assert low < 0 < high
    assert visible([])[0] < 0


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1.0, 37.0, 1e9])
@pytest.mark.parametrize("most", [3, 4, 5])
def test_ticks_are_few_and_told_apart(scale: float, most: int) -> None:
    axis = Axis(-0.31 * scale, 1.07 * scale, 0, 100)
    ticks = axis.ticks(most)
    assert 1 <= len(ticks) <= most
    assert all(axis.low <= tick <= axis.high for tick in ticks)
    names = tick_labels(ticks, sign=True)
    assert len(set(names)) == len(names)


def test_an_axis_keeps_to_its_ends() -> None:
    axis = Axis(0.1, 10, 50, 150, log=True)
    assert [axis(value) for value in (0.1, 1, 10, 1e6, 1e-9)] == [50, 100, 150, 150, 50]
    assert [axis.side(value) for value in (0.01, 1, 100)] == [-1, 0, 1]


def test_positions_are_in_decades_where_values_span_them() -> None:
    assert positions([1, 2, 3], 0, 100) == [0, 50, 100]
    assert positions([0.01, 0.1, 1], 0, 100) == pytest.approx([0, 50, 100])
    assert positions([0, 0.01, 1], 0, 90) == pytest.approx([0, 30, 90])
    assert positions([-1, 0, 100], 0, 101) == pytest.approx([0, 1, 101])


def test_fitted_text_keeps_to_its_width() -> None:
    assert fitted("short", 100) == "short"
    for text in ("x" * 50, "損失" * 20):
        cut = fitted(text, 100)
        assert "…" in cut
        assert cut[0] == text[0]
        assert cut[-1] == text[-1]
        assert text_width(cut) <= 100


@pytest.mark.parametrize(
    ("values", "widths", "expected"),
    [
        ([0.91, 0.84], [0.0024], 4),
        ([54.8, 43.5], [0.5], 2),
        ([54.8, 43.5], [], 2),
        ([1234.0], [], 0),
        ([0.00123], [], 6),
        ([0.0], [], 3),
        ([0.9], [1e-9], 6),
    ],
)
def test_decimals_follow_the_uncertainty(
    values: list[float], widths: list[float], expected: int
) -> None:
    assert style.decimals(values, widths) == expected


@pytest.mark.parametrize("value", [-1e-9, -0.0, -0.00004, 0.0])
def test_zero_has_no_minus(value: float) -> None:
    assert style.number(value, 4) == "0.0000"
    assert style.number(value, 4, sign=True) == "+0.0000"


@pytest.mark.parametrize("p", [0.0499, 0.04999, 0.0501, 0.05, 0.0009, 0.001, 1.0])
def test_a_printed_p_stays_on_its_side_of_five_percent(p: float) -> None:
    shown = style.p_value(p)
    value = float(shown.removeprefix("<"))
    assert (value <= 0.05) == (p <= 0.05)
    assert math.isclose(value, p, abs_tol=1e-3)
