"""Commands on hostile input, in a process that notes what none of them may do.

`python -m tests.harness.watched files|store|trains` prints a JSON list, an entry per case, of what
was seen. It runs in an empty folder.
"""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

from harness import build
from harness import sweep as sweeps
from harness.cli import main
from harness.compose import compose
from harness.config import run_id
from harness.record import Record
from harness.store import Store
from tests.harness import hostile, hostile_stores, inert
from tests.harness.spine import IRIS, write_sweep

LIMIT = 30  # seconds after which a command hangs
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod")
CHANGING += ("os.truncate", "os.chown", "shutil.")
STARTING = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn")
STARTING += ("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto")
STARTING += ("urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "pty.")


class Watch:
    """Everything that happens while it is on and must not."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.on = False
        self.inside: Path | None = None  # where files may change
        self.known: set[str] = set()  # libraries that may be imported
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """What the interpreter calls."""
        if not self.on:
            return
        self.on = False  # looking at paths opens nothing, but raises events
        try:
            if self._is_wrong(event, arguments):
                self.seen.append(f"{event} {str(arguments)[:200]}")
        finally:
            self.on = True

    def _is_wrong(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, mode, flags = arguments
            writes = any(c in (mode or "") for c in "wax+") or (flags or 0) & WRITING
            return bool(writes) and not self._may(path)
        if event.startswith(CHANGING):
            return not all(self._may(path) for path in arguments if isinstance(path, str | Path))
        if event == "import":
            return str(arguments[0]).partition(".")[0] not in self.known
        if event == "compile":
            return hostile.OWNED in str(arguments[0])
        if event == "exec":
            code = arguments[0]
            return isinstance(code, CodeType) and hostile.OWNED in str(code.co_consts)
        return event.startswith(STARTING) or event == "pickle.find_class"

    def _may(self, path: object) -> bool:
        if not isinstance(path, str | Path):
            return True  # a file that is open already
        where = Path(os.path.realpath(Path(path).parent), Path(path).name)  # of a link itself
        return self.inside is not None and where.is_relative_to(self.inside)


def hangs(*_: object) -> None:
    raise KeyboardInterrupt("it hangs")


def run(watch: Watch, words: Sequence[str]) -> dict[str, Any]:
    """What one command did, said and must not have done."""
    out, err = io.StringIO(), io.StringIO()
    watch.seen = []
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            watch.on = True
            code: Any = main(words)
    except BaseException:
        code = traceback.format_exc()[-1000:]
    finally:
        watch.on = False
        signal.alarm(0)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "seen": watch.seen}


def files(watch: Watch) -> Iterator[dict[str, Any]]:
    """Sweep files, with every command that reads one."""
    for number, (name, path, said) in enumerate(hostile.written(Path())):
        command = ("plan", "sweep", "report")[number % 3]
        yield {"name": name, "said": said, **run(watch, [command, str(path)])}


def store(watch: Watch) -> Iterator[dict[str, Any]]:
    """Records and plans in a store that somebody sent; each is reported on."""
    path = hostile.harmless(Path())
    wanted = sweeps.request(str(path), [])
    made = sweeps.plan(wanted)
    build.build_plan = lambda wanted: made  # type: ignore[assignment] # as it would be made anew
    for planned in made.runs():
        metrics = {"test/accuracy": 0.5 + 0.1 * planned.seed, "val/accuracy": 0.5}
        record = Record(
            planned.id, "done", planned.config, planned.seed, metrics, seconds={"total": 1.0}
        )
        wanted.store.write(record)
    sweeps.save(wanted, made)
    shutil.copytree("results", "clean")
    folder = wanted.folder
    watch.inside = Path("results").resolve()
    for name, (spoil, code) in hostile_stores.stores().items():
        shutil.rmtree("results")
        shutil.copytree("clean", "results")
        spoil(wanted, made)
        done = run(watch, ["report", str(path)])
        entry = {"name": name, "expected": code, **done}
        if done["code"] == 0:
            saved = json.loads((folder / "plan.json").read_text())["plan"]
            same = _plain(saved) == _plain(dataclasses.asdict(made))
            entry |= {"same": same, "faults": inert.faults(folder)}
        yield entry


def _plain(plan: dict[str, Any]) -> str:
    """A plan without the days on which it was made."""
    kept = {key: value for key, value in plan.items() if key not in ("planned", "late")}
    return json.dumps(json.loads(json.dumps(kept)), sort_keys=True)


def trains(watch: Watch) -> Iterator[dict[str, Any]]:
    """One run of which a record is there, and files of weights to start from."""
    words = ["train", *IRIS, "model=linear"]
    first = compose(words[1:])
    own = Store("results")
    watch.inside = Path("results").resolve()
    for number, text in enumerate(hostile_stores.TEXTS):
        made = Record(run_id(first, 0), "done", {}, 0, {"test/accuracy": 0.5}, notes=[text])
        content = hostile_stores.full(dataclasses.asdict(made), text)
        own.write(Record(**content))
        yield {"name": f"text {number}", "expected": 0, **run(watch, words)}
    for name, path in hostile_stores.weights(Path("weights")):
        given = [*words, f"model.pretrained={path}"]
        yield {"name": f"weights: {name}", "expected": 2, **run(watch, given)}
    hostile_stores.postscript(Path("pictures"))
    own = ["task=classification/image_folder", "loss=cross_entropy", "data.path=pictures"]
    done = run(watch, ["train", *own, "data.size=[16,16]"])
    yield {"name": "pictures of PostScript", "expected": 2, **done}


if __name__ == "__main__":
    os.environ["HOSTILE_SECRET"] = "s3cr3t-value"
    signal.signal(signal.SIGALRM, hangs)
    os.mkfifo("pipe")
    watching = Watch()
    main(["plan", str(write_sweep(Path()))])  # imports whatever a harmless file needs
    watching.known = {name.partition(".")[0] for name in sys.modules} | sys.stdlib_module_names
    watching.known.add("olefile")  # Pillow looks for it whatever it is to read
    kinds = {"files": files, "store": store, "trains": trains}
    print(json.dumps(list(kinds[sys.argv[1]](watching))))
