"""Losses of the user's own: a Python file named on the command line, or an installed package.

A plug-in is code and runs with the user's rights, so only the command line can name one: a sweep
file that somebody sent cannot.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

GROUP = "lossbench.losses"


def words(value: str) -> tuple[str, ...]:
    """The items of an override's list: `[a,b]`, or `a` alone.

    >>> words("[a.py,b.py]"), words("a.py"), words("")
    (('a.py', 'b.py'), ('a.py',), ())
    """
    return tuple(word.strip("'\" ") for word in value.strip("[] ").split(",") if word.strip())


def load(paths: Sequence[str]) -> None:
    """Import every file once, and the packages that offer losses, so that theirs are registered.

    Raises:
        ValueError: a file is missing or does not import; the message names it and the line.
    """
    _load_packages()
    for path in paths:
        _load_file(str(Path(path).resolve()))


@functools.cache
def _load_packages() -> None:
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise ValueError(f"plug-in package {entry.value}: {_said(error)}") from error


@functools.cache
def _load_file(path: str) -> None:
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"plugins: there is no file {path}")
    name = f"lossbench_plugin_{file.stem}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"plugins: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"plugins: {path}: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
