"""Running out of memory is a result of that run, which says what to do; the sweep goes on."""

import errno
from pathlib import Path

import pytest
import torch

from harness import memory
from tests.harness.spine import iris, python, records, write_sweep

GREEDY = """
from pathlib import Path
import numpy, torch
from losses import loss

@loss({name!r}, target="index", source="a test")
def greedy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if Path({armed!r}).exists():
        {allocate}
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")
"""
PEBIBYTE = {"of_torch": "torch.empty(2**50)", "of_numpy": "numpy.empty(2**47)"}
TOLD = (
    "out of memory on cpu with trainer.batch_size=32: try a smaller trainer.batch_size for all "
    "arms, trainer.accumulate, a smaller model, or fewer runs at once; "
)


def greedy(folder: Path, name: str) -> str:
    """The file of a loss that wants a pebibyte once a file `armed` is there."""
    path, armed = folder / f"{name}.py", str(folder / "armed")
    path.write_text(GREEDY.format(name=name, armed=armed, allocate=PEBIBYTE[name]))
    return str(path)


def test_runs_without_memory_fail_and_the_others_go_on(tmp_path: Path) -> None:
    """The plan is made before, as memory is taken by others later."""
    files = [greedy(tmp_path, name) for name in PEBIBYTE]
    arms = {"ce": ["loss=cross_entropy"], **{name: [f"loss={name}"] for name in PEBIBYTE}}
    path = write_sweep(tmp_path, seeds=1, arms=arms)
    command = ["-m", "harness", "sweep", str(path), f"plugins=[{','.join(files)}]", "--jobs=1"]
    assert python([*command, "--only=ce"], tmp_path).returncode == 0
    (tmp_path / "armed").touch()
    done = python([*command, "--force"], tmp_path)
    assert done.returncode == 0, done.stderr
    found = {
        (*(record["config"]["loss"].keys() - {"mix", "p"}), record["status"]): record["error"]
        for record in records(tmp_path / "results").values()
    }
    failed = [(name, "failed") for name in PEBIBYTE]
    assert found.keys() == {("cross_entropy", "done"), *failed}
    assert all(found[each].startswith(TOLD) for each in failed)
    assert all(done.stdout.count(f"{name} seed 0: {TOLD}") == 1 for name in PEBIBYTE)


def test_a_plan_and_train_say_so_before_anything_is_written(tmp_path: Path) -> None:
    words = [f"plugins=[{greedy(tmp_path, 'of_torch')}]"]
    (tmp_path / "armed").touch()
    path = write_sweep(tmp_path, arms={"ce": ["loss=cross_entropy"], "greedy": ["loss=of_torch"]})
    for command in (
        ["sweep", str(path), *words],
        ["train", "task=classification/iris", "loss=of_torch", *words],
    ):
        done = python(["-m", "harness", *command], tmp_path)
        assert done.returncode == 2
        assert TOLD in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


LIMITED = """
import resource
from pathlib import Path
from harness.run import run
from harness.store import Store
from tests.harness.spine import iris
assert run(iris(), Store("small")).status == "done"
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
failed = run(iris("model.hidden=[12000,12000]"), Store("large"))
print(failed.status, failed.error)
print(run(iris("loss=focal"), Store("small")).status)
"""


def test_a_model_beyond_a_limit_fails_and_the_process_goes_on(tmp_path: Path) -> None:
    """12000 x 12000 weights take 549 MiB, of 256 that there are."""
    done = python(["-c", LIMITED], tmp_path)
    assert done.returncode == 0, done.stderr
    failed, after = done.stdout.splitlines()
    assert failed.startswith(f"failed {TOLD}RuntimeError: ")
    assert after == "done"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(12, "12 bytes"), (3 * 10**6, "3 MB"), (2**31, "2.1 GB"), (4 * 10**13, "40,000.0 GB")],
)
def test_much_memory_is_told_in_large_units(count: int, shown: str) -> None:
    error = RuntimeError(f"can't allocate memory: you tried to allocate {count} bytes. Error 12")
    assert f"you tried to allocate {shown}. Error 12" in memory.told(error, iris())


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("unable to mmap 8 bytes from file: Cannot allocate memory (12)"), True),
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory of a column"), False),
    ],
)
def test_what_says_that_memory_ran_out(error: Exception, out: bool) -> None:
    told = memory.told(error, iris("trainer.batch_size=1"))
    assert memory.ran_out(error) == out
    assert told.startswith("out of memory on ") == out
    assert ("with trainer.batch_size=1: try a smaller model, " in told) == out
    assert type(error).__name__ in told
