"""Where the shipped YAML files are, and what is kept of one's own."""

import os
from pathlib import Path


def config_dir() -> Path:
    """The folder of shipped YAML files: beside the package in a clone, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def cache_dir() -> Path:
    """The folder of this user for what can be made anew."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lossbench"
