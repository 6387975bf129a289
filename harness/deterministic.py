"""Which operations need not give the same bits again: what torch warns of, made notes of a run."""

import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
WARNED = r"(?s).*(not? have a deterministic|n.t deterministic|non-deterministic)"
"""How torch begins what it says of an operation."""


@contextlib.contextmanager
def watched(notes: list[str]) -> Iterator[None]:
    """Keep warnings of such operations off the terminal, and add a note that names them."""
    found: dict[str, None] = {}
    always = torch.is_warn_always_enabled()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=WARNED)
        show = warnings.showwarning

        def collect(message: Warning | str, *where: Any, **more: Any) -> None:
            if re.match(WARNED, str(message)):
                found[_operation(str(message))] = None
            else:
                show(message, *where, **more)

        warnings.showwarning = collect
        torch.set_warn_always(True)  # of some it warns once per process
        try:
            yield
        finally:
            torch.set_warn_always(always)
            if found:
                notes.append(f"not deterministic here: {', '.join(sorted(found))}")


def _operation(message: str) -> str:
    """The operation a warning is about, or what it says first."""
    name = re.match(r"(\S+) does not have a deterministic", message)
    return name[1] if name else re.split(r"[.(]\s", " ".join(message.split()))[0][:120]


def flags() -> dict[str, Any]:
    """Everything this process is set to that may decide the last bits."""
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    strict = torch.are_deterministic_algorithms_enabled()
    return {
        "deterministic": "warn" if warned else "strict" if strict else "none",
        "threads between operations": torch.get_num_interop_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "benchmark": torch.backends.cudnn.benchmark,
        "mkldnn": bool(torch.backends.mkldnn.enabled),
        **{key: os.environ.get(key) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", CUBLAS)},
    }
