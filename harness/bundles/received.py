"""What somebody sent, made into runs of here: configs checked, files from the command line.

What an archive says is data. Its configs go through the registries and the checks that every config
goes through; files come from the command line and must have the content that the bundle names; a
plug-in is loaded only if the command line names it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import provenance
from harness.archive import FAULTS
from harness.bundles import agreement
from harness.bundles.contents import FILES, Bundle
from harness.nested import flat
from harness.plan import Cell, Plan, PlannedRun, Trial
from harness.plugins import words
from harness.record import Record

FREE = ("data.root", "data.download", "data.memory", "trainer.workers")
"""Config keys that the command line may give: they do not decide what comes out."""


@dataclass(frozen=True)
class Given:
    """What the command line gives that an archive cannot: code, files and places of this machine.

    `files` is by sha256, `settings` by config key.
    """

    plugins: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Received:
    """A bundle and the same plan made of configs of here; `ids` has the bundle's id of each run."""

    sent: Bundle
    given: Given
    plan: Plan
    ids: dict[str, str]

    def there(self, run: PlannedRun) -> Record:
        """The bundle's record of a run."""
        return self.sent.records[self.ids[run.id]]


def given_by(sent: Bundle, overrides: Sequence[str], device: str | None) -> Given:
    """What the command line says, checked against what the bundle needs.

    Raises:
        ValueError: a word is none that it takes, a file is of other content than the bundle names,
            or a file or plug-in that the bundle needs is not given.
    """
    texts: dict[str, str] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or key not in ("plugins", "files", *FREE):
            known = ", ".join(("plugins", "files", *FREE))
            raise ValueError(f"reproduce takes {known}, got {text!r}")
        texts[key] = value
    plugins, files = words(texts.pop("plugins", "")), words(texts.pop("files", ""))
    wanted = [need.name for need in sent.manifest.needs if need.kind == "plugin"]
    if wanted and not plugins:
        raise ValueError(
            f"the bundle's losses are in code that it does not hold: give it by plugins=[FILE], "
            f"which runs with your rights; they were in {' and '.join(wanted)}"
        )
    given = {key: _value(key, text) for key, text in texts.items()}
    given["trainer.accelerator"] = device or _device(sent)
    return Given(plugins, _files(sent, files), given)


def _files(sent: Bundle, files: Sequence[str]) -> dict[str, str]:
    needs = {need.sha256: need for need in sent.manifest.needs if need.kind == "file"}
    from harness.data import file_hash

    found = {}
    for file in files:
        content = file_hash(file)
        if content not in needs:
            raise ValueError(f"files: {file} is none of what the bundle was made with")
        found[content] = file
    for content, need in needs.items():
        if content not in found:
            raise ValueError(
                f"the bundle does not hold {need.name} (sha256 {content[:12]}): give it by "
                f"files=[PATH]; it may have another name, not another content"
            )
    return found


def _value(key: str, text: str) -> Any:
    if key == "data.root":
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{key} cannot be {text!r}") from error


def _device(sent: Bundle) -> str:
    """The CPU if all runs were made there, else whatever there is."""
    devices = {str(record.provenance.get("device")) for record in sent.records.values()}
    return "cpu" if devices == {"cpu"} else "auto"


def made_here(sent: Bundle, given: Given) -> Received:
    """The bundle's plan with configs checked here, files in their places, and ids of here.

    Raises:
        ValueError: a config is refused; the message says of which arm.
    """
    from harness import plugins
    from harness.config import check, run_id

    plugins.load(given.plugins)
    known: dict[str, dict[str, Any]] = {}

    def config(place: Cell | Trial, packed: dict[str, Any]) -> dict[str, Any]:
        key = json.dumps(packed)
        if key not in known:
            try:
                known[key] = _config(packed, given)
            except (ValueError, *FAULTS) as error:
                said = " ".join(str(error).split())
                raise ValueError(f"bundle: arm {place.arm} on {place.task}: {said}") from error
        return known[key]

    def cell(made: Cell) -> Cell:
        variants = {seed: config(made, packed) for seed, packed in made.variants.items()}
        return dataclasses.replace(made, config=config(made, made.config), variants=variants)

    plan, tuning = sent.plan, sent.plan.tuning
    if tuning:
        trials = [dataclasses.replace(t, config=config(t, t.config)) for t in tuning.trials]
        tuning = dataclasses.replace(tuning, trials=trials)
    plan = dataclasses.replace(plan, cells=[cell(c) for c in plan.cells], tuning=tuning)
    new = {run.id: run_id(check(run.config), run.seed) for run in plan.runs()}
    return Received(sent, given, _renamed(plan, new), {new[old]: old for old in new})


