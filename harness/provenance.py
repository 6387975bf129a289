"""Where and with what a run was made."""

import contextlib
import functools
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("lossbench", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core",
            "scikit-learn", "numpy", "scipy")  # fmt: skip


@functools.cache
def versions() -> dict[str, str]:
    """Installed versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


@functools.cache
def code_version() -> dict[str, Any]:
    """Git commit of this project's code and whether files differ from it; nulls outside a clone."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(folder), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "provenance.py") is None:
        return {"commit": None, "dirty": None}
    # files that git does not know, such as a sweep of one's own, are not this code
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}


@functools.cache
def processor() -> dict[str, str] | None:
    """What decides the last bits of sums on a CPU; None where the system does not tell.

    Kind of system and machine, C library, the processor's name, and the vector instructions that
    torch uses on it.
    """
    import torch

    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    known = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.+)$", text, re.MULTILINE))
    if len(known) < 3:
        return None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "library": " ".join(platform.libc_ver()),
        "processor": "{model name}, family {cpu family}, model {model}".format_map(known),
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }


def machine(device: str, threads: int) -> dict[str, Any]:
    """Platform, processor and how many there are, device and thread count."""
    return {
        "platform": platform.platform(),
        "processor": processor(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "device": device,
        "threads": threads,
    }


def reset_peak_memory() -> None:
    """Let the peak of resident memory start anew, where the system can do so (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Peak resident memory of this process in bytes since the reset, or since its start."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if platform.system() == "Darwin" else used * 1024
