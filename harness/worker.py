"""One process that trains runs for a sweep: reads jobs on stdin, answers on stdout.

Each line in is a JSON job: `config` and `force`. Each line out says what came of it: the status of
a record, `held` if another process has the run, or `refused` with an error if there is no record.
When stdin closes, the process that started this one is gone or wants to stop, and this one exits at
once, whatever it is doing.
"""

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any, TextIO


def lines() -> Iterator[bytes]:
    """Lines of stdin, past the buffer of `sys.stdin`.

    A thread that waits for input holds the lock of that buffer, and a reader of pictures that is
    forked meanwhile would wait for it for ever.
    """
    rest = b""
    while read := os.read(0, 1 << 16):
        *whole, rest = (rest + read).split(b"\n")
        yield from whole


def _listen(jobs: "queue.Queue[dict[str, Any]]") -> None:
    for line in lines():
        jobs.put(json.loads(line))
    if "harness.checkpoint" in sys.modules:
        sys.modules["harness.checkpoint"].finish()
    os._exit(0)


def main() -> None:
    """Serve jobs until stdin closes, or until one on several devices went wrong."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=[jobs], daemon=True).start()
    from harness import plugins
    from harness.config import check
    from harness.run import run_once
    from harness.store import Store, StoreError

    _answer(answers, {"ready": True})
    while True:
        job = jobs.get()
        try:
            plugins.load(job["config"]["plugins"])
            config = check(job["config"])
            record = run_once(config, Store(config.store), force=job["force"])
            status = record.status if record else "held"
            _answer(answers, {"status": status})
            if config.trainer.devices > 1 and status in ("failed", "diverged"):
                os._exit(0)  # its processes were out of step; the next run has new ones
        except StoreError as error:
            _answer(answers, {"status": "store error", "error": str(error)})
        except Exception as error:
            traceback.print_exc()
            _answer(answers, {"status": "refused", "error": f"{type(error).__name__}: {error}"})


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    print(json.dumps(content), file=answers, flush=True)


if __name__ == "__main__":
    main()