def _renamed(plan: Plan, ids: Mapping[str, str]) -> Plan:
    """The plan with other identities of runs."""

    def named(runs: Mapping[int, str]) -> dict[int, str]:
        return {seed: ids.get(run, run) for seed, run in runs.items()}

    tuning = plan.tuning
    if tuning:
        trials = [dataclasses.replace(t, tried=named(t.tried)) for t in tuning.trials]
        tuning = dataclasses.replace(tuning, trials=trials)
    cells = [dataclasses.replace(c, runs=named(c.runs)) for c in plan.cells]
    return dataclasses.replace(plan, cells=cells, tuning=tuning)


def _config(packed: dict[str, Any], given: Given) -> dict[str, Any]:
    """A config of the archive as one of here: checked, its hashes replaced by files.

    Raises:
        ValueError: it is no config, names a file by its path, or says what only the command line
            may say.
    """
    from harness import data
    from harness.config import OWN, check, outcome

    said = flat(packed)
    for key in OWN:
        if key in packed:
            raise ValueError(f"its config must not say {key}")
    made: dict[str, Any] = json.loads(json.dumps(packed))
    for key in FILES:
        if said.get(key) is not None:
            if said[key] not in given.files:
                raise ValueError(f"{key} is no file that the manifest names")
            _put(made, key, given.files[said[key]])
    takes = data.get(made["data"]["name"]).parameters
    for key, value in given.settings.items():
        if key.startswith("trainer.") or key.removeprefix("data.") in takes:
            _put(made, key, value)
    checked = check(made)
    decided = flat(json.loads(json.dumps(outcome(checked))))
    for key, value in said.items():
        if decided.get(key, ...) != value:
            raise ValueError(f"{key} must not be said by a bundle, or not as {str(value)[:80]!r}")
    return checked.shared()


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    group, _, name = key.partition(".")
    config[group] = {**config.get(group, {}), name: value}


def changes(made: Received) -> Iterator[str]:
    """What is not as it was when the bundle was made: versions, code of losses, plug-ins."""
    import losses
    from harness.config import RECIPE
    from harness.terms import parse_objective

    sent = made.sent
    yield from agreement.unlike(sent.manifest, provenance.versions())
    names: dict[str, None] = {}
    for run in made.plan.runs():
        names |= {t.loss: None for t in parse_objective(run.config["loss"]).terms.values()}
        names |= dict.fromkeys(run.config["projection"])
    changed = [n for n in names if losses.source_hash(n) != sent.manifest.losses.get(n)]
    yield from (f"the code of {n} is not what it was when the bundle was made" for n in changed)
    plugins = {need.sha256 for need in sent.manifest.needs if need.kind == "plugin"}
    for file in made.given.plugins:
        if hashlib.sha256(Path(file).read_bytes()).hexdigest() not in plugins:
            yield f"the plug-in {file} is none that the bundle was made with"
    if sent.manifest.recipe != RECIPE:
        yield f"what a run computes (recipe {sent.manifest.recipe} there, {RECIPE} here)"
    elif not changed and (other := sum(run != before for run, before in made.ids.items())):
        yield f"configs of {other} runs have other keys here, or are not those of their records"


def check_data(made: Received, runs: Sequence[PlannedRun]) -> Iterator[str]:
    """Load every data set once; yields what is drawn from it otherwise.

    Raises:
        ValueError: it cannot be loaded, or is not the bundle's.
    """
    from harness.config import check
    from harness.prepare import load_data

    seen = set()
    for run in runs:
        there, name = made.there(run).fingerprints, run.config["data"]["name"]
        key = json.dumps(run.config["data"])
        if key in seen or "data" not in there:
            continue
        seen.add(key)
        try:
            here = load_data(dataclasses.replace(check(run.config), seed=run.seed)).fingerprints
        except (RuntimeError, MemoryError, *FAULTS) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"data {name} cannot be loaded: {said}") from error
        if here["data"] != there["data"]:
            marks = f"{there['data'][:12]} there, {here['data'][:12]} here"
            raise ValueError(f"data {name} are not those of the bundle (sha256 {marks})")
        for kind in ("split", "composed"):
            if here.get(kind) != there.get(kind):
                yield f"the {kind} of {name} is drawn otherwise here"
