"""Making the archive of a sweep: the same bytes whenever the same things are in it.

Nothing of the machine's folders goes into it: file names in configs become the sha256 of what lies
there, and paths in what runs said become the last part of them. Files of the user's own are named
in the manifest by their sha256 and are not packed; nor is anything that was predicted.
"""

import dataclasses
import hashlib
import io
import os
import platform
import re
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import plugins
from harness.bundles.agreement import machine
from harness.bundles.contents import FILES, Manifest, Need, parse
from harness.nested import flat
from harness.plan import Cell, Plan, Trial
from harness.record import Record
from harness.store import StoreError, dump_json
from harness.sweep import Request, slug

_PATH = re.compile(r"(?<![\w./])(?:~\w*)?(?:/[^\s/'\"<>:;,]+)+/([^\s/'\"<>:;,]+)")
_KEPT = ("config", "variants", "settings", "ranges")
"""Parts of a plan or a record that hold no path once their file names are hashes."""


def bundle(
    wanted: Request, plan: Plan, records: Mapping[str, Record], output: str | None
) -> tuple[Path, list[Need]]:
    """Write the archive of a sweep, by default `NAME.zip` in this folder.

    Returns its path, and the files that it names but does not hold.

    Raises:
        ValueError: there is no record, something of that name is there already, or what would be
            packed names a folder of this machine.
        StoreError: it cannot be written.
    """
    if not records:
        raise ValueError(f"there is no record of {wanted.name} yet; run: {plan.command}")
    path = Path(output or f"{wanted.name}.zip")
    if path.exists() or path.is_symlink():
        raise ValueError(f"{path} is there already; choose another name with --output")
    content = packed(wanted, plan, records)
    needs = parse(content).manifest.needs  # before anything is written that could not be read
    write(path, content)
    return path, needs


def packed(wanted: Request, plan: Plan, records: Mapping[str, Record]) -> bytes:
    """The archive as bytes."""
    needs = {_need("plugin", file) for file in wanted.plugins}
    places = places_of(wanted)
    ready = _plan(wanted, plan, places, needs)
    cleaned: dict[str, Record] = {run: without(each, places) for run, each in records.items()}
    members = {f"records/{run}.json": _text(record) for run, record in cleaned.items()}
    members |= {"plan.json": _text(ready), **_reports(ready, cleaned)}
    manifest = _manifest(cleaned, needs, members)
    members["manifest.json"] = _text(manifest)
    for name, content in members.items():
        if found := places.search(content.decode()):
            raise ValueError(f"{name} of the bundle would name the folder {found[0]}")
    return _zipped(members)


