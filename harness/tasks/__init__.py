"""Tasks: what is learnt and how it is judged. One file each; its `TASK` is the class."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from losses.arguments import nearest

if TYPE_CHECKING:
    from harness.tasks.base import Task


def names() -> list[str]:
    """Names of all tasks: the files of this folder. Imports none of them."""
    files = Path(__file__).parent.glob("[!_]*.py")
    return sorted(path.stem for path in files if path.stem != "base")


def get(name: str) -> "type[Task]":
    """The task class of that name.

    Raises:
        ValueError: no such task; the message has the nearest name.
    """
    if name not in names():
        raise ValueError(f"there is no task '{name}'{nearest(name, names())}")
    task: type[Task] = importlib.import_module(f"harness.tasks.{name}").TASK
    return task
