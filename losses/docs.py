"""What is written down elsewhere about losses, penalties and projections, made from their words.

`python -m losses.docs` prints the table of losses/README.md; `python -m losses.docs --write` puts
it there, the notes' table against measurement and the page of errata likewise, and what
losses/__init__.py imports of every family.
"""

import argparse
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from losses import errata
from losses.arguments import Parameter, describe
from losses.atlas import claims
from losses.core import REGISTRY, Loss
from losses.penalty import PENALTIES, Penalty
from losses.projection import PROJECTIONS, ProjectionRule

Row = tuple[str, ...]
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table of losses: begin -->", "<!-- table of losses: end -->"
ERRATA_BEGIN, ERRATA_END = "<!-- errata: begin -->", "<!-- errata: end -->"
ATLAS_BEGIN, ATLAS_END = "<!-- atlas: begin -->", "<!-- atlas: end -->"
PUBLIC = Path(__file__).with_name("__init__.py")
WIDTH = 100  # of a line, as in pyproject.toml
SPLIT = "# isort: split\n# What follows is written by `python -m losses.docs --write`.\n"
LOSS_HEADER = ("name", "formula", "parameters", "target", "source", "declared")
PENALTY_HEADER = ("name", "formula", "parameters", "source")


def table() -> str:
    """Markdown: a table per family with its own words: losses, then penalties, then projections."""
    return "\n\n".join(
        [
            *_tables(LOSS_HEADER, [(e.function, _loss_row(e)) for e in REGISTRY.values()]),
            *_tables(PENALTY_HEADER, [(e.function, _penalty_row(e)) for e in PENALTIES.values()]),
            *_tables(PENALTY_HEADER, [(e.function, _penalty_row(e)) for e in PROJECTIONS.values()]),
        ]
    )


def with_table(text: str) -> str:
    """The text with what stands between its markers replaced: losses, the notes' table, errata.

    Raises:
        ValueError: a marker is missing.
    """
    text = _between(text, BEGIN, END, table())
    text = _between(text, ATLAS_BEGIN, ATLAS_END, claims.table())
    return _between(text, ERRATA_BEGIN, ERRATA_END, errata.table())


def with_exports(text: str) -> str:
    """The text of losses/__init__.py with an import of everything registered after its marker."""
    before, marker, _ = text.partition(SPLIT)
    if not marker:
        raise ValueError(f"{PUBLIC.name} needs the lines {SPLIT!r}")
    return before + marker + "\n".join(_imports())


def _imports() -> Iterator[str]:
    """One import of each family, as the formatter writes it."""
    for file in sorted(PUBLIC.parent.glob("*.py")):
        if "\n@" in file.read_text(encoding="utf-8"):  # a new family registers when imported
            importlib.import_module(f"losses.{file.stem}")
    functions = [e.function for known in (REGISTRY, PENALTIES, PROJECTIONS) for e in known.values()]
    own = [f for f in functions if f.__module__.startswith("losses.")]  # not a plug-in's
    for module in sorted({f.__module__ for f in own}):
        names = sorted(f.__name__ for f in own if f.__module__ == module)
        line = f"from {module} import {', '.join(names)}"
        lines = [f"from {module} import (", *(f"    {name}," for name in names), ")"]
        yield line if len(line) <= WIDTH else "\n".join(lines)
    yield ""


def _between(text: str, begin: str, end: str, made: str) -> str:
    if begin not in text or end not in text:
        raise ValueError(f"the README needs the lines {begin} and {end}")
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def _tables(header: Row, rows: list[tuple[Callable[..., Any], Row]]) -> Iterator[str]:
    """One table per module, modules and rows in order of their names."""
    for module in sorted({function.__module__ for function, _ in rows}):
        own = sorted(row for function, row in rows if function.__module__ == module)
        lines = [header, ("---",) * len(header), *own]
        yield "\n".join([_words(module), "", *("| " + " | ".join(row) + " |" for row in lines)])


def _words(module: str) -> str:
    """A module's docstring as Markdown: its first line is the heading."""
    text = inspect.getdoc(sys.modules[module]) or module
    text = re.sub(r":math:(`[^`]*`)", r"$\1$", text)
    title, _, rest = re.sub(r":\w+:`", "`", text).partition("\n")
    return f"### {title.rstrip('.')}\n{rest}".strip()


def _loss_row(entry: Loss) -> Row:
    return (
        f"`{entry.name}`",
        _formula(entry.function),
        _parameters(entry.parameters),
        ", ".join(entry.inputs) if entry.target == "fields" else entry.target,
        entry.source,
        "; ".join(_declared(entry)),
    )


def _penalty_row(entry: Penalty | ProjectionRule) -> Row:
    parameters = _parameters(entry.parameters)
    return f"`{entry.name}`", _formula(entry.function), parameters, entry.source


def _declared(entry: Loss) -> list[str]:
    """What a loss declares beyond the ordinary, in words."""
    learnt = [n for n in entry.own if not entry.fields.get(n, "").startswith("int")]
    said = [
        (entry.saturating, f"saturates: {entry.saturating}"),
        (entry.unbounded, f"unbounded: {entry.unbounded}"),
        (entry.nonmonotone, f"not monotone: {entry.nonmonotone}"),
        (entry.detached, f"carries no gradient: {entry.detached}"),
        (not entry.additive, "couples the items of a batch"),
        (entry.finish, "mean only"),
        (entry.heads > 1, f"{entry.heads} outputs per target"),
        (entry.within, f"targets {entry.within}"),
        (entry.output_within, f"outputs {entry.output_within}"),
        (entry.limits, ", ".join(f"{name} {bounds}" for name, bounds in entry.limits.items())),
        (learnt, f"learns {', '.join(learnt)}"),
        (entry.opaque, f"breaks the graph: {entry.opaque}"),
        (entry.minimum is None, "no fixed minimum"),
        (entry.minimum, f"minimum {entry.minimum}"),
    ]
    return [words for holds, words in said if holds]


def _formula(function: Callable[..., Any]) -> str:
    r"""The docstring's first formula; a bare | would end the cell."""
    found = re.search(r":math:`([^`]*)`", inspect.getdoc(function) or "")
    formula = " ".join(found[1].split()).replace("|", r"\vert ").strip() if found else ""
    return f"$`{formula}`$" if formula else ""


def _parameters(parameters: dict[str, Parameter]) -> str:
    """`gamma = 2.0` (number >= 0), one to a line, the default as a config writes it."""
    return "<br>".join(
        f"`{p.name}{'' if p.required else f' = {json.dumps(p.default)}'}` "
        f"({describe(p.annotation)})"
        for p in parameters.values()
    )


def main() -> None:
    """Print the table, or write it and the imports where they belong."""
    parser = argparse.ArgumentParser(prog="python -m losses.docs", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="update the files")
    if parser.parse_args().write:
        for path, change in ((PUBLIC, with_exports), (README, with_table)):
            path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
