"""A sweep somebody asks for, and its plan: the saved one if nothing has changed. Needs no torch."""

import contextlib
import dataclasses
import datetime
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import paths
from harness.archive import FAULTS
from harness.paths import cache_dir, config_dir
from harness.plan import Cell, Plan, Trial, Tuning
from harness.plugins import words
from harness.store import Store, StoreError, dump_json, read_text, write_atomically
from harness.summary import Records, cells_of, done_runs

if TYPE_CHECKING:
    from harness.cluster.settings import Ray, Slurm

PACKAGES = (Path(__file__).resolve().parent, Path(__file__).resolve().parent.parent / "losses")


def find(name: str) -> Path:
    """The file of a shipped sweep, or of a path to one's own.

    Raises:
        ValueError: no such file; the message has the nearest shipped name.
    """
    if (config_dir() / "task" / f"{name}.yaml").is_file():
        raise ValueError(f"'{name}' is a task, not a sweep; lossbench train task={name} loss=...")
    return paths.find("sweep", name)


def slug(name: str, overrides: Sequence[str]) -> str:
    """A folder name for a sweep, with the overrides that make it another sweep.

    >>> slug("quick", []), slug("quick", ["seeds=3"])
    ('quick', 'quick@seeds=3')
    """
    full = "@".join([name, ",".join(sorted(overrides))]) if overrides else name
    safe = re.sub(r"[^\w.=,@+-]", "_", full)
    if safe == full and len(safe.encode()) <= 100 and safe.strip("."):
        return safe
    short = safe.encode()[:80].decode(errors="ignore")  # folders' names are limited in bytes
    return f"{short}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Request:
    """A sweep somebody asks for: file, overrides of all arms, store, trackers and plug-ins.

    `launch` says on which cluster it trains, if on any.
    """

    path: Path
    overrides: tuple[str, ...]
    store: Store
    trackers: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    launch: "Slurm | Ray | None" = None

    @property
    def name(self) -> str:
        """The sweep's folder name."""
        return slug(self.path.stem, self.overrides)

    @property
    def folder(self) -> Path:
        """Where its plan and reports lie."""
        return self.store.sweep_folder(self.name)

    def digest(self) -> str:
        """Hash of all a plan is made from: file, overrides and their `oc.env`, configs, code."""
        files = [self.path, *map(Path, self.plugins), *sorted(config_dir().rglob("*.yaml"))]
        for package in PACKAGES:
            files += sorted(package.rglob("*.py"))
        parts = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        read = re.findall(r"oc\.env:\s*(\w+)", repr(self.overrides))
        parts += [str(os.environ.get(name)) for name in read]
        return hashlib.sha256("\n".join([*self.overrides, *parts]).encode()).hexdigest()


def request(name: str, overrides: Sequence[str]) -> Request:
    """Find the sweep's file, and take apart what is not for the arms.

    That is the store, trackers, plug-ins, and where to launch.

    Raises:
        ValueError: there is no such sweep or plug-in, or `launch` is wrong.
        StoreError: the store is a file.
    """
    apart = {"store": "results", "trackers": "", "plugins": ""}
    shared, launch = [], []
    for text in overrides:
        key, _, value = text.partition("=")
        if key in apart:
            apart[key] = value
        elif key.split(".")[0] == "launch":
            launch.append(text)
        else:
            shared.append(text)
    files = words(apart["plugins"])
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"plugins: there is no file {file}")
    store = store_in(apart["store"].strip("'\""))
    where = _launching(launch) if launch else None
    return Request(find(name), tuple(shared), store, words(apart["trackers"]), files, where)


def store_in(folder: str) -> Store:
    """The store in a folder, which need not be there yet.

    Raises:
        StoreError: it is a file, or lies below one.
    """
    store = Store(folder)
    for place in (store.folder, *store.folder.parents):
        with contextlib.suppress(OSError):  # told of when it is read
            if stat.S_ISDIR(place.stat().st_mode):
                continue
            above = "" if place == store.folder else f": {place}"
            raise StoreError(f"store={folder}{above} is a file, not a folder")
    return store


def _launching(given: Sequence[str]) -> "Slurm | Ray":
    from harness.cluster.settings import parse  # whose bounds load torch

    return parse(given)


def plan(wanted: Request) -> Plan:
    """The plan of a sweep: the saved one if nothing it was made from has changed, else a new one.

    Raises:
        ValueError: anything wrong in the file, the overrides or a config.
    """
    saved = _saved(wanted)
    if saved is not None:
        return saved
    from harness.build import build_plan  # composing needs torch, a saved plan does not

    return build_plan(wanted)