def write(path: Path, content: bytes) -> None:
    """Write a new file whole or not at all, never in place of another.

    Raises:
        ValueError: there is a file of that name.
        StoreError: it cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            try:
                os.link(temporary, path)  # which unlike a rename takes no other file's place
            except FileExistsError:
                raise
            except OSError:  # no links on this file system
                if path.exists():
                    raise FileExistsError from None
                Path(temporary).rename(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except FileExistsError as error:
        raise ValueError(f"{path} is there already; choose another name with --output") from error
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def _zipped(members: Mapping[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in sorted(members.items()):
            info = zipfile.ZipInfo(name)  # dated 1980
            info.create_system, info.external_attr = 3, 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return written.getvalue()


def _text(value: Any) -> bytes:
    return dump_json(dataclasses.asdict(value)).encode("utf-8", "replace")


def _need(kind: Any, path: str, known: str | None = None) -> Need:
    place = Path(path).expanduser()
    return Need(kind, place.name, known or hashlib.sha256(place.read_bytes()).hexdigest())


def _plan(wanted: Request, plan: Plan, places: re.Pattern[str], needs: set[Need]) -> Plan:
    """The plan without anything of this machine; what its configs need is noted in `needs`."""

    plugins.load(wanted.plugins)  # the plan may come from a file, and its losses from elsewhere

    def cell(made: Cell) -> Cell:
        variants = {seed: _config(config, needs) for seed, config in made.variants.items()}
        config = _config(made.config, needs)
        return dataclasses.replace(made, config=config, variants=variants, seconds=0.0)

    def trial(made: Trial) -> Trial:
        return dataclasses.replace(made, config=_config(made.config, needs))

    overrides = [_override(text) for text in plan.overrides]
    name = slug(wanted.path.stem, overrides)
    tuning = plan.tuning
    if tuning:
        tuning = dataclasses.replace(tuning, trials=[trial(each) for each in tuning.trials])
    ready = dataclasses.replace(
        plan,
        name=name,
        command=f"lossbench reproduce {name}.zip",
        overrides=overrides,
        watched={},
        cells=[cell(each) for each in plan.cells],
        tuning=tuning,
    )
    cleaned: Plan = without(ready, places)
    if len({*cleaned.arms}) < len(plan.arms) or len({*cleaned.tasks}) < len(plan.tasks):
        raise ValueError("two arms or tasks differ in a folder's name alone: rename them")
    return cleaned


def _config(config: Mapping[str, Any], needs: set[Need]) -> dict[str, Any]:
    """What decides the outcome, with hashes for files, which are noted."""
    from harness.config import check, outcome

    plain, found = flat(config), outcome(check(config))
    for key, value in flat(found).items():
        if key in FILES and value:
            needs.add(_need("file", plain[key], value))
    return found


def _override(text: str) -> str:
    key, equals, value = text.partition("=")
    path = key.lstrip("+~") in (*FILES, "data.root")
    return f"{key}{equals}{Path(value).name}" if path else text


def places_of(wanted: Request) -> re.Pattern[str]:
    """Folders of this machine that could stand in what a run said."""
    store, sweep = wanted.store.folder.resolve(), wanted.path.resolve().parent
    known = {str(place) for place in (Path.home(), Path.cwd(), store, sweep)} - {"/"}
    longest = "|".join(re.escape(place) for place in sorted(known, key=len, reverse=True))
    return re.compile(rf"(?<![\w./~-])(?:{longest})(?:/|(?![\w.-]))")


def without(value: Any, places: re.Pattern[str]) -> Any:
    """The same with every path in its texts cut down to the last part."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        changed = {n: v if n in _KEPT else without(v, places) for n, v in fields.items()}
        return dataclasses.replace(value, **changed)
    if isinstance(value, dict):
        return {without(key, places): without(entry, places) for key, entry in value.items()}
    if isinstance(value, list):
        return [without(entry, places) for entry in value]
    return _PATH.sub(r"\1", places.sub("", value)) if isinstance(value, str) else value


def _reports(plan: Plan, records: Mapping[str, Record]) -> dict[str, bytes]:
    """The exports and the page, without pictures of test items."""
    from harness.report import write_report

    with tempfile.TemporaryDirectory() as folder:
        write_report(plan, records, folder)
        files = sorted(Path(folder).iterdir())
        return {f"reports/{file.name}": file.read_bytes() for file in files}


def _manifest(
    records: Mapping[str, Record], needs: set[Need], members: Mapping[str, bytes]
) -> Manifest:
    import losses
    from harness.config import RECIPE
    from harness.terms import parse_objective

    versions: dict[str, set[str]] = defaultdict(set)
    data: dict[str, set[str]] = defaultdict(set)
    names: set[str] = set()
    for record in records.values():
        for package, version in record.provenance.get("versions", {}).items():
            versions[package].add(str(version))
        if "data" in record.fingerprints:
            data[record.config["data"]["name"]].add(record.fingerprints["data"])
        names |= {term.loss for term in parse_objective(record.config["loss"]).terms.values()}
        names |= {*record.config["projection"]}
    told = [record.provenance for record in records.values()]
    same = all(p.get("platform") == platform.platform() and p.get("device") == "cpu" for p in told)
    return Manifest(
        recipe=RECIPE,
        machine=machine() if same else None,
        versions={package: sorted(found) for package, found in sorted(versions.items())},
        losses={name: losses.source_hash(name) for name in sorted(names)},
        data={name: sorted(found) for name, found in sorted(data.items())},
        needs=sorted(needs, key=lambda need: (need.kind, need.name, need.sha256)),
        members={n: hashlib.sha256(text).hexdigest() for n, text in sorted(members.items())},
    )
