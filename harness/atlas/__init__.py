"""`atlas`: what every loss's curve is like, measured, as a table in the terminal and as a page."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness import plugins
from harness.atlas.page import to_html
from harness.atlas.text import MADE_BY, terminal, to_json, to_markdown
from harness.report import style
from harness.store import StoreError, write_atomically

if TYPE_CHECKING:
    from losses.atlas import Portrait

FILES = ("atlas.html", "atlas.json", "atlas.md")
HEAD = 400  # characters in which a file of ours says so


def show(names: Sequence[str], files: Sequence[str], folder: str) -> int:
    """Measure losses, print their table and write the page, its numbers and Markdown.

    Args:
        names: losses, or Python files whose losses are meant; all there are if none is given.
        files: plug-ins.
        folder: where atlas.html, atlas.json and atlas.md go.

    Returns:
        0; 1 where a loss could not be measured, which is said on stderr.

    Raises:
        ValueError: no such loss or file, or a file of that name which the atlas did not write.
        StoreError: a file cannot be written.
    """
    chosen = _chosen(names, files)
    check_folder(Path(folder))
    portraits = _measured(chosen)
    from losses.atlas import claims

    entries = claims.entries()
    contrasts = claims.contrasts(entries)
    print(terminal(portraits, [] if names else entries))
    texts = (
        to_html(portraits, entries, contrasts),
        to_json(portraits, entries, contrasts),
        to_markdown(portraits, claims.table(entries)),
    )
    for name, text in zip(FILES, texts, strict=True):
        write_atomically(Path(folder) / name, text.encode("utf-8", "replace").decode("utf-8"))
    print(f"\natlas  {Path(folder) / FILES[0]}")
    return 0 if len(portraits) == len(chosen) else 1


def _chosen(names: Sequence[str], files: Sequence[str]) -> list[str]:
    """The losses that are meant, plug-ins loaded."""
    import losses

    own = [name for name in names if Path(name).suffix == ".py"]
    before = set(losses.names())
    plugins.load([*files, *own])
    new = [name for name in losses.names() if name not in before]
    if own and not new:
        raise ValueError(f"{own[0]} registers no loss: decorate a function with losses.loss")
    given = [losses.get(name).name for name in names if name not in own]
    return list(dict.fromkeys(given + (new if own else []))) or losses.names()


def check_folder(folder: Path) -> None:
    """Raise unless every file there that would be replaced is one that the atlas wrote.

    Raises:
        ValueError: somebody else's file, or a folder, has that name.
        StoreError: it cannot be read.
    """
    for path in (folder / name for name in FILES):
        try:
            if path.is_symlink() or (path.exists() and not _ours(path)):
                raise ValueError(f"{path} was not made by this command; choose another --out")
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


def _ours(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return MADE_BY in file.read(HEAD)


def _measured(names: Sequence[str]) -> "list[Portrait]":
    """The portraits, with progress on stderr; what cannot be measured is named there."""
    from losses.atlas import measure

    live, start, made = sys.stderr.isatty(), time.monotonic(), []
    if not live:
        print(f"measuring {len(names)} loss{'es' * (len(names) > 1)}", file=sys.stderr)
    for number, name in enumerate(names, 1):
        if live:
            line = style.clean(f"measuring {number} of {len(names)}: {name}")
            print(f"\r{line[:78]:<79}", end="", file=sys.stderr, flush=True)
        try:
            made.append(measure(name))
        except Exception as error:
            said = style.clean(f"{name} cannot be measured: {type(error).__name__}: {error}")
            print(f"\n{said}" if live else said, file=sys.stderr)
    seconds = time.monotonic() - start
    line = f"measured {len(made)} of {len(names)} losses in {seconds:.1f} s"
    print(f"\r{line:<79}" if live else line, file=sys.stderr)
    return made
