"""Where the shipped YAML files are."""

from pathlib import Path


def config_dir() -> Path:
    """The folder of shipped YAML files: beside the package in a clone, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
