"""The command `report`: what the records of one sweep say, or those of several on one page."""

import sys
from collections.abc import Sequence
from pathlib import Path

from harness import commands
from harness import sweep as sweeps
from harness.comparison import Note


def report(words: Sequence[str], against: str | None = None) -> list[Note]:
    """Compare whatever records there are, print the tables, write the page.

    Args:
        words: names of sweeps, the first first, and overrides for all of them.
        against: the metric to show against the headline's.

    Raises:
        ValueError: something is wrong with a sweep, or one is named twice.
        StoreError: the store cannot be written.
    """
    names = [words[0], *filter(_is_name, words[1:])]
    overrides = [word for word in words[1:] if not _is_name(word)]
    if len(names) == 1:
        return commands.report(names[0], overrides, against)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"report: {twice[0]} is named twice")
    return _several(names, overrides, against)


def _is_name(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) or not ("=" in word or word.startswith(("~", "+")))


def _several(names: Sequence[str], overrides: Sequence[str], against: str | None) -> list[Note]:
    from harness.compare import compare
    from harness.report import answers, terminal, write_several

    wanted = [sweeps.request(name, overrides) for name in names]
    parts = []
    for one in wanted:
        made, plan, records = commands.planned(one)
        sweeps.save(one, made)
        parts.append((compare(plan, records, against), answers(plan, records, one.store)))
    for comparison, _ in parts:
        print(f"\n{comparison.name}\n{terminal(comparison, color=sys.stdout.isatty())}")
    stems = "+".join(Path(one.path).stem for one in wanted)
    name = sweeps.slug(stems, wanted[0].overrides)
    print(f"report  {write_several(parts, wanted[0].store.folder / 'reports' / name)}")
    return [note for comparison, _ in parts for note in comparison.notes]
