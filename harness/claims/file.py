"""The schema of a claim file, and reading one."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import paths
from harness.claims.claim import Claim, Contrast
from harness.paths import config_dir, shipped
from harness.sweepfile import load
from losses.arguments import check_arguments, nearest, parameters_of


@dataclass(frozen=True)
class ClaimFile:
    """What a claim file may say; `for` and `against` stand there without the line below.

    Attributes:
        claim: the sentence, in our own words.
        contrast: what must come out, one mapping or a list of them.
        sweep: what a sweep file says, `metric` and `baseline` being those of the first contrast if
            not said; or the name of a shipped sweep.
        notes: where the sentence stands.
        for_: what would count for it, in words.
        against_: what would count against it.
        outcome: what came out when it was run, in words.
        plugin: a Python file beside it with losses of its own. A plug-in is code, so that only a
            shipped claim may name one; for others there is `plugins=[FILE]` on the command line.
    """

    claim: str
    contrast: Mapping[str, Any] | list[Mapping[str, Any]]
    sweep: Mapping[str, Any] | str
    notes: str = ""
    for_: str = ""
    against_: str = ""
    outcome: str = ""
    plugin: str = ""


def folder() -> Path:
    """Where the shipped claims are."""
    return config_dir() / "claim"


def names() -> list[str]:
    """Names of the shipped claims, sorted."""
    return [*shipped("claim")]


def find(name: str) -> Path:
    """The file of a shipped claim, or of a path to one's own.

    Raises:
        ValueError: no such file; the message has the nearest shipped name.
    """
    return paths.find("claim", name, "all")


def read(path: Path) -> Claim:
    """Read and check a claim file; its sweep is checked when it is planned.

    Raises:
        ValueError: it is no YAML, or a key is unknown, missing, or of the wrong type.
    """
    content = load(path, "claim")
    owner = f"claim {path.stem}"
    if not isinstance(content, Mapping):
        raise ValueError(f"{owner} must be a mapping, got {type(content).__name__}")
    allowed = {name.rstrip("_"): each for name, each in parameters_of(ClaimFile).items()}
    given = {str(key): value for key, value in content.items()}
    checked = {k: _line(owner, k, v) for k, v in check_arguments(owner, allowed, given).items()}
    said = checked["contrast"]
    contrasts = [_contrast(owner, each) for each in (said if isinstance(said, list) else [said])]
    if not contrasts:
        raise ValueError(f"{owner}.contrast must have at least one entry, got []")
    if checked.get("plugin") and path.parent != folder():
        raise ValueError(f"{owner}.plugin: only shipped claims name one; plugins=[FILE] does here")
    return Claim(
        name=path.stem,
        path=path,
        claim=checked["claim"],
        contrasts=contrasts,
        sweep=_sweep(checked["sweep"], checked["claim"], contrasts[0]),
        notes=checked.get("notes", ""),
        supports=checked.get("for", ""),
        contradicts=checked.get("against", ""),
        outcome=checked.get("outcome", ""),
        plugin=checked.get("plugin", ""),
    )


def _line(owner: str, key: str, value: Any) -> Any:
    """Text in one printable line; anything else as it is."""
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())
    if not text.isprintable() or (key in ("claim", "sweep") and not text):
        raise ValueError(f"{owner}.{key} must be printable text, got {value!r}")
    return text


def _contrast(owner: str, given: Mapping[str, Any]) -> Contrast:
    owner = f"{owner}.contrast"
    plain = {str(key): value for key, value in given.items()}
    made = Contrast(**check_arguments(owner, parameters_of(Contrast), plain))
    if made.arm == made.against:
        raise ValueError(f"{owner} must compare two arms, got '{made.arm}' twice")
    least = "> 0 where direction is equal" if made.direction == "equal" else ">= 0"
    if made.margin < 0 or (made.direction == "equal" and not made.margin):
        raise ValueError(f"{owner}.margin must be {least}, got {made.margin:g}")
    return made


def _sweep(said: Mapping[str, Any] | str, claim: str, first: Contrast) -> dict[str, Any] | str:
    if isinstance(said, str):
        return said
    own = {str(key): value for key, value in said.items()}
    return {"question": claim, "metric": first.metric, "baseline": first.against, **own}


def check_contrasts(
    claim: Claim,
    tasks: list[str],
    arms: list[str],
    metrics: Collection[str],
    trained: Mapping[str, Collection[tuple[str, str]]],
) -> Claim:
    """The claim with every contrast's task filled in, if its sweep has what they name.

    Args:
        claim: as it was read.
        tasks, arms: those of its sweep.
        metrics: what every run records.
        trained: what only some record, `train/TERM`, with the (task, arm) that do.

    Raises:
        ValueError: there is no such arm, metric or task, the message has the nearest name; or one
            arm of a contrast does not record its `train/TERM`.
    """
    owner = f"claim {claim.name}.contrast"
    settled = []
    for contrast in claim.contrasts:
        task = contrast.task or (tasks[0] if len(tasks) == 1 else None)
        if task is None:
            raise ValueError(f"{owner}.task must say which of the tasks {', '.join(tasks)}")
        for key, name, known in (
            ("arm", contrast.arm, arms),
            ("against", contrast.against, arms),
            ("task", task, tasks),
            ("metric", contrast.metric, [*metrics, *trained]),
        ):
            if name not in known:
                raise ValueError(f"{owner}.{key}: the sweep has no '{name}'{nearest(name, known)}")
        for arm in (contrast.arm, contrast.against):
            if contrast.metric not in metrics and (task, arm) not in trained[contrast.metric]:
                raise ValueError(
                    f"{owner}.metric must be a term that both arms have among several or with a "
                    f"schedule, got {contrast.metric}, which '{arm}' does not record"
                )
        settled.append(dataclasses.replace(contrast, task=task))
    return dataclasses.replace(claim, contrasts=settled)
