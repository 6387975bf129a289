"""Where records live: one folder per run, written so that a kill at any moment loses nothing.

A run exists if `runs/ID/record.json` does. Whoever trains a run holds a lock on its folder, which
the system drops when the process dies, so nothing has to be cleaned up after a crash. Needs no
torch.
"""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import checked
from harness.archive import FAULTS, strict_json
from harness.record import VERSION, Record
from harness.shown import clean

LARGEST = 128 << 20
"""Most bytes of a file of the store that is read."""


class StoreError(Exception):
    """The store cannot be written or read; the message says which file and why."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old or the new content, never a part.

    Raises:
        StoreError: the file cannot be written (disk full, read-only, no permission).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """What a file of a store says; the store may be somebody else's, so nothing endless is read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no plain file, too large, or no text.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for a writer
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no plain file")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(LARGEST + 1)
    finally:
        os.close(handle)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST >> 20} MiB")
    return content.decode()


def dump_json(value: Any) -> str:
    """JSON that any reader takes: NaN and infinities become null, keys keep their order."""
    return json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Store:
    """Records of runs under one folder."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def run_folder(self, run_id: str) -> Path:
        """The folder of a run."""
        return self._inside("runs", run_id)

    def sweep_folder(self, name: str) -> Path:
        """The folder of a sweep's plan and reports."""
        return self._inside("sweeps", name)

    def _inside(self, kind: str, name: str) -> Path:
        """A folder of the store that leads nowhere else, whoever made the store.

        Raises:
            StoreError: the name is none of a folder, or a link stands there.
        """
        folder = self.folder / kind / name
        if not name.strip(".") or "/" in name or "\0" in name:
            raise StoreError(f"{name!r} cannot be the name of a folder in {self.folder}")
        for place in (folder.parent, folder):
            try:
                linked = place.is_symlink()
            except OSError as error:  # in a folder that this user may not look into
                raise StoreError(f"cannot read {place}: {error.strerror or error}") from error
            if linked:
                raise StoreError(f"cannot write {place}: it is a link, which may lead elsewhere")
        return folder

    def read(self, run_id: str) -> Record | None:
        """The record of a run, or None if there is none.

        A file that cannot be read as a record is named on stderr and set aside, never deleted.

        Raises:
            StoreError: the record was written by a newer version of this project, or the store
                cannot be read.
        """
        path = self.run_folder(run_id) / "record.json"
        try:
            content = strict_json(read_text(path))
            if content["version"] > VERSION:
                raise StoreError(f"{path} has version {content['version']}, newer than {VERSION}")
            return checked.record(content, run_id)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, *FAULTS) as error:
            aside = _keep(path, "unreadable", os.rename)
            said = clean(error)[:200]
            print(f"{path} is no record ({said}); set aside as {aside.name}", file=sys.stderr)
            return None

    def write(self, record: Record) -> None:
        """Write a record last and at once; an earlier one of the same run is kept beside it."""
        path = self.run_folder(record.id) / "record.json"
        if path.exists():
            _keep(path, "earlier", shutil.copy2)  # a copy: there is a record at every moment
        write_atomically(path, dump_json(dataclasses.asdict(record)))

    @contextlib.contextmanager
    def claim(self, run_id: str) -> Iterator[bool]:
        """Hold a run for this process; gives False if another process has it."""
        folder = self.run_folder(run_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise StoreError(f"cannot write {folder}: {error.strerror or error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if not isinstance(error, BlockingIOError):  # a file system without locks
                raise StoreError(f"cannot lock {folder}: {error.strerror or error}") from error
            yield False
            return
        try:
            yield True
        finally:
            os.close(handle)


def _keep(path: Path, why: str, how: Callable[[Path, Path], object]) -> Path:
    """Copy or rename a file to the next free name beside it."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{why}-{number}")).exists():
        number += 1
    try:
        how(path, aside)
    except FileNotFoundError:  # another process has just done so
        pass
    except OSError as error:
        raise StoreError(f"cannot write {aside}: {error.strerror or error}") from error
    return aside
