"""What data sets that lie in files have in common: where they are, and what is said if not."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.data.pictures import Size

COMMON = """\
    root: the folder that holds what is listed under needs.
    download: let torchvision fetch it into `root` if it is not there.
    size: height and width to bring pictures to; their middle is cut out in these proportions.
"""
FOUND = "data.path, as said above"
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision takes for a picture."""


def made(name: str, of: str, root: Path, needs: str, download: bool | None, **part: Any) -> Any:
    """torchvision's data set of that name, read from `root`; `download` is None if it cannot fetch.

    Raises:
        ValueError: it is not there, or not whole; says what to put where.
    """
    from torchvision import datasets

    fetching = {} if download is None else {"download": download}
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return getattr(datasets, of)(root, **fetching, **part)
    except Exception as error:  # torchvision has no one class for what is not there
        words = " ".join(str(error).split())
        if download:
            raise ValueError(
                f"{name}: torchvision could not fetch it to {root}: {words}"
            ) from error
        fetch = "put" if download is None else "set data.download=true to fetch it, or put"
        raise ValueError(
            f"{name} is not whole in data.root={root}: {fetch} there {needs} ({words})"
        ) from error


def folder(root: str) -> str:
    """The folder's full path."""
    return str(Path(root).expanduser().resolve())


def sides(name: str, size: Sequence[int]) -> Size:
    """Height and width."""
    if len(size) != 2:
        raise ValueError(f"{name}.size must be height and width, such as [64,64], got {list(size)}")
    return size[0], size[1]


def pictures_in(name: str, place: Path) -> tuple[Path, ...]:
    """The pictures of a folder, by name; other files are passed over.

    Raises:
        ValueError: there is no such folder, or no picture in it.
    """
    if not place.is_dir():
        raise ValueError(f"{name}.path: there is no folder {place}")
    found = sorted(file for file in place.iterdir() if file.suffix.lower() in ENDINGS)
    if not found:
        raise ValueError(f"{name}.path: no file in {place} ends in {', '.join(ENDINGS)}")
    return tuple(found)
