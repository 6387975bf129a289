"""Stores and weights that somebody sent who means ill."""

import copy
import dataclasses
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.plan import Plan
from harness.record import Record
from harness.sweep import Request
from tests.harness.hostile import CODE, MARKUP, OWNED

TEXTS = (
    f"{MARKUP}</style></svg><svg onload=alert(1)><a href='javascript:alert(1)'>",
    "[x](javascript:alert(1)) ![x](http://evil/x.png) `|` **",
    "=cmd|'/C calc'!A0",
    "@SUM(1+1)*cmd|'/C calc'!A0",
    "\\input{/etc/passwd}\\write18{id} $x$ % & # _ ^^5cinput ~",
    "\x1b[31m\x1b]0;owned\x07 \x9b31m \r\n\t\x00\x7f \u202egnp.exe\u2066 \u2028 \ufeff",
    "${oc.env:HOSTILE_SECRET} {{7*7}} %s%n {0.__class__} $(id) `id`",
    "../../../../var/owned",
    "x" * 100_000,
)
"""What any text of a record may be."""
Spoil = Callable[[Request, Plan], object]
FIELDS = [field.name for field in dataclasses.fields(Record)]


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {OWNED}",)


def _record(wanted: Request, made: Plan) -> Path:
    return wanted.store.run_folder(next(iter(made.runs())).id) / "record.json"


def _raw(content: bytes) -> Spoil:
    return lambda wanted, made: _record(wanted, made).write_bytes(content)


def _with(**changes: Any) -> Spoil:
    """The first record with other content."""

    def spoil(wanted: Request, made: Plan) -> None:
        path = _record(wanted, made)
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def _instead(make: Callable[[Path], object], *names: str) -> Spoil:
    """Something else in place of the first record, or of a file beside it."""

    def spoil(wanted: Request, made: Plan) -> None:
        path = _record(wanted, made)
        for name in names or (path.name,):
            path.with_name(name).unlink(missing_ok=True)
            make(path.with_name(name))

    return spoil


def _linked(*parts: str) -> Spoil:
    """A folder of the store is a link that leads out of it."""

    def spoil(wanted: Request, made: Plan) -> None:
        place = wanted.store.folder.joinpath(*parts) if parts else _record(wanted, made).parent
        target = Path("outside", str(len(list(Path().glob("outside/*")))))
        target.parent.mkdir(exist_ok=True)
        place.rename(target)
        place.symlink_to(target.resolve())

    return spoil


def full(content: dict[str, Any], text: str) -> dict[str, Any]:
    """A record with this text wherever a text may stand, and with all that may be in one."""
    pull = {"terms": [text, "b"], "every": 1, "steps": [1, 2], "whole": [1, None]}
    pull |= {key: [[1.0, 2.0], [None, 1.0]] for key in ("norms", "shares", "weights")}
    numbers = {text: 0.5}
    return content | {
        "config": {"loss": numbers, "data": {"name": text}, text: [text, {text: text}]},
        "metrics": content["metrics"] | numbers | {f"test/{text}": 1.0, f"val/{text}": 2.0},
        "curve": [{"epoch": 1.0, "step": i, "val/accuracy": 0.1 * i, text: 1.0} for i in (1, 2, 3)],
        "start": {"loss": 1.0, "gradient": 2.0} | numbers,
        "gradients": pull | {"cosines": [[0.1], [None]], text: text},
        "references": {text: {"test/accuracy": 0.2, text: 1.0}},
        "seconds": {"total": 1.0, "train": 0.5} | numbers,
        "seeds": {text: 1},
        "fingerprints": {"data": text, "split": text, text: text},
        "notes": [text],
        "provenance": {"finished": text, "started": text, "versions": {text: text}, text: text},
    }


def _all(text: str, status: str) -> Spoil:
    """Every record full of this text; the last one is not done, and says so."""

    def spoil(wanted: Request, made: Plan) -> None:
        for run in made.runs():
            path = wanted.store.run_folder(run.id) / "record.json"
            content = full(json.loads(path.read_text()), text)
            path.write_text(json.dumps(content, ensure_ascii=False))
        path.write_text(json.dumps(content | {"status": status, "error": text}))

    return spoil


