"""`lossbench atlas`: the table, the page and its numbers."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

from harness.atlas import FILES, page, text
from harness.cli import main
from harness.report import style
from losses.core import REGISTRY

PLUGIN = """
from torch import Tensor
from losses import loss

@loss({name!r}, target="real", source="x")
def own(prediction: Tensor, target: Tensor) -> Tensor:
    r"{name}"
    return {body}
"""
HOSTILE = "evil <script>alert(1)</script> | `x` \x1b[31m\u202e"
VOID = {"meta", "br"}


@pytest.fixture
def plugin(tmp_path):
    """Write a plug-in with one loss; what was registered is forgotten at the end."""
    before = set(REGISTRY)

    def write(name, body="(prediction - target) ** 4"):
        path = tmp_path / f"plugin_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(PLUGIN.format(name=name, body=body))
        return str(path)

    yield write
    for name in set(REGISTRY) - before:
        del REGISTRY[name]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The atlas of a few losses, and what the terminal showed."""
    folder = tmp_path_factory.mktemp("atlas")
    assert main(["atlas", "mse", "unitbox", "poisson_nll", "focal", "--out", str(folder)]) == 0
    return {name: (folder / name).read_text(encoding="utf-8") for name in FILES}


class Checker(HTMLParser):
    """Tags that close in order, ids that are unique, links that lead somewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.attributes = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for key, value in attrs if key == "id"]
        self.links += [value for key, value in attrs if key == "href"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(html):
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert all(link[0] == "#" and link[1:] in checker.ids for link in checker.links)
    return checker


def test_the_page_is_whole_and_asks_for_nothing(made):
    checker = checked(made["atlas.html"])
    assert {tag for tag, *_ in checker.attributes}.isdisjoint({"script", "link", "img", "iframe"})
    assert not re.search(r"https?:|url\(|@import|src=", made["atlas.html"])
    assert not any(key.startswith("on") for _, key, _ in checker.attributes)
    assert made["atlas.html"].count("<svg") == 4


def test_the_page_holds_the_notes_table_and_a_card_per_loss(made):
    html = made["atlas.html"]
    assert "36 of 48 entries agree" in html
    assert html.count("≠</span>") == 12
    assert [name for name in ("mse", "unitbox", "poisson_nll", "focal") if name in html]
    assert html.count('<article class="card"') == 4


def test_json_has_every_number(made):
    content = json.loads(made["atlas.json"])
    assert content["version"] == text.VERSION
    by_name = {portrait["name"]: portrait for portrait in content["losses"]}
    assert set(by_name) == {"mse", "unitbox", "poisson_nll", "focal"}
    assert by_name["mse"]["findings"]["scale"]["number"] == pytest.approx(2)
    assert by_name["poisson_nll"]["findings"]["bounded"]["number"] is None  # infinite
    assert {len(row) for row in by_name["mse"]["curve"].values()} == {121}
    assert sum(entry["verdict"] == "disagrees" for entry in content["notes"]) == 12
    assert set(content["properties"]) == set(by_name["mse"]["findings"])


def test_markdown_has_both_tables(made):
    assert "said ✘, found ✘ (×1000): agrees" in made["atlas.md"]
    rows = [row for row in made["atlas.md"].splitlines() if row.startswith("| unitbox")]
    assert len(rows) == 1
    assert rows[0].count("|") == 12


def test_the_terminal_shows_groups_within_100_columns(tmp_path, capsys, plugin):
    path = plugin("a_name_that_goes_on_" * 5)
    assert main(["atlas", path, "--out", str(tmp_path / "out")]) == 0
    assert main(["atlas", "mse", "bce", "triplet", "--out", str(tmp_path / "out")]) == 0
    shown, said = capsys.readouterr()
    lines = [line for line in shown.splitlines() if not line.startswith("atlas  ")]
    assert max(map(style.columns, lines)) <= text.WIDTH
    for heading in ("Real numbers", "Yes or no", "Named fields"):
        assert any(line.startswith(heading) for line in lines)
    assert "measured 3 of 3 losses" in said


def test_the_terminal_shows_the_notes_table_with_all_losses(capsys):
    from losses.atlas import claims, measure

    shown = text.terminal([measure("mse")], claims.entries())
    assert max(map(style.columns, shown.splitlines())) <= text.WIDTH
    assert shown.count("≠") == 13  # one of them in the heading


def test_own_losses_by_file_or_plugin_and_hostile_names(tmp_path, capsys, plugin):
    evil = plugin(HOSTILE)
    out = tmp_path / "out"
    assert main(["atlas", evil, "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "\u202e" not in shown.out + shown.err
    html = (out / "atlas.html").read_text(encoding="utf-8")
    checked(html)
    assert "<script" not in html
    assert "evil &lt;script&gt;" in html
    assert "\x1b" not in html
    markdown = (out / "atlas.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "\\| \\`x\\`" in markdown
    quartic = plugin("own_quartic")
    assert main(["atlas", f"plugins=[{quartic}]", "own_quartic", "--out", str(out)]) == 0
    content = json.loads((out / "atlas.json").read_text(encoding="utf-8"))
    assert [portrait["name"] for portrait in content["losses"]] == ["own_quartic"]


def test_a_loss_that_cannot_be_measured_is_named_and_the_rest_is_written(tmp_path, capsys, plugin):
    path = plugin("own_broken", "1 / 0")
    out = tmp_path / "out"
    code = main(["atlas", "mse", path, "--out", str(out)])
    assert code == 1
    assert "own_broken cannot be measured: ZeroDivisionError" in capsys.readouterr().err
    assert "mse" in (out / "atlas.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_somebody_elses_file_stays(tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main(["atlas", "mse", "--out", str(tmp_path)]) == 2
    assert "was not made by this command" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_link_or_a_folder_is_not_replaced(tmp_path, capsys):
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "atlas.html").symlink_to(tmp_path / "elsewhere")
    assert main(["atlas", "mse", "--out", str(tmp_path)]) == 2
    (tmp_path / "elsewhere").rename(tmp_path / "gone")  # now the link leads nowhere
    assert main(["atlas", "mse", "--out", str(tmp_path)]) == 2
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    (tmp_path / "atlas.html").unlink()
    (tmp_path / "atlas.html").mkdir()
    assert main(["atlas", "mse", "--out", str(tmp_path)]) == 2
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["focall"], "did you mean 'focal'"),
        (["seed=1"], "atlas takes names and plugins=[FILE.py], got seed=1"),
        (["nowhere.py"], "there is no file"),
        (["--force"], "atlas has no option --force"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(tmp_path, capsys, words, message):
    out = tmp_path / "out"
    assert main(["atlas", *words, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_what_is_not_finite_leaves_a_gap():
    from losses.atlas import measure

    curve = [0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0, float("inf"), 1.0, 0.0], [float("nan")] * 5
    drawn = page.picture(dataclasses.replace(measure("mse"), curve=curve))
    assert drawn.count('class="curve"') == 2
    assert "curve slope" not in drawn
    assert not re.search(r"\b(nan|inf)\b", re.sub("<desc>.*</desc>", "", drawn))


def test_a_drawn_range_holds_zero_and_leaves_far_spikes_out():
    low, high = page.visible([*([1.0] * 80), 1e9, float("inf"), float("nan")])
    assert low < 0 < 1 < high < 2
    low, high = page.visible([0.0] * 5)
    assert low < 0 < high
