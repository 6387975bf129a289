"""Locks on slots, so that no two sweeps of a machine are ever in one. No torch.

Whoever uses a slot holds a lock on a file in a folder that all users of the machine share. The
system drops it when the last process that holds it ends, so that nothing has to be cleaned up.
"""

import contextlib
import fcntl
import os
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness.shown import clean
from harness.slots import LaunchError, Places, Slot

FOLDER = "LOSSBENCH_SLOTS"
"""Environment variable with another folder for the locks."""
COLLECTING = "collecting"
TOUCH = 3600.0
"""Seconds between two signs that held locks are in use."""


def folder() -> Path:
    """Where the locks lie: a folder that every user of the machine may write to.

    Raises:
        LaunchError: there can be none.
    """
    shared = [Path("/tmp"), Path(tempfile.gettempdir())]
    base = next((path for path in shared if os.access(path, os.W_OK)), shared[-1])
    path = Path(os.environ.get(FOLDER) or base / "lossbench-slots")
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            path.chmod(0o1777)
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise NotADirectoryError(0, "it is no folder")
    except OSError as error:
        raise LaunchError(_no_lock(path, error)) from error
    return path


def _no_lock(path: Path, error: OSError) -> str:
    return f"cannot lock slots in {path}: {error.strerror}; {FOLDER}=FOLDER names another place"


class Locks:
    """Those of a sweep's slots that it has locked.

    Several for one run are taken at once or not at all, since two sweeps that each keep some and
    wait for the rest would wait for ever. Only who has locked COLLECTING may keep some: one sweep
    at a time.

    A slot whose file cannot be opened is not free, and named once on stderr.
    """

    def __init__(self, places: Places) -> None:
        self.places, self.folder = places, folder()
        self.held: dict[Slot, list[int]] = {}
        self.kept: list[Slot] = []
        self.turn: int | None = None
        self.faults: dict[str, str] = {}
        self.told: set[str] = set()
        self.touched = time.monotonic()

    def take(self, number: int, *, keep: bool = False) -> list[Slot] | None:
        """Lock so many, each on another GPU if on any; None if there are not so many free ones.

        With `keep` those that are free are kept for the next call, if this sweep may.

        Raises:
            LaunchError: no slot is held, and the files of none can be opened.
        """
        room = self.places.most - len(self.held) + len(self.kept)
        got, self.kept = self.kept, []
        for slot in self.places.slots:
            if len(got) >= min(number, room):
                break
            beside = slot.gpu and any(slot.gpu == other.gpu for other in got)
            if slot not in self.held and not beside and self._lock(slot):
                got.append(slot)
        self._tell_faults()
        if len(got) == number:
            self.drop()
            return got
        if keep and self.turn is None:
            self.turn = self._try(COLLECTING, fcntl.LOCK_EX)
        self.kept = got
        if not keep or self.turn is None:
            self.drop()
        return None

    def drop(self) -> None:
        """Keep none for the next call."""
        self.give(self.kept)
        self.kept = []
        if self.turn is not None:
            os.close(self.turn)
            self.turn = None

    def give(self, slots: Sequence[Slot]) -> None:
        """Let slots go; they are free when no process that inherited them is left."""
        for slot in slots:
            for handle in self.held.pop(slot):
                os.close(handle)

    def handles(self, slots: Sequence[Slot]) -> list[int]:
        """File descriptors to be inherited by what trains there."""
        return [handle for slot in slots for handle in self.held[slot]]

    def touch(self) -> None:
        """Show whatever removes old files that these are in use; call it as often as you like."""
        if time.monotonic() < self.touched + TOUCH:
            return
        self.touched = time.monotonic()
        for handle in [*self.handles([*self.held]), *([] if self.turn is None else [self.turn])]:
            with contextlib.suppress(OSError):  # another user's file
                os.utime(handle)

    def holders(self) -> list[str]:
        """Who has the slots that are not free, as they say themselves."""
        found: dict[str, list[str]] = {}
        for slot in self.places.slots:
            for name, how in slot.locks() if slot not in self.held else []:
                handle = self._try(name, how, silently=True)
                if handle is None and name in self.faults:
                    break
                if handle is None:
                    found.setdefault(self._said(name), []).append(str(slot))
                    break
                os.close(handle)
        return [f"{', '.join(slots)} by {who}" for who, slots in found.items()]

    def _said(self, name: str) -> str:
        with contextlib.suppress(OSError, ValueError):
            handle = _open(self.folder / name)
            try:
                text = os.pread(handle, 300, 0).decode(errors="replace")
                process, _, command = text.partition(" ")
                return f"process {int(process)} ({clean(command)})"
            finally:
                os.close(handle)
        return "another process"

    def _tell_faults(self) -> None:
        """Name each file that cannot be locked once; an error if it is so with all slots."""
        wrong = [any(name in self.faults for name, _ in s.locks()) for s in self.places.slots]
        if all(wrong) and not self.held:
            raise LaunchError(next(iter(self.faults.values())))
        for name in self.faults.keys() - self.told:
            print(f"lossbench: {self.faults[name]}; going on without it", file=sys.stderr)
        self.told |= self.faults.keys()

    def _lock(self, slot: Slot) -> bool:
        handles: list[int] = []
        for name, how in slot.locks():
            handle = self._try(name, how)
            if handle is None:
                for other in handles:
                    os.close(other)
                return False
            handles.append(handle)
        self.held[slot] = handles
        return True

    def _try(self, name: str, how: int, *, silently: bool = False) -> int | None:
        """The descriptor of a file that is now locked; None if it cannot be, or not now."""
        path = self.folder / name
        self.faults.pop(name, None)
        try:
            handle = _open(path)
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise OSError(0, "it is no file")
                fcntl.flock(handle, how | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False)):
                    raise BlockingIOError  # removed meanwhile; the next call makes a new one
            except BaseException:
                os.close(handle)
                raise
        except FileNotFoundError:  # somebody tidied up; the next call finds a new folder
            folder()
            return None
        except BlockingIOError:
            return None
        except OSError as error:
            self.faults[name] = _no_lock(path, error)
            return None
        if not silently:
            with contextlib.suppress(OSError):  # a full disk; it is locked all the same
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()} {_command()}".encode(), 0)
        return handle


def _open(path: Path) -> int:
    """A file to be locked by any user; O_CREAT on another's file is refused in such folders."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    before = os.umask(0)
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags)
    finally:
        os.umask(before)


def _command() -> str:
    """What was typed to start this process, in short."""
    name = Path(sys.argv[0]).name
    return " ".join(["lossbench" if name == "__main__.py" else name, *sys.argv[1:]])[:200]
