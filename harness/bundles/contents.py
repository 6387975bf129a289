"""The archive of a sweep: what it holds, and reading one that somebody sent.

A zip of `manifest.json`, `plan.json` (with the resolved config of every arm), `records/ID.json` and
`reports/`. Reading trusts nothing and runs nothing: names in configs are looked up in registries
when runs are made of them, see :mod:`harness.bundles.reproduce`. Torch is imported once the zip is
whole.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.archive import ARCHIVE, FAULTS, read_json, unpacked
from harness.nested import flat
from harness.plan import Plan
from harness.record import VERSION as RECORD
from harness.record import Record
from harness.sweep import slug

FORMAT = "lossbench bundle"
VERSION = 1
PLACES = re.compile(
    r"manifest\.json|plan\.json|records/[0-9a-f]{16}\.json|reports/[a-z_]+\.(html|json|csv|md|tex)"
)
FILES = ("data.path", "data.images", "data.test", "model.pretrained", "teacher.pretrained")
"""Config keys that name a file; a bundle has the sha256 of what lies there instead."""


@dataclass(frozen=True)
class Need:
    """A file of the user's own that the runs used and that the archive does not hold."""

    kind: Literal["file", "plugin"]
    name: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What the archive holds and what its runs were made with.

    Attributes:
        recipe: version of what a run computes, see :mod:`harness.config`.
        machine: what decides the last bits on a CPU, see :func:`harness.bundles.agreement.machine`;
            None where runs were made on several machines, another one, or a GPU.
        versions: per package every version that the records name.
        losses: sha256 of the code of each loss, penalty and projection.
        data: per data set, sha256 of what it held.
        needs: files that whoever repeats this must have.
        members: sha256 of every other member, by its name.
    """

    recipe: int
    machine: dict[str, str] | None
    versions: dict[str, list[str]]
    losses: dict[str, str]
    data: dict[str, list[str]]
    needs: list[Need]
    members: dict[str, str]
    format: str = FORMAT
    version: int = VERSION


@dataclass(frozen=True)
class Bundle:
    """An archive that has been read; `digest` is its sha256."""

    digest: str
    manifest: Manifest
    plan: Plan
    records: dict[str, Record] = field(repr=False)


def read(path: Path) -> Bundle:
    """Read and check an archive.

    Raises:
        ValueError: it is no bundle, is damaged, was changed, is too large, or is of a newer version
            of this project; one line that begins with its name.
    """
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        if path.stat().st_size > ARCHIVE:
            raise ValueError(f"it has more than {ARCHIVE >> 20} MiB")
        return parse(path.read_bytes())
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ValueError(f"bundle {path}: {reason}") from error


def parse(content: bytes) -> Bundle:
    """The same from its bytes.

    Raises:
        ValueError: as for :func:`read`.
    """
    members = unpacked(content, PLACES)
    if "manifest.json" not in members:
        raise ValueError("it has no manifest.json, so it is no bundle")
    manifest = _manifest(read_json("manifest.json", members.pop("manifest.json")))
    for name in sorted({*members, *manifest.members}):
        if name not in members:
            raise ValueError(f"its member {name} is missing")
        if hashlib.sha256(members[name]).hexdigest() != manifest.members.get(name):
            raise ValueError(f"its member {name} is not what the manifest says: it was changed")
    if "plan.json" not in members:
        raise ValueError("it has no plan.json")
    plan = _checked("plan.json", _plan, read_json("plan.json", members["plan.json"]))
    records = {}
    for name, text in members.items():
        if name.startswith("records/"):
            record = _checked(name, _record, read_json(name, text))
            if name != f"records/{record.id}.json":
                raise ValueError(f"its member {name} is the record of run {record.id!r}")
            records[record.id] = record
    _check_belonging(plan, records)
    return Bundle(hashlib.sha256(content).hexdigest(), manifest, plan, records)


def _manifest(content: dict[str, Any]) -> Manifest:
    version = content.get("version")
    if content.get("format") != FORMAT or type(version) is not int or version < 1:
        raise ValueError("its manifest is not that of a bundle")
    if version > VERSION:
        raise ValueError(
            f"it has format {version}, newer than {VERSION}: it needs a newer lossbench"
        )
    made: Manifest = _checked("manifest.json", _tables, content)
    return made


def _tables(content: dict[str, Any]) -> Manifest:
    made: Manifest = _typed(Manifest, content)
    for table in (made.machine or {}, made.losses, made.members):
        _check_all(table.values(), str)
    for lists in (made.versions, made.data):
        _check_all(lists.values(), list)
        _check_all([entry for entries in lists.values() for entry in entries], str)
    return made


def _checked(name: str, parse: Any, *arguments: Any) -> Any:
    try:
        return parse(*arguments)
    except (ValueError, *FAULTS) as error:
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"its member {name} is not as it should be: {said}") from error


def _typed(kind: type, content: dict[str, Any]) -> Any:
    """A dataclass made of JSON, its fields' types checked; what mappings hold is not."""
    from losses.arguments import convert

    return convert(kind.__name__.lower(), kind, content)


