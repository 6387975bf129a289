"""The other processes of a run on several devices: started with it by its first one, and no longer.

Each is told the config, trains its share of every batch, and ends when the first one does, however
that ends: it reads from a pipe of which the first one has the other end.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

import torch
from torch import distributed

from harness.config import RunConfig, TrainerConfig, check
from harness.slots import ON_GPUS
from harness.worker import lines

SERVE = "import sys; sys.path[:] = {path!r}; from harness.followers import main; main()"
NOTICED, ENDED = 30.0, 5.0
"""Seconds until the first process must have noticed that another one has gone, and vice versa."""
MEETING = "LOSSBENCH_MEETING"
"""Environment variable with the folder in which the processes of a run find one another."""
SPAWNING = ("spawn", "fork", "notebook")
"""Strategies that start processes of their own carry one of these in their names."""
ALONE = re.compile(r"Connection (closed|reset)|Broken pipe|[Rr]emote process|ncclRemoteError")
"""What the transport says when a process of the other side has gone."""
Processes = Sequence["subprocess.Popen[str]"]


class Lost(KeyboardInterrupt):
    """A process of the run was killed: nothing is recorded, since the run is not to blame."""


def main() -> None:
    """Train a share of the run that stdin tells of, until stdin closes; say what went wrong."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    told = lines()
    config = json.loads(next(told))
    threading.Thread(target=_end_with_first, args=[told], daemon=True).start()
    threading.Thread(target=_end_without, args=[os.getppid()], daemon=True).start()
    from harness import plugins
    from harness.run import run
    from harness.store import Store

    try:
        plugins.load(config["plugins"])
        checked = check(config)
        _meet(checked.trainer)
        error = run(checked, Store(config["store"])).error
    except KeyboardInterrupt:  # all were asked to stop
        error = None
    except Exception as reason:
        error = f"{type(reason).__name__}: {reason}"
    print(json.dumps(error), file=answers, flush=True)
    os._exit(error is not None)  # the thread above does not let Python end


def _end_with_first(told: Iterator[bytes]) -> None:
    for _ in told:
        pass
    os._exit(0)


def _end_without(first: int) -> None:
    """End when the first process is no more, though readers it has forked keep the pipe open."""
    while os.getppid() == first:
        time.sleep(0.5)
    os._exit(0)


@contextlib.contextmanager
def followed(config: RunConfig) -> Iterator[None]:
    """Have the other processes there; none for one device, nor where somebody else starts them.

    Raises:
        Lost: one of them was killed.
    """
    trainer = config.trainer
    elsewhere = "LOCAL_RANK" in os.environ or any(w in trainer.strategy for w in SPAWNING)
    if trainer.devices == 1 or elsewhere:
        yield
        return
    # A folder of this user's alone: at an open port anybody could take the place of a process.
    meeting = tempfile.mkdtemp(prefix="lossbench-")
    shared = {
        MEETING: meeting,
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": str(trainer.threads),
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",
    }
    before = {name: os.environ.get(name) for name in shared}
    os.environ.update(shared)
    processes = [_start(config, rank) for rank in range(1, trainer.devices)]
    over = threading.Event()
    for process in processes:
        threading.Thread(target=_watch, args=[process, over], daemon=True).start()
    try:
        _meet(trainer)
        yield
    except Exception as error:
        reason = _reason(processes, error)
        if reason is error:
            raise
        raise reason from error
    finally:
        over.set()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        _end(processes)
        shutil.rmtree(meeting, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _meet(trainer: TrainerConfig) -> None:
    """Join the other processes; Lightning takes the group that there is."""
    on_gpus = trainer.accelerator in ON_GPUS and torch.cuda.is_available()
    distributed.init_process_group(
        "nccl" if on_gpus else "gloo",
        store=distributed.FileStore(  # type: ignore[attr-defined]
            f"{os.environ[MEETING]}/store", trainer.devices
        ),
        rank=int(os.environ["LOCAL_RANK"]),
        world_size=trainer.devices,
    )


def _start(config: RunConfig, rank: int) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE.format(path=[*map(str, sys.path)])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"LOCAL_RANK": str(rank)},
        text=True,
        start_new_session=True,  # Ctrl-C is for the first one
        close_fds=False,  # it holds the locks on the slots too
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its death is noticed elsewhere
        process.stdin.write(json.dumps(config.plain()) + "\n")
        process.stdin.flush()
    return process


def _watch(process: "subprocess.Popen[str]", over: threading.Event) -> None:
    """End this process if it keeps waiting for one that has gone."""
    code = process.wait()
    if code and not over.wait(NOTICED):
        print(f"lossbench: a process of the run has ended (exit code {code})", file=sys.stderr)
        os._exit(1)


def _reason(processes: Processes, error: Exception) -> BaseException:
    """Why a run came to an end: the first process may only have noticed that another one had.

    Those that fail for the same reason as the first one, or after it, do not count.
    """
    for rank, process in enumerate(processes, 1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(timeout=0.5)
            if code < 0:
                return Lost(f"a process of the run was killed (exit code {code})")
            assert process.stdout is not None
            if code and ALONE.search(str(error)):
                os.set_blocking(process.stdout.fileno(), False)  # a reader may have it open still
                said = json.loads(process.stdout.read() or '"it could not start"')
                return RuntimeError(f"process {rank} of the run: {said}")
    return error


def _end(processes: Processes) -> None:
    for process in processes:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
    for process in processes:
        try:
            process.wait(timeout=ENDED)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