def records() -> dict[str, tuple[Spoil, int]]:
    """What is no record, or one that means ill; and the exit code of a report."""
    whole = json.dumps(dataclasses.asdict(Record("a" * 16, "done", {}, 0)))
    deep = json.dumps({"id": "x"})[:-1] + ', "config": ' + "[" * 900 + "]" * 900 + "}"
    odd: dict[str, Any] = {"null": None, "text": TEXTS[0], "a list": [[]], "a mapping": {"a": {}}}
    odd |= {"a number": 10**400, "a truth": True}
    found: dict[str, tuple[Spoil, int]] = {
        "empty": (_raw(b""), 0),
        "truncated": (_raw(whole[:40].encode()), 0),
        "a list": (_raw(b"[]"), 0),
        "binary": (_raw(bytes(range(256))), 0),
        "UTF-16": (_raw(whole.encode("utf-16")), 0),
        "deep": (_raw(deep.encode()), 0),
        "deeper": (_raw(b"[" * 10**6), 0),
        "NaN": (_raw(whole.replace('"metrics": {', '"metrics": {"a": NaN').encode()), 0),
        "1e999": (_raw(whole.replace('"metrics": {', '"metrics": {"a": 1e999').encode()), 0),
        "5,000 digits": (_raw(f'{{"version": {"9" * 5000}}}'.encode()), 0),
        "a key twice": (_raw(b'{"version": 1, "version": 1}'), 0),
        "half a pair": (_with(error="\ud800"), 0),
        "of another run": (_with(id="b" * 16), 0),
        "of a run elsewhere": (_with(id="../../../../var/owned"), 0),
        "newer": (_with(version=2), 1),
        "of a version in words": (_with(version=TEXTS[0]), 0),
        "a metric of 400 digits": (_with(metrics={"test/accuracy": 10**400}), 0),
        "a metric in words": (_with(metrics={"test/accuracy": "0.5"}), 0),
        "a huge metric": (_with(metrics={"test/accuracy": 1e308}), 0),
        "no total": (_with(seconds={"train": 1.0}), 0),
        "an endless run": (_with(seconds={"total": 1e308}), 0),
        "a curve of words": (_with(curve=["owned"]), 0),
        "a curve of lists": (_with(curve=[{"step": [], "val/accuracy": {}}]), 0),
        "gradients of nothing": (_with(gradients={"terms": 1, "steps": 1}), 0),
        "gradients of words": (
            _with(gradients={"terms": ["a"], "steps": [1], "norms": [["x"]]}),
            0,
        ),
        "gradients, ragged": (
            _with(gradients={"terms": ["a"], "steps": [1, 2], "norms": [[1]], "shares": []}),
            0,
        ),
        "references of words": (_with(references={"raw": "high"}), 0),
        "more of a record": (_with(_target_="os.system", hydra={"run": {"dir": "/srv"}}), 0),
        "a pipe": (_instead(os.mkfifo), 0),
        "a device": (_instead(lambda path: path.symlink_to("/dev/zero")), 0),
        "a folder": (_instead(Path.mkdir), 0),
        "a circle of links": (_instead(lambda path: path.symlink_to(path.name)), 1),
        "sparse": (_instead(lambda path: os.truncate(_touched(path), 2**40)), 0),
        "samples of a pipe": (_instead(os.mkfifo, "samples.npz"), 0),
        "samples of a pickle": (_instead(_pickled, "samples.npz"), 0),
        "samples that unpack to much": (_instead(_bomb, "samples.npz"), 0),
        "a run's folder leads out": (_linked(), 1),
        "all runs lead out": (_linked("runs"), 1),
        "the sweep leads out": (_linked("sweeps"), 1),
    }
    for number, field in enumerate(FIELDS):  # each is two of them, all stand for each other
        for name in (list(odd) * 2)[number % len(odd) :][:2]:
            found[f"{field} is {name}"] = (_with(**{field: odd[name]}), 0)
    found["version is a number"] = (_with(version=10**400), 1)
    for number, text in enumerate(TEXTS):
        status = ("failed", "diverged")[number % 2]
        found[f"text {number} everywhere, {status}"] = (_all(text, status), 0)
    return found


def _touched(path: Path) -> Path:
    path.touch()
    return path


def _pickled(path: Path) -> None:
    array = np.array([Runs()], dtype=object)
    np.savez(path, images=array, scores=array, kind=array, items=array)


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("items.npy", b"0" * 10**8)


