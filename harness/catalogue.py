"""Listing what there is. Read once from the code, then from a cache that knows the code's hash."""

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import plugins
from harness.paths import config_dir
from harness.store import StoreError, dump_json, write_atomically
from harness.sweep import PACKAGES

Entry = dict[str, Any]
TARGETS = {
    "index": "one class of several, by its index",
    "index or probabilities": "one class, or a distribution over classes",
    "probabilities": "a distribution over classes; indices are taken for one-hot rows",
    "ordinal": "ordered classes",
    "place": "a number, by bins",
    "binary": "yes or no, of each item, label or pixel",
    "real": "numbers",
    "boxes": "corners of boxes",
    "labels": "embeddings, by which of them belong together",
    "fields": "several named tensors, see the loss's own page",
    "parameters": "penalties on the model's parameters, as terms",
    "a step": "projections of the parameters after each step: projection=NAME",
}
"""What a loss compares its output with, in the order of the list, in words."""


def show(group: str, name: str | None, files: Sequence[str] = ()) -> None:
    """Print the table of a group, or one entry of it; plug-in files add their losses.

    `monai/DiceLoss` is an entry too, and `monai` alone lists the losses of that library.

    Raises:
        ValueError: no such entry; the message has the nearest name.
    """
    if group == "losses" and name and "/" in name:
        import losses

        print(_page(name, _loss(losses.get(name))))
        return
    entries = catalogue(group, files)
    if name is None:
        print(_table(entries))
        return
    if name not in entries:
        from losses.arguments import nearest
        from losses.peer_table import LIBRARIES
        from losses.peers import names

        if group == "losses" and name in LIBRARIES:
            print("\n".join(names(name)))
            return
        one = {"losses": "loss", "tasks": "task", "data": "data set"}[group]
        raise ValueError(f"there is no {one} '{name}'{nearest(name, entries)}")
    print(_page(name, entries[name]))


def catalogue(group: str, files: Sequence[str] = ()) -> dict[str, Entry]:
    """All entries of a group (losses, tasks, data) by name."""
    path = _cache_path(group, files)
    try:
        found: dict[str, Entry] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        plugins.load(files)
        made = {"losses": _losses, "tasks": _tasks, "data": _data}[group]()
    with contextlib.suppress(StoreError):  # a home that cannot be written costs time, nothing else
        write_atomically(path, dump_json(made))
    return made


def _cache_path(group: str, files: Sequence[str]) -> Path:
    packages = [str(entry.dist) for entry in importlib.metadata.entry_points(group=plugins.GROUP)]
    hashed = hashlib.sha256(" ".join([*files, *packages]).encode())
    for plugin in map(Path, files):
        hashed.update(plugin.read_bytes() if plugin.is_file() else b"")
    for folder, pattern in [(p, "*.py") for p in PACKAGES] + [(config_dir(), "*.yaml")]:
        for file in sorted(folder.rglob(pattern)):
            hashed.update(file.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "lossbench" / f"{group}-{hashed.hexdigest()[:16]}.json"


def _losses() -> dict[str, Entry]:
    import losses

    found: dict[str, Entry] = {}
    for name in losses.names():
        found[name] = _loss(losses.get(name))
    for name in losses.penalty_names():
        penalty = losses.get_penalty(name)
        found[name] = _described(penalty) | {"target": "parameters", "source": penalty.source}
    for name in losses.projection_names():
        rule = losses.get_projection(name)
        found[name] = _described(rule) | {"target": "a step", "source": rule.source}
    return found


def _loss(entry: Any) -> Entry:
    kinds = ("saturating", "unbounded", "detached", "nonmonotone")
    declared = {kind: getattr(entry, kind) for kind in kinds if getattr(entry, kind)}
    return _described(entry) | {"target": entry.target, "source": entry.source, **declared}


def _described(entry: Any) -> Entry:
    text = inspect.getdoc(entry.function) or ""
    return {
        "summary": " ".join(text.partition("\n\n")[0].split()),
        "text": text,
        "parameters": [str(parameter) for parameter in entry.parameters.values()],
    }


def _data() -> dict[str, Entry]:
    from harness import data

    found = {}
    for name in data.names():
        entry = data.get(name)
        about = {"kind": entry.kind or "as data.kind says", "source": entry.source}
        about |= {"needs": entry.needs} if entry.needs else {}
        found[name] = (
            _described(entry) | about | ({"licence": entry.licence} if entry.licence else {})
        )
    return found


def _tasks() -> dict[str, Entry]:
    """Every task config: its comment, what it composes to, and its metrics."""
    folder = config_dir() / "task"
    found = {}
    for path in sorted(folder.rglob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comments = [li.removeprefix("# ") for li in lines if li.startswith("# ") and "@" not in li]
        rest = [line for line in lines if line and not line.startswith("#")]
        name = path.relative_to(folder).with_suffix("").as_posix()
        found[name] = {
            "summary": " ".join(comments),
            "text": "\n".join([*comments, "", *rest]),
            "parameters": _settings(name),
            **_metrics(name),
        }
    return found


def _settings(task: str) -> list[str]:
    """What a config may say of a task, `task.NAME=VALUE`."""
    from harness import tasks
    from losses.arguments import parameters_of

    known = parameters_of(tasks.get(task.partition("/")[0]).Settings)
    return [f"task.{parameter}" for parameter in known.values()]


def _metrics(task: str) -> dict[str, str]:
    """Metrics of a task, where it brings the data with it that they depend on."""
    from harness import data, tasks
    from harness.compose import compose
    from harness.prepare import load_data

    try:
        config = compose([f"task={task}", "loss=mse"])
    except ValueError:  # the user's own file is needed
        return {}
    needs = data.get(config.data["name"]).needs
    if needs:  # files that are read by a run alone
        return {"needs": needs}
    judged = tasks.get(config.task["name"]).yardsticks(load_data(config))
    words = {n: f" ({y.direction} is better)" if y.direction else "" for n, y in judged.items()}
    return {"metrics": ", ".join(name + direction for name, direction in words.items())}


def _table(entries: Mapping[str, Entry]) -> str:
    """A line per entry, losses below what they compare with."""
    width = max(map(len, entries))
    lines = {name: f"{name:<{width}}  {_brief(e['summary'])}" for name, e in entries.items()}
    groups: dict[str, list[str]] = {target: [] for target in TARGETS}
    for name, entry in entries.items():
        groups.setdefault(entry.get("target", ""), []).append(f"  {lines[name]}")
    if groups.get(""):
        return "\n".join(lines.values())
    blocks = [[f"{key}: {TARGETS[key]}", *group] for key, group in groups.items() if group]
    return "\n\n".join("\n".join(block) for block in blocks)


def _page(name: str, entry: Entry) -> str:
    shown = [name, "", _plain(entry["text"])]
    if entry["parameters"]:
        shown += ["", "parameters", *(f"  {text}" for text in entry["parameters"])]
    about = {k: v for k, v in entry.items() if k not in ("summary", "text", "parameters")}
    return "\n".join([*shown, "", *(f"{key:<12}{value}" for key, value in about.items())]).rstrip()


def _brief(summary: str) -> str:
    """Its words; an entry's own page has the formula."""
    return _plain(re.sub(r"[,:]?\s+:math:`.*", ".", summary))


def _plain(text: str) -> str:
    """Docstring markup as a terminal shows it."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text)