def save(wanted: Request, made: Plan) -> None:
    """Keep a plan for the next call.

    Raises:
        ValueError: the folder belongs to another file of the same name.
        StoreError: it cannot be written.
    """
    _refuse_other_file(wanted)
    content = {
        "digest": wanted.digest(),
        "file": str(wanted.path.resolve()),
        "plan": dataclasses.asdict(made),
    }
    sealed = {"seal": _seal(content), **content}
    write_atomically(wanted.folder / "plan.json", dump_json(sealed))


def _seal(content: dict[str, Any]) -> str:
    """What only this user can put to a plan: others' are made anew, since runs are made of them.

    Empty where no secret can be kept.
    """
    key, text = _secret(), json.dumps(json.loads(dump_json(content)), sort_keys=True)
    return hmac.new(key, text.encode(), "sha256").hexdigest() if key else ""


def _secret() -> bytes:
    """A few bytes that this user alone can read, drawn at the first use."""
    path = cache_dir() / "seal"
    with contextlib.suppress(OSError):
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
        return path.read_bytes()
    return b""


def remember(wanted: Request, made: Plan, plan: Plan, records: Records) -> Plan:
    """`made` with the day each seed was first planned, and those that came after looking (R12).

    A seed comes late if an arm and the baseline are done on one that was planned before it. In a
    sweep that is planned for the first time, those without a result come late if others have one.

    Args:
        wanted: the sweep, whose saved plan knows of earlier seeds.
        made: the plan to be saved.
        plan: the same with all that follows from the records.
        records: those there are, by run id.
    """
    try:
        stored = _content(wanted)["plan"]
        known = {int(seed): _day(day) for seed, day in stored["planned"].items()}
        late = {int(seed) for seed in stored["late"]}
    except (OSError, ValueError, *FAULTS):
        known, late = {}, set()
    seen = {seed for task in plan.tasks for seed in _done(plan, task, records)}
    new = [seed for seed in made.seeds if seed not in known]
    looked = bool(seen & known.keys())
    late |= {seed for seed in new if looked or (seen and seed not in seen)}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    planned = known | dict.fromkeys(new, now)
    return dataclasses.replace(made, planned=planned, late=sorted(late))


def _day(text: str) -> str:
    return datetime.datetime.fromisoformat(text).isoformat(timespec="seconds")


def _done(plan: Plan, task: str, records: Records) -> set[int]:
    """Seeds on which the baseline and another arm are done."""
    done = {cell.arm: set(done_runs(cell, records)) for cell in cells_of(plan, task)}
    base = done.pop(plan.baseline, set())
    return {seed for seeds in done.values() for seed in seeds & base}


def _content(wanted: Request) -> Any:
    return json.loads(read_text(wanted.folder / "plan.json"))


def _saved(wanted: Request) -> Plan | None:
    try:
        content = _content(wanted)
        if content["digest"] != wanted.digest():
            return None
        seal = str(content.pop("seal"))
        if not seal or not hmac.compare_digest(seal.encode(), _seal(content).encode()):
            return None
        stored = _by_seed(content["plan"], "planned")
        for file, known in stored["watched"].items():
            if hashlib.sha256(Path(file).read_bytes()).hexdigest() != known:
                return None
        cells = [Cell(**_by_seed(cell, "runs", "variants")) for cell in stored.pop("cells")]
        tuning = stored.pop("tuning")
        if tuning:
            trials = [Trial(**_by_seed(trial, "tried", "runs")) for trial in tuning.pop("trials")]
            tuning = Tuning(trials=trials, **tuning)
        return Plan(cells=cells, tuning=tuning, **stored)
    except (OSError, ValueError, *FAULTS):
        return None


def _by_seed(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    """With seeds, which JSON makes words of, as numbers again."""
    return content | {key: {int(seed): v for seed, v in content[key].items()} for key in keys}


def _shipped(path: Path) -> bool:
    """Whether a file is one of this project's sweeps, in whichever copy of the project."""
    return path.parent.name == "sweep" and path.parent.parent.name == "configs"


def _refuse_other_file(wanted: Request) -> None:
    """Two files of one's own with one name would overwrite each other's reports."""
    try:
        other = str(_content(wanted)["file"])
    except (OSError, ValueError, *FAULTS):
        return
    if _shipped(wanted.path) and _shipped(Path(other)):
        return
    if wanted.path.resolve().parent == (wanted.store.folder / "claims").resolve():
        return  # a claim's, written there; the store may be a copy of another
    if Path(other).exists() and not Path(other).samefile(wanted.path):
        raise ValueError(
            f"{wanted.folder} belongs to {other}; rename {wanted.path.name} or give it store=PATH"
        )
