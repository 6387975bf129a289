"""The places of this machine in which runs train, on GPUs or else on processors. No torch."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from harness.plan import PlannedRun
from harness.shown import clean

DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd")
"""Devices of drivers; without any of them there is no GPU that anybody need be asked about."""
ASK = """
import json, torch
found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps([str(getattr(one, "uuid", i)) for i, one in enumerate(found)]))
"""
ON_GPUS = ("auto", "gpu", "cuda")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LaunchError(Exception):
    """Runs cannot be trained: no slot can be locked, or no process started."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use.

    Attributes:
        number: its place among those that can be seen.
        name: what CUDA_VISIBLE_DEVICES calls it.
        key: what all processes of the machine call it.
    """

    number: int
    name: str
    key: str


@dataclass(frozen=True)
class Slot:
    """A place for one process that trains: on a GPU, or on processors.

    Attributes:
        number: which place it is on the GPU, or on the machine.
        alone: no other slot of the GPU may be in use.
    """

    number: int
    gpu: Gpu | None = None
    alone: bool = True

    def __str__(self) -> str:
        if self.gpu is None:
            return f"cpu {self.number}"
        return f"gpu {self.gpu.number}" + ("" if self.alone else f".{self.number}")

    def locks(self) -> list[tuple[str, int]]:
        """Names of the files to lock, and how."""
        if self.gpu is None:
            return [(f"cpu.{self.number}", fcntl.LOCK_EX)]
        whole = (f"gpu.{self.gpu.key}", fcntl.LOCK_EX if self.alone else fcntl.LOCK_SH)
        return [whole, (f"gpu.{self.gpu.key}.{self.number}", fcntl.LOCK_EX)]


@dataclass(frozen=True)
class Places:
    """Where the runs of a sweep may train.

    Attributes:
        slots: in the order in which they are taken.
        most: how many at once.
        threads: of each process.
    """

    slots: tuple[Slot, ...]
    most: int
    threads: int = 1

    def where(self) -> str:
        """Words for the GPUs, if there are any."""
        numbers = dict.fromkeys(str(slot.gpu.number) for slot in self.slots if slot.gpu)
        return f" on GPU{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else ""

    def environment(self, slots: Sequence[Slot]) -> dict[str, str]:
        """What pins a process to some of the slots, if it is there before torch is loaded."""
        names = ",".join(slot.gpu.name for slot in slots if slot.gpu)
        return {"CUDA_VISIBLE_DEVICES": names, **dict.fromkeys(THREADS, str(self.threads))}


def width(run: PlannedRun) -> int:
    """How many slots a run takes: one per device."""
    return int(run.config.get("trainer", {}).get("devices", 1))


def find(
    runs: Sequence[PlannedRun],
    *,
    jobs: int | None = None,
    devices: str | None = None,
    per_device: int | None = None,
) -> Places:
    """Where these runs may train: on all GPUs if they train on any and some are there.

    Args:
        runs: what is to be trained, now or later.
        jobs: processes at once; None for as many as there are slots. On processors there are then
            as many slots.
        devices: GPUs by number among those that can be seen, or by name; None for all.
        per_device: slots on each GPU.

    Raises:
        ValueError: there is no such device, or a run needs more than there are.
        LaunchError: GPUs cannot be counted.
    """
    trainers = [run.config.get("trainer", {}) for run in runs]
    threads = max((int(trainer.get("threads", 1)) for trainer in trainers), default=1)
    asked = any(trainer.get("accelerator", "auto") in ON_GPUS for trainer in trainers)
    there = gpus() if asked else []
    if not asked and (devices is not None or per_device):
        option = "--per-device" if devices is None else "--devices"
        raise ValueError(f"{option} is about GPUs, but trainer.accelerator says none; use --jobs N")
    if per_device and not there:
        raise ValueError("--per-device is about GPUs, and none can be seen here; use --jobs N")
    if devices is not None:
        there = _chosen(devices, there)
    if there:
        each = per_device or 1
        slots = [Slot(number, gpu, each == 1) for number in range(each) for gpu in there]
        places = Places(tuple(slots), min(jobs or len(slots), len(slots)), threads)
    else:
        capacity = max(1, processors() // threads)
        slots = [Slot(number) for number in range(max(capacity, jobs or 0))]
        places = Places(tuple(slots), jobs or capacity, threads)
    _refuse_wider(runs, places, len(there))
    return places


def processors() -> int:
    """How many this process may use."""
    available = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return len(available) if available else os.cpu_count() or 1


def gpus() -> list[Gpu]:
    """The GPUs that torch sees from here, in its order; another process asks it.

    Raises:
        LaunchError: it gives no answer.
    """
    outer = os.environ.get("CUDA_VISIBLE_DEVICES")
    if outer in ("", "-1") or not any(map(os.path.exists, DRIVERS)):
        return []
    done = subprocess.run([sys.executable, "-P", "-c", ASK], capture_output=True, text=True)
    try:
        found = [str(key) for key in json.loads(done.stdout.splitlines()[-1])]
    except (ValueError, IndexError) as error:
        said = clean(done.stderr.strip().rpartition("\n")[2]) or "no answer"
        raise LaunchError(f"GPUs cannot be counted: {said}") from error
    names = outer.split(",") if outer else [str(number) for number in range(len(found))]
    pairs = list(zip(map(str.strip, names), found, strict=False))
    # instances of one GPU have names of their own, but the properties of the whole
    return [Gpu(i, n, n if n.startswith("MIG") else key) for i, (n, key) in enumerate(pairs)]


def _chosen(devices: str, there: Sequence[Gpu]) -> list[Gpu]:
    known = {name: gpu for gpu in there for name in (f"GPU-{gpu.key}", gpu.key, gpu.name)}
    known |= {str(gpu.number): gpu for gpu in there}
    chosen = {}
    for word in map(str.strip, devices.split(",")):
        if word not in known:
            seen = ", ".join(str(gpu.number) for gpu in there)
            words = f"there {'are' if len(there) > 1 else 'is'} {seen}"
            words = words if there else "none can be seen here"
            raise ValueError(f"--devices: there is no GPU '{word}'; {words}")
        chosen[known[word].number] = known[word]
    return [*chosen.values()]


def _refuse_wider(runs: Sequence[PlannedRun], places: Places, gpus: int) -> None:
    most = min(places.most, gpus or places.most)
    for run in runs:
        if width(run) > most:
            words = f"trainer.devices={width(run)}, but {most} can be used"
            words += "" if gpus else f"; --jobs {width(run)} makes as many of the processors"
            raise ValueError(f"arm {run.arm}: {words}")
