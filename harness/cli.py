"""The command line: parsing only."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, NoReturn

from harness.claims import options as claims

if TYPE_CHECKING:
    from harness.comparison import Note

EXAMPLES = """\
examples:
  lossbench demo
  lossbench train task=classification/digits loss=focal loss.focal.gamma=1 seed=3
  lossbench train -m task=regression/diabetes loss=mse,mae,huber seed=0,1,2
  lossbench sweep imbalance
  lossbench sweep my_sweep.yaml seeds=5 trainer.epochs=10
  lossbench report dice_ce_weight penalties
  lossbench losses focal
  lossbench atlas focal bce --out my_atlas
"""

JOBS = "processes at once (one on each GPU, or else on each processor)"
CLUSTER = "launch=slurm or launch=ray trains on a cluster; its keys: harness/cluster/README.md"


class _Parser(argparse.ArgumentParser):
    """Names the nearest command where there is none of that name."""

    def error(self, message: str) -> NoReturn:
        if message.endswith("required: COMMAND"):
            self.print_help(sys.stderr)
            self.exit(2)
        wrong = re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if wrong:
            known = re.findall(r"[a-z]+", wrong[2])
            close = difflib.get_close_matches(wrong[1], known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
            message = f"there is no command '{wrong[1]}'; {hint}"
        if message.startswith("argument --"):
            self.exit(2, f"lossbench: {message.removeprefix('argument ')}\n")
        super().error(message)


class _Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        try:
            found = metadata.version("lossbench")
        except metadata.PackageNotFoundError:
            found = "from source, not installed"
        print(f"lossbench {found}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = _Parser(
        prog="lossbench",
        description="Train models under many losses and compare the results fairly.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("-V", "--version", nargs=0, action=_Version, help="print the version")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, words: str, *, overrides: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=words, description=words)
        if overrides:
            added.add_argument(
                "overrides", nargs="*", default=[], help="key=value, as Hydra takes them"
            )
        return added

    train = command("train", "train once, or with -m once per point of a product of values")
    train.add_argument("-m", "--multirun", action="store_true", help="Hydra's multirun")
    for name, words in (
        ("sweep", "plan a sweep, train what is missing, report; the same call resumes"),
        ("plan", "show what a sweep would do; trains nothing"),
        ("report", "compare the records there are, also of a half-finished sweep, or of several"),
    ):
        added = commands.add_parser(name, help=words, description=words)
        if name == "sweep":
            added.epilog = CLUSTER
        added.add_argument("name", help="a shipped sweep, or the path of a YAML file")
        help_ = "key=value for all arms, seeds=N, store=PATH"
        help_ += ", launch=slurm or ray" if name == "sweep" else ""
        help_ += "; names of more sweeps, for one page of all" if name == "report" else ""
        added.add_argument("overrides", nargs="*", default=[], help=help_)
        help_ = "exit code 3 if there is any alarm or warning"
        added.add_argument("--strict", action="store_true", help=help_)
        if name == "sweep":
            added.add_argument(
                "--retry-failed", action="store_true", help="train failed runs again"
            )
            added.add_argument("--only", metavar="PATTERN", help="arms (or task/arm) that match")
            added.add_argument("--force", action="store_true", help="train also what is done")
        if name == "report":
            help_ = "metric to show against the headline's; else one is chosen by rule"
            added.add_argument("--against", metavar="METRIC", help=help_)
        else:
            _add_places(added)
    claims.add(command, _add_places)
    command("demo", "a small sweep on real data, ending in a table and a report")
    _add_bundles(command)
    _add_describing(command)
    words = "check versions, GPUs, extras, disk, store, then (a minute or more) losses and configs"
    command("doctor", words)
    return top


def _add_places(added: argparse.ArgumentParser) -> None:
    """The options that say where runs train."""
    added.add_argument("--jobs", type=_positive, metavar="N", help=JOBS)
    help_ = "GPUs to use, such as 0,1 (all that can be seen)"
    added.add_argument("--devices", metavar="LIST", help=help_)
    added.add_argument("--per-device", type=_positive, metavar="K", help="runs on each GPU (1)")


def _add_bundles(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that hand a sweep to others, and repeat what others handed over."""
    added = command("bundle", "write a sweep as one archive, to be repeated", overrides=False)
    added.add_argument("name", help="a shipped sweep, or the path of a YAML file")
    added.add_argument("overrides", nargs="*", default=[], help="those of the sweep, store=PATH")
    added.add_argument("--output", metavar="FILE", help="the archive (NAME.zip)")
    again = command("reproduce", "repeat the runs of such an archive", overrides=False)
    again.add_argument("archive", help="what bundle wrote")
    again.add_argument(
        "overrides", nargs="*", default=[], help="plugins=[FILE], files=[PATH], data.root=PATH"
    )
    again.add_argument("--sample", type=_positive, metavar="K", help="K runs, spread over arms")
    again.add_argument("--store", metavar="FOLDER", help="for its records (below results)")
    again.add_argument("--device", choices=("cpu", "gpu", "auto"), help="as the bundle if not said")
    again.add_argument("--jobs", type=_positive, metavar="N", help=JOBS)


