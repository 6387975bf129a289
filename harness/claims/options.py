"""The command line of claims: parsing only."""

import argparse
from collections.abc import Callable


def add(
    command: Callable[..., argparse.ArgumentParser],
    places: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add the command that tests claims.

    Args:
        command: makes the parser of a command, of its name and its words.
        places: adds the options that say where runs train.
    """
    words = "test claims: train what is missing, judge; without a name, list them"
    claim = command("claim", words, overrides=False)
    claim.add_argument(
        "words",
        nargs="*",
        metavar="NAME",
        help="claims, YAML files, all; seeds=N, store=PATH, launch=slurm or ray",
    )
    claim.add_argument("--report", action="store_true", help="write the page of them all")
    claim.add_argument("--judge-only", action="store_true", help="train nothing")
    claim.add_argument("--retry-failed", action="store_true", help="train failed runs again")
    places(claim)
    form = claim.add_mutually_exclusive_group()
    for name in ("json", "markdown"):
        form.add_argument(
            f"--{name}", action="store_const", const=name, dest="form", help=f"print {name}"
        )
    claim.set_defaults(form="table")


def run(chosen: argparse.Namespace) -> int:
    """Do what was asked for; the exit code."""
    from harness.claims.run import show
    from harness.commands import Choice

    where = (chosen.jobs, chosen.devices, chosen.per_device)
    choice = Choice(chosen.retry_failed, None, False, *where)
    dry = chosen.judge_only
    return show(chosen.words, choice, dry=dry, form=chosen.form, report=chosen.report)
