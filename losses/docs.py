"""The table of all losses, penalties and projections in losses/README.md, made from their words.

`python -m losses.docs` prints it, `python -m losses.docs --write` puts it into the README, and the
notes' table against measurement and the page of errata likewise.
"""

import argparse
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
    """Print the table, or write it into the README."""
    parser = argparse.ArgumentParser(prog="python -m losses.docs", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help=f"update {README.name}")
    if parser.parse_args().write:
        README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