def _add_describing(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that describe what there is, or try it out."""
    for name, words in (
        ("losses", "list losses and penalties, or describe one"),
        ("tasks", "list tasks, their data and metrics"),
        ("data", "list data sets and their parameters, describe one, or draw it: data show NAME"),
        ("check", "run the conformance suite on a loss, on all, or on those of a Python file"),
    ):
        described = command(name, words, overrides=False)
        described.add_argument(
            "words", nargs="*", metavar="NAME", help="one entry; plugins=[FILE.py] adds losses"
        )
        if name == "data":
            described.add_argument(
                "--out", metavar="FOLDER", help="for pictures (results/data/NAME)"
            )
    atlas = command(
        "atlas", "measure what losses are like; a table, and a page with pictures", overrides=False
    )
    atlas.add_argument(
        "words", nargs="*", metavar="NAME", help="losses or Python files; plugins=[FILE.py] adds"
    )
    atlas.add_argument("--out", metavar="FOLDER", default="results/atlas", help="for the page")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got '{text}'")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code.

    0 if it worked, 1 for a failure, 2 for wrong input, 3 for alarms or warnings under --strict, 4
    if a bundle was not reproduced, 130 for Ctrl-C.
    """
    from harness.commands import Stopped
    from harness.slots import LaunchError
    from harness.store import StoreError

    chosen, beyond = parser().parse_known_args(arguments)
    try:
        _take_rest(chosen, beyond)
        code = _run(chosen)
        sys.stdout.flush()  # here, where a reader that has gone away is expected
        return code
    except ValueError as error:
        if os.environ.get("LOSSBENCH_DEBUG"):
            raise
        _complain(error)
        return 2
    except (StoreError, LaunchError) as error:
        _complain(error)
        return 1
    except (Stopped, KeyboardInterrupt) as stop:
        print(f"\nlossbench: {str(stop) or 'stopped; the same command goes on'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _complain(error: Exception) -> None:
    """One line on stderr, in which nothing can steer the terminal."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
    print(f"lossbench: {shown}", file=sys.stderr)


def _take_rest(chosen: argparse.Namespace, beyond: Sequence[str]) -> None:
    """Overrides such as ~key look like nothing argparse knows; true options beyond it are wrong."""
    more = getattr(chosen, "overrides", getattr(chosen, "words", None))
    wrong = [text for text in beyond if text.startswith("-") or more is None]
    if wrong:
        raise ValueError(
            f"{chosen.command} has no option {wrong[0]}; see lossbench {chosen.command} -h"
        )
    if more is not None:
        more += beyond


def _run(chosen: argparse.Namespace) -> int:
    from harness import commands

    if chosen.command == "train":
        from harness.train import multirun, train

        return (multirun if chosen.multirun else train)(chosen.overrides)
    if chosen.command == "sweep":
        which = (chosen.retry_failed, chosen.only, chosen.force)
        choice = commands.Choice(*which, chosen.jobs, chosen.devices, chosen.per_device)
        return _judged(commands.sweep(chosen.name, chosen.overrides, choice), chosen.strict)
    if chosen.command == "plan":
        where = (chosen.jobs, chosen.devices, chosen.per_device)
        choice = commands.Choice(False, None, False, *where)
        notes = commands.plan(chosen.name, chosen.overrides, choice)
        return _judged(notes, chosen.strict)
    if chosen.command == "report":
        from harness.reports import report

        notes = report([chosen.name, *chosen.overrides], chosen.against)
        return _judged(notes, chosen.strict)
    if chosen.command == "bundle":
        commands.bundle(chosen.name, chosen.overrides, chosen.output)
        return 0
    if chosen.command == "reproduce":
        from harness.bundles import reproduce

        how = reproduce.Choice(chosen.sample, chosen.store, chosen.device, chosen.jobs)
        return reproduce.reproduce(chosen.archive, chosen.overrides, how)
    if chosen.command == "claim":
        return claims.run(chosen)
    if chosen.command == "demo":
        commands.demo(chosen.overrides)
    elif chosen.command == "doctor":
        from harness.doctor import doctor

        return doctor(chosen.overrides)
    elif chosen.command == "atlas":
        from harness.atlas import show as atlas

        return atlas(*_names_and_files(chosen.words), chosen.out)
    elif chosen.command == "data" and chosen.words[:1] == ["show"]:
        from harness.pictures import show

        return show(chosen.words[1:], chosen.out)
    else:
        return _describe(chosen.command, chosen.words)
    return 0


def _judged(notes: "Sequence[Note]", strict: bool) -> int:
    """3 where strictness is asked for and something is wrong, else 0."""
    from harness.fairness import serious

    found = serious(notes) if strict else []
    if found:
        print(f"lossbench: alarms and warnings above: {len(found)}", file=sys.stderr)
    return 3 if found else 0


def _names_and_files(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Names, and the files of plugins=[...]."""
    from harness.plugins import words as items

    wrong = [word for word in words if "=" in word and not word.startswith("plugins=")]
    if wrong:
        raise ValueError(f"atlas takes names and plugins=[FILE.py], got {wrong[0]}")
    given = [items(w.removeprefix("plugins=")) for w in words if w.startswith("plugins=")]
    return [word for word in words if "=" not in word], tuple(f for files in given for f in files)


def _describe(command: str, words: Sequence[str]) -> int:
    from harness.plugins import words as items

    names = [word for word in words if "=" not in word]
    files = [items(word.removeprefix("plugins=")) for word in words if word.startswith("plugins=")]
    if len(names) > 1 or len(names) + len(files) < len(words) or len(files) > 1:
        raise ValueError(f"{command} takes one name and plugins=[FILE.py], got {' '.join(words)}")
    if command == "check":
        from harness.conformance import show as check

        return check(names[0] if names else "all", files[0] if files else ())
    from harness.catalogue import show

    show(command, names[0] if names else None, files[0] if files else ())
    return 0
