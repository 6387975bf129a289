"""Lightning's Trainer as a config asks for it: the only file that knows it."""

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from harness.checkpoint import Files
from harness.config import RunConfig
from harness.progress import clock
from harness.tasks.base import Task

DETERMINISTIC: dict[str, bool | Literal["warn"]] = {"none": False, "warn": "warn", "strict": True}


PAUSE = 30.0
"""Seconds until a run says for the first time how far it is, where it has no terminal."""


def progress() -> Callback:
    """A bar of epochs on stderr, or lines now and then where that is no terminal."""
    return TQDMProgressBar(refresh_rate=20) if sys.stderr.isatty() else _Lines()


class _Lines(Callback):
    """Says how far training is: every PAUSE seconds, in a long run after each tenth of its time."""

    def on_train_start(self, trainer: Trainer, _: Any) -> None:
        self.started = self.said = time.monotonic()
        self.first = trainer.global_step  # not 0 where a stopped run goes on

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        now, step = time.monotonic(), trainer.global_step
        spent = now - self.started
        if now - self.said < max(PAUSE, spent / 10):
            return
        self.said, steps = now, int(trainer.estimated_stepping_batches)
        left = clock(spent / max(1, step - self.first) * (steps - step))
        epochs = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        line = f"{epochs}  step {step}/{steps}  {clock(spent)}  about {left} left"
        print(line, file=sys.stderr, flush=True)


def follows() -> bool:
    """Whether this process was started by the first one of a run on several devices."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


def make_trainer(
    config: RunConfig, callbacks: Sequence[Callback], epochs: int, steps: int | None = None
) -> Trainer:
    """A Trainer for so many epochs, or for the first steps of one."""
    wanted = config.trainer
    return Trainer(
        max_epochs=epochs,
        check_val_every_n_epoch=max(1, wanted.epochs // wanted.evaluations),
        gradient_clip_val=wanted.gradient_clip,
        precision=wanted.precision,
        accelerator=wanted.accelerator,
        devices=wanted.devices,
        strategy=wanted.strategy,
        callbacks=[*callbacks],
        plugins=[Files(), LightningEnvironment()],  # whatever else this machine is part of
        deterministic=DETERMINISTIC[wanted.deterministic],
        use_distributed_sampler=False,  # Batches shares each batch itself
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
        limit_train_batches=steps,
        limit_val_batches=1 if steps else None,
    )


def fit(trainer: Trainer, task: Task, checkpoint: Path | None = None) -> None:
    """Train, and leave the model where it was trained: a Trainer takes it from a GPU at its end."""
    if checkpoint and trainer.precision == "64-true":
        task.double()  # Lightning would read the weights into single precision first
    trainer.fit(task, ckpt_path=checkpoint)
    task.to(trainer.strategy.root_device)


def check_trainer(config: RunConfig) -> None:
    """Raise ValueError if no Trainer can be made of this device, precision and strategy."""
    if config.trainer.precision == "16-mixed" and not torch.cuda.is_available():
        raise ValueError("trainer.precision=16-mixed needs a GPU; a CPU has bf16-mixed")
    try:
        with quiet():
            make_trainer(config, (), 1)
    except Exception as error:  # Lightning has no one class for what a machine cannot do
        raise ValueError(f"trainer: {str(error).partition(chr(10))[0]}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's notices off the terminal: hundreds of lines for a sweep of small runs."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            # Lightning 2.6 uses a name that torch 2.15 is about to drop; nothing a user can change
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
            yield
    except SystemExit as stop:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from stop
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
