"""Showing a sweep while it runs: a live table on a terminal, a line per finished run elsewhere."""

import shutil
import time
from typing import TextIO

from harness.launch import Event
from harness.plan import Cell, Plan
from harness.record import Record
from harness.shown import clean

BAR = 24


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss` or `m:ss`.

    >>> clock(65), clock(3700)
    ('1:05', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Counts ends of runs per arm and shows them."""

    def __init__(self, plan: Plan, records: dict[str, Record], to_do: int, out: TextIO) -> None:
        self.plan, self.records, self.to_do, self.out = plan, records, to_do, out
        self.before, self.total = len(records), len(records) + to_do
        self.live = out.isatty()
        self.started = self.drawn = time.monotonic()
        self.ended = 0
        self.lines = 0

    def end(self, event: Event, record: Record | None) -> None:
        """Note that a run came to an end."""
        self.ended += 1
        if record is not None:
            self.records[event.run.id] = record
        if self.live:
            self.draw()
            return
        run, count = event.run, f"{self._ended:>{len(str(self.total))}}/{self.total}"
        label, result = self._label(run.task, run.arm), self._result(event, record)
        which = f"seed {run.seed}" if run.trial is None else f"trial {run.trial} seed {run.seed}"
        print(f"[{count}] {label}  {which}  {result}", file=self.out, flush=True)

    @property
    def _ended(self) -> int:
        """How many of all runs, those before this call among them."""
        return self.before + self.ended

    def _result(self, event: Event, record: Record | None) -> str:
        if event.status != "done" or record is None:
            reason = event.error or (record.error if record else None) or "no record"
            return f"{event.status}: {clean(reason)}"
        tuned = event.run.trial is not None and self.plan.tuning
        metric = tuned.metric if tuned else self.plan.metric
        value = record.metrics.get(metric)
        shown = "missing" if value is None else f"{value:.4g}"
        return f"{metric} {shown}  {record.seconds['total']:.1f} s"

    def tick(self) -> None:
        """Draw again if the picture is getting old."""
        if self.live and time.monotonic() - self.drawn > 0.25:
            self.draw()

    def draw(self) -> None:
        """Replace the picture by a fresh one."""
        self.drawn = time.monotonic()
        picture = self._picture()
        up = f"\x1b[{self.lines}A" if self.lines else ""
        print(
            up + "".join(f"\x1b[2K{line}\n" for line in picture), end="", file=self.out, flush=True
        )
        self.lines = len(picture)

    def _picture(self) -> list[str]:
        spent = time.monotonic() - self.started
        left = spent / self.ended * (self.to_do - self.ended) if self.ended else None
        wait = "starting" if left is None else f"about {clock(left)} left"
        lines = [f"{self.plan.name}  {self._ended}/{self.total} runs  {clock(spent)}  {wait}"]
        width = max(len(self._label(cell.task, cell.arm)) for cell in self.plan.cells)
        lines += [self._line(cell, width) for cell in self.plan.cells]
        return _fit(lines)

    def _line(self, cell: Cell, width: int) -> str:
        runs = list(cell.runs.values()) or self._trials(cell)
        there = [self.records[i] for i in runs if i in self.records]
        done = [record for record in there if record.status == "done"]
        values = [r.metrics[self.plan.metric] for r in done if self.plan.metric in r.metrics]
        filled = round(BAR * len(there) / max(1, len(runs)))  # a control has no trials
        bar = "█" * filled + "·" * (BAR - filled)
        mean = f"{sum(values) / len(values):.4g}" if values else ""
        bad = f"{len(there) - len(done)} not done" if len(done) < len(there) else ""
        name = f"{self._label(cell.task, cell.arm):<{width}}"
        return f"{name}  {bar}  {len(there)}/{len(runs)}  {mean}  {bad}"

    def _trials(self, cell: Cell) -> list[str]:
        """The runs of an arm that is still being tuned."""
        mine = (cell.task, cell.arm)
        return [run.id for run in self.plan.trial_runs() if (run.task, run.arm) == mine]

    def _label(self, task: str, arm: str) -> str:
        return f"{task}  {arm}" if len(self.plan.tasks) > 1 else arm


def _fit(lines: list[str]) -> list[str]:
    """Lines cut to the terminal, since a wrapped line cannot be drawn over."""
    columns, rows = shutil.get_terminal_size()
    hidden = len(lines) - rows + 2
    shown = lines if len(lines) < rows else [*lines[: rows - 2], f"... {hidden} more arms"]
    return [line[: columns - 1] for line in shown]