def _check_all(values: Any, *kinds: type) -> None:
    """Every value is of one of these very types, so that True is no number."""
    for value in values:
        if type(value) not in kinds:
            raise ValueError(f"{str(value)[:80]!r} stands where another type is needed")


def _plan(content: dict[str, Any]) -> Plan:
    cells = [_by_seed(cell, "runs", "variants") for cell in content["cells"]]
    tuning = content["tuning"]
    if tuning is not None:
        tuning = {**tuning, "trials": [_by_seed(t, "tried", "runs") for t in tuning["trials"]]}
    plan: Plan = _typed(Plan, {**_by_seed(content, "planned"), "cells": cells, "tuning": tuning})
    for name in (*plan.tasks, *plan.arms, *plan.controls, *plan.directions):
        if not (isinstance(name, str) and name.strip() and name.isprintable()):
            raise ValueError(f"a name must be printable text, got {name!r}")
    if plan.name != slug(plan.name, []):
        raise ValueError(f"{plan.name!r} is no name of a sweep")
    if plan.metric not in plan.directions or plan.baseline not in plan.arms or not plan.seeds:
        raise ValueError("it lacks the direction of its metric, its baseline, or seeds")
    if not {*plan.directions.values()} <= {"higher", "lower"}:
        raise ValueError("a metric is better higher or lower")
    _check_all(plan.controls.values(), int, float)
    _check_all(plan.planned.values(), str)
    _check_all(plan.differences.values(), dict)
    _check_all([config for cell in plan.cells for config in cell.variants.values()], dict)
    pairs = {(cell.task, cell.arm) for cell in plan.cells}
    pairs |= {(trial.task, trial.arm) for trial in plan.tuning.trials} if plan.tuning else set()
    for task, arm in pairs:
        if task not in plan.tasks or arm not in (*plan.arms, *plan.controls):
            raise ValueError(f"{arm!r} on {task!r} is none of its arms and tasks")
    for cell in plan.cells:
        if {*cell.runs} - {*plan.seeds} or (len(cell.runs) < len(plan.seeds) and not plan.tuning):
            raise ValueError(f"{cell.arm!r} on {cell.task!r} has not a run for every seed")
    for run in plan.runs():
        if not re.fullmatch("[0-9a-f]{16}", run.id) or run.seed < 0:
            raise ValueError(f"{run.id!r} with seed {run.seed} is no run")
    return plan


def _by_seed(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    """With seeds, which JSON makes words of, as numbers again."""
    return content | {key: {int(seed): v for seed, v in content[key].items()} for key in keys}


def _record(content: dict[str, Any]) -> Record:
    if content["version"] > RECORD:
        raise ValueError(f"a record has version {content['version']}, newer than {RECORD}")
    record: Record = _typed(Record, content)
    references = {name: _numbers(known) for name, known in record.references.items()}
    curve = [_numbers(point) for point in record.curve]
    _check_all([*record.seconds.values(), *record.metrics.values()], int, float, type(None))
    _check_all(record.fingerprints.values(), str)
    _check_all(record.notes, str)
    return dataclasses.replace(
        record,
        metrics=_numbers(record.metrics),
        seconds=_numbers(record.seconds),
        references=references,
        curve=curve,
        start=_numbers(record.start),
    )


def _numbers(table: Mapping[str, Any]) -> dict[str, float]:
    """Without nulls, which stand for what is no finite number."""
    found = {name: value for name, value in table.items() if value is not None}
    _check_all(found.values(), int, float)
    return {name: float(value) for name, value in found.items()}


def _check_belonging(plan: Plan, records: Mapping[str, Record]) -> None:
    """Every record is of a run of the plan, with that run's config and seed."""
    runs = {run.id: run for run in plan.runs()}
    for key, record in records.items():
        run = runs.get(key)
        planned = flat(run.config) if run else {}
        differs = any(planned.get(k, ...) != value for k, value in flat(record.config).items())
        if run is None or run.seed != record.seed or differs:
            raise ValueError(f"its record {key} is not of the config and seed that the plan says")
    if not records:
        raise ValueError("it has no record")
