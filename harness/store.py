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
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.record import VERSION, Record


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
        return self.folder / "runs" / run_id

    def sweep_folder(self, name: str) -> Path:
        """The folder of a sweep's plan and reports."""
        return self.folder / "sweeps" / name

    def read(self, run_id: str) -> Record | None:
        """The record of a run, or None if there is none.

        A file that cannot be read as a record is named on stderr and set aside, never deleted.

        Raises:
            StoreError: the record was written by a newer version of this project, or the store
                cannot be read.
        """
        path = self.run_folder(run_id) / "record.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] > VERSION:
                raise StoreError(f"{path} has version {content['version']}, newer than {VERSION}")
            known = {field.name for field in dataclasses.fields(Record)}
            record = Record(**{key: value for key, value in content.items() if key in known})
            record = _typed(record)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            aside = _keep(path, "unreadable", os.rename)
            print(f"{path} is no record ({error}); set aside as {aside.name}", file=sys.stderr)
            return None
        return record

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
            handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"cannot write {folder}: {error.strerror or error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
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


def _typed(record: Record) -> Record:
    """The record, if its fields have the types others rely on; nulls in metrics are left out."""
    for field in dataclasses.fields(Record):
        value, kind = getattr(record, field.name), type(getattr(_EMPTY, field.name))
        if field.name != "error" and not isinstance(value, kind | (int if kind is float else kind)):
            raise TypeError(f"{field.name} is {value!r}")
    if record.status not in ("done", "failed", "diverged"):
        raise ValueError(f"status is {record.status!r}")
    metrics = {name: float(v) for name, v in record.metrics.items() if v is not None}
    references = {
        name: {metric: float(v) for metric, v in known.items() if v is not None}
        for name, known in record.references.items()
    }
    return dataclasses.replace(record, metrics=metrics, references=references)


_EMPTY = Record(id="", status="done", config={}, seed=0)