def _plan(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """The saved plan changed, with the digest that it needs and the seal that it had."""

    def spoil(wanted: Request, made: Plan) -> None:
        path = wanted.folder / "plan.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def _of_cells(**changes: Any) -> Spoil:
    def change(content: dict[str, Any]) -> None:
        for cell in content["plan"]["cells"]:
            cell |= copy.deepcopy(changes)

    return _plan(change)


def _of_configs(**changes: Any) -> Spoil:
    def change(content: dict[str, Any]) -> None:
        for cell in content["plan"]["cells"]:
            cell["config"] |= changes

    return _plan(change)


def _in_place_of_plan(make: Callable[[Path], object]) -> Spoil:
    def spoil(wanted: Request, made: Plan) -> None:
        path = wanted.folder / "plan.json"
        path.unlink()
        make(path)

    return spoil


def plans() -> dict[str, tuple[Spoil, int]]:
    """Plans that the next command must not go by."""

    def says(**changes: Any) -> Spoil:
        return _plan(lambda content: content["plan"].update(changes))

    days = {"0": TEXTS[5], "x": "y", "1": [1]}
    return {
        "a plan cut off": (_in_place_of_plan(lambda path: path.write_text('{"seal": ')), 0),
        "a plan of lists": (_in_place_of_plan(lambda path: path.write_text("[]")), 0),
        "a plan too deep": (_in_place_of_plan(lambda path: path.write_text("[" * 10**6)), 0),
        "a plan of a pipe": (_in_place_of_plan(os.mkfifo), 0),
        "a plan of a device": (_in_place_of_plan(lambda path: path.symlink_to("/dev/zero")), 0),
        "a plan without a seal": (_plan(lambda content: content.pop("seal")), 0),
        "a plan with no seal": (_plan(lambda content: content.update(seal="")), 0),
        "a plan with a false seal": (_plan(lambda content: content.update(seal="ü")), 0),
        "a plan with a list as seal": (_plan(lambda content: content.update(seal=[])), 0),
        "a plan that saves": (_of_configs(save="/var/owned"), 0),
        "a plan that loads code": (_of_configs(plugins=["evil.py"]), 0),
        "a plan that calls": (_of_configs(_target_="os.system"), 0),
        "a plan that fetches": (_of_configs(data={"name": "mnist", "download": True}), 0),
        "a plan of runs elsewhere": (_of_cells(runs={"0": "../../../../var/owned"}), 0),
        "a plan of other tasks": (says(tasks=[TEXTS[0]], arms=[TEXTS[5]]), 0),
        "a plan that asks": (says(question=TEXTS[5], command=TEXTS[5], metric="=1"), 0),
        "a plan that reads": (says(watched={"/dev/zero": "", "/proc/self/environ": ""}), 0),
        "a plan of no seeds": (says(seeds=[], cells=[], arms=[]), 0),
        "a plan of days": (says(planned=days, late=["x"]), 0),
        "a plan of text": (says(cells=TEXTS[0], tuning=TEXTS[0], directions=[]), 0),
        "a plan of another file": (_plan(lambda content: content.update(file=["/etc"])), 0),
    }


def stores() -> dict[str, tuple[Spoil, int]]:
    """All of these."""
    return records() | plans()


def weights(folder: Path) -> list[tuple[str, Path]]:
    """Files that are none of weights alone."""
    linear = {"1.weight": torch.zeros(3, 4), "1.bias": torch.zeros(3)}
    saved: dict[str, Any] = {
        "code": Runs(),
        "code in a mapping": {**linear, "1.bias": Runs()},
        "a module": torch.nn.Linear(4, 3),
        "other keys": {"owned": torch.zeros(3)},
        "keys of escapes": {"\x1b[31mowned": torch.zeros(3)},
        "keys that are none": {1: torch.zeros(3)},
        "NaN": linear | {"1.bias": torch.full((3,), torch.nan)},
        "repeated": linear | {"1.weight": torch.zeros(1).expand(10**12, 4)},
        "huge": linear | {"1.weight": torch.zeros(1).expand(10**5, 10**9)},
        "nowhere": linear | {"1.bias": torch.zeros(3, device="meta")},
        "sparse": linear | {"1.weight": torch.zeros(3, 4).to_sparse()},
        "words": linear | {"1.bias": "owned"},
        "a list": [torch.zeros(3)],
    }
    folder.mkdir()
    found = []
    for number, (name, content) in enumerate(saved.items()):
        torch.save(content, folder / f"{number}.pt")
        found.append((name, folder / f"{number}.pt"))
    torch.save(
        {**linear, "1.bias": Runs()}, folder / "old.pt", _use_new_zipfile_serialization=False
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickle.dumps(linear))
        file.writestr("archive/data/0", b"\0" * 10**8)
    made: dict[str, Callable[[Path], object]] = {
        "a pickle": lambda path: path.write_bytes(pickle.dumps(Runs())),
        "a packed zip": lambda path: path.write_bytes(packed.getvalue()),
        "a zip of nothing": lambda path: path.write_bytes(b"PK\5\6" + b"\0" * 18),
        "empty": lambda path: path.touch(),
        "source": lambda path: path.write_text(CODE),
        "a folder": Path.mkdir,
        "a pipe": os.mkfifo,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a circle": lambda path: path.symlink_to(path.name),
    }
    for name, make in made.items():
        path = folder / f"{name.replace(' ', '_')}.pt"
        make(path)
        found.append((name, path))
    return [*found, ("an old file", folder / "old.pt")]


def postscript(folder: Path) -> None:
    """Pictures by their names, of which some decoders would make a program run."""
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touch) run\n"
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for number in range(10):
            (folder / name / f"{number}.png").write_bytes(text)
