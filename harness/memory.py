"""When memory runs out: how libraries say so, and what a person may do about it."""

import errno
import re

import torch

from harness.config import RunConfig

SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
"""What the allocators of CPUs and GPUs say, where their errors have no class of their own."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was no memory left, on the device or beside it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def told(error: BaseException, config: RunConfig) -> str:
    """An error in one line; where memory ran out, with batch size, device and a way on."""
    said = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
    if not ran_out(error):
        return said
    trainer = config.trainer
    batch = "a smaller trainer.batch_size for all arms, trainer.accumulate, "
    smaller = batch if trainer.batch_size > 1 else ""
    shared = f" over {trainer.devices} devices" if trainer.devices > 1 else ""
    return (
        f"out of memory on {_device(error)} with trainer.batch_size={trainer.batch_size}{shared}: "
        f"try {smaller}a smaller model, or fewer runs at once; {_rounded(said)}"
    )


def _rounded(said: str) -> str:
    """Bytes in MB or GB, where there are a million or more."""

    def size(found: re.Match[str]) -> str:
        count = int(found[1])
        return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

    return re.sub(r"\b(\d{7,}) bytes\b", size, said)


def _device(error: BaseException) -> str:
    """Whose memory it was."""
    if not (isinstance(error, torch.OutOfMemoryError) or "cuda" in str(error).lower()):
        return "cpu"
    if not torch.cuda.is_available():
        return "the device"
    size = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return f"{torch.cuda.get_device_name()} ({size / 2**30:.0f} GiB)"


def release() -> None:
    """Give back what the allocator of GPUs keeps, to the other runs of that device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
