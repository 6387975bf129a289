"""Where the shipped YAML files are, and what is kept of one's own."""

import os
from pathlib import Path


def config_dir() -> Path:
    """The folder of shipped YAML files: beside the package in a clone, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped(kind: str) -> dict[str, Path]:
    """The shipped files of a kind (sweep, claim) by name."""
    return {path.stem: path for path in sorted((config_dir() / kind).glob("*.yaml"))}


def find(kind: str, name: str, *others: str) -> Path:
    """The shipped file of a name, or that of a path to one's own; `others` are names that do too.

    Raises:
        ValueError: no such file; the message has the nearest shipped name.
    """
    own, known = Path(name), shipped(kind)
    if own.suffix in (".yaml", ".yml"):
        if own.is_file():
            return own
        raise ValueError(f"there is no file {own}")
    if name not in known:
        from losses.arguments import nearest

        raise ValueError(f"there is no {kind} '{name}'{nearest(name, [*known, *others])}")
    return known[name]


def cache_dir() -> Path:
    """The folder of this user for what can be made anew."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lossbench"
