"""Whether anything in the files of a report would act on whoever opens them."""

import csv
import html.parser
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

COMMANDS = "begin end toprule midrule bottomrule textbf textbackslash textasciitilde"
COMMANDS += " textasciicircum textless textgreater textquotedbl pm dagger"
"""Of LaTeX, what our tables are made of."""


def faults(folder: Path) -> list[str]:
    """What is wrong with the files of a report, by their names."""
    checks = {
        ".html": _html, ".md": _markdown, ".tex": _latex, ".csv": _csv, ".json": _json,
    }  # fmt: skip
    found = []
    for path in sorted(folder.glob("*.*")):
        if path.name.startswith("plan.json"):
            continue
        text = path.read_text(encoding="utf-8")
        odd = {c for c in text if not (c.isprintable() or c == "\n")}
        if odd and path.suffix != ".json":
            found.append(f"{path.name}: {odd!r}")
        found += [f"{path.name}: {fault[:200]}" for fault in checks[path.suffix](text)]
    return found


class _Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "a", "iframe", "object", "embed", "link", "form", "base", "use"):
            self.faults.append(f"an element {tag}")
        for key, value in attrs:
            drawn = tag == "img" and (value or "").startswith("data:image/png;base64,")
            if key.startswith("on") or (key in ("href", "src", "action") and not drawn):
                self.faults.append(f"{key}={value}")


def _html(text: str) -> Iterator[str]:
    yield from _Page(text).faults
    if text.count("<style>") != 1 or text.count("</style>") != 1:
        yield "a style within the style"


def _markdown(text: str) -> Iterator[str]:
    plain = re.sub(r"\\.|</?code>", "", text)
    yield from re.findall(r"\[[^\]]*\]\(.*|<[^ ].*|.*`.*", plain)


def _latex(text: str) -> Iterator[str]:
    body = "\n".join(line for line in text.split("\n") if not line.startswith("%"))
    yield from {*re.findall(r"\\([a-zA-Z]+)", body)} - {*COMMANDS.split()}
    if re.search(r"(?<!\\)[%#]|\^\^", body):
        yield "a character with a meaning"


def _csv(text: str) -> Iterator[str]:
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            if cell.lstrip()[:1] in ("=", "+", "-", "@") and cell:
                try:
                    float(cell)
                except ValueError:
                    yield f"the formula {cell}"


def _json(text: str) -> Iterator[str]:
    try:
        json.loads(text, parse_constant=lambda word: float("no"))
    except ValueError as error:
        yield str(error)
