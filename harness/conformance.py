"""`check`: the conformance suite on any loss, one's own included."""

from collections.abc import Sequence
from pathlib import Path

import losses
from harness import plugins
from losses.conformance import Finding, check


def show(name: str, files: Sequence[str] = ()) -> int:
    """Print what the suite finds for a loss, for all, or for those of a file; 0 if none fails.

    Raises:
        ValueError: no such loss or file; the message has the nearest name.
    """
    before = set(losses.names())
    own = [name] if Path(name).suffix == ".py" else []
    plugins.load([*files, *own])
    if own:
        chosen = [new for new in losses.names() if new not in before]
        if not chosen:
            raise ValueError(f"{name} registers no loss: decorate a function with losses.loss")
    else:
        chosen = losses.names() if name == "all" else [losses.get(name).name]
    failed = 0
    for each in chosen:
        findings = check(each)
        failed += sum(finding.verdict == "fail" for finding in findings)
        print("\n".join(_lines(each, findings, brief=name == "all")))
    return 1 if failed else 0


def _lines(name: str, findings: Sequence[Finding], *, brief: bool) -> list[str]:
    """One line per property, or only those that fail and a count."""
    verdicts = [finding.verdict for finding in findings]
    counts = f"{verdicts.count('pass')} pass, {verdicts.count('fail')} fail"
    lines = [f"{name}: {counts}, {verdicts.count('does not apply')} do not apply"]
    width = max(len(finding.property) for finding in findings)
    for finding in findings:
        if not brief or finding.verdict == "fail":
            row = f"  {finding.property:<{width}}  {finding.verdict:<14}  {finding.reason or ''}"
            lines.append(row.rstrip())
    return lines
