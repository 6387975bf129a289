"""Reading a zip of JSON that somebody sent: all is looked at before any of it is used. No torch.

Nothing of it is written to disk. What is not exactly as expected is refused in one line.
"""

import contextlib
import io
import json
import math
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

ARCHIVE, TOTAL, MEMBER = 128 << 20, 512 << 20, 128 << 20
"""Most bytes of the archive, of all its members unpacked, and of one of them."""
MEMBERS, DEPTH = 100_000, 40
"""Most members, and how deeply JSON may be nested."""
FAULTS = (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What code raises that was given JSON of another shape than it expects, besides ValueError."""


def unpacked(content: bytes, places: re.Pattern[str]) -> dict[str, bytes]:
    """Every member of a zip by its name, read after looking at all names and sizes.

    Args:
        content: the zip.
        places: what each name must match as a whole.

    Raises:
        ValueError: it is no zip, is damaged or too large, or a member has another name than
            expected, is no plain file, is encrypted, or stands there twice.
    """
    if len(content) > ARCHIVE:
        raise ValueError(f"it has more than {ARCHIVE >> 20} MiB")
    if content.count(b"PK\1\2") > MEMBERS:  # before a list of them takes the memory
        raise ValueError(f"it has more than {MEMBERS} members")
    with _readable():
        file = zipfile.ZipFile(io.BytesIO(content))
    infos = file.infolist()
    _check_members(infos, places)
    with _readable():
        return {info.filename: _member(file, info) for info in infos}


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Whatever a damaged zip makes its reader raise is a ValueError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError,
            ValueError, *FAULTS) as error:  # fmt: skip
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"it is no zip that can be read ({said})") from error


def _member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with file.open(info) as member:
        return member.read(info.file_size + 1)  # no more is unpacked than its size says


def _check_members(infos: list[zipfile.ZipInfo], places: re.Pattern[str]) -> None:
    seen = set()
    for info in infos:
        name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
        if not places.fullmatch(name) or kind not in (0, stat.S_IFREG):
            raise ValueError(f"its member {name[:200]!r} is none that a bundle has")
        if name in seen:
            raise ValueError(f"it has two members {name}")
        known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if info.flag_bits & 1 or not known:
            raise ValueError(f"its member {name} is encrypted, or packed in an unknown way")
        if info.file_size > MEMBER:
            raise ValueError(f"its member {name} has more than {MEMBER >> 20} MiB")
        seen.add(name)
    if sum(info.file_size for info in infos) > TOTAL:
        raise ValueError(f"it unpacks to more than {TOTAL >> 20} MiB")


def read_json(name: str, text: bytes) -> dict[str, Any]:
    """A mapping from JSON, strictly.

    Raises:
        ValueError: it is no JSON or no mapping, repeats a key, nests deeply, or has a number that
            is none (NaN, 1e999) or text that is none (half a surrogate pair).
    """
    try:
        value = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its member {name} cannot be read: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise ValueError(f"its member {name} is no mapping")
    return value


def strict_json(text: str | bytes) -> Any:
    """A value from JSON.

    Raises:
        ValueError, RecursionError: as :func:`read_json`.
    """
    value = json.loads(
        text, parse_constant=_no_number, parse_float=_float, object_pairs_hook=_mapping
    )
    _check_tree(value)
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text[:40])


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _check_tree(value: Any, depth: int = 0) -> None:
    if depth > DEPTH:
        raise ValueError(f"it is nested more than {DEPTH} deep")
    if isinstance(value, str):
        value.encode()  # half a surrogate pair is no text
    elif isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else ():
            _check_tree(key, depth + 1)
        for entry in value.values() if isinstance(value, dict) else value:
            _check_tree(entry, depth + 1)
