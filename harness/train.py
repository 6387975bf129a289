"""`train`: one run, or with -m Hydra's own multirun over our configs and with its launchers."""

import os
import sys
from collections.abc import Sequence

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.compose import compose, expand, register, with_settings
from harness.config import RunConfig, check, run_id
from harness.nested import flat
from harness.paths import config_dir
from harness.record import Record, weights_kept
from harness.run import check_ready, run_once
from harness.shown import clean, printable
from harness.slots import ON_GPUS, processors
from harness.store import Store, StoreError
from harness.sweep import store_in
from harness.trainer import follows, progress


def train(overrides: Sequence[str]) -> int:
    """One run: its record, and its metrics on the terminal; 0 if it is done, 1 otherwise.

    Raises:
        ValueError: something is wrong with the config; nothing was trained.
        StoreError: the store is a file, or cannot be written.
    """
    config = compose(overrides)
    store_in(config.store)
    check_ready(config)
    return train_one(config)


def _check_processors(config: RunConfig) -> None:
    """GPUs are counted with the config."""
    trainer, there = config.trainer, processors()
    gpu = trainer.accelerator in ON_GPUS and torch.cuda.device_count()
    if not gpu and trainer.devices > there:
        words = f"trainer.devices={trainer.devices}, but {there} processors can be used"
        raise ValueError(f"{words}, one for each process")


def train_one(config: RunConfig, *, brief: bool = False) -> int:
    """Train one checked config, or show the record if it is done; brief is one line."""
    _check_processors(config)
    store = Store(config.store)
    there = store.read(run_id(config, config.seed))
    again = there is not None and there.status != "done"
    record = run_once(config, store, force=again, callbacks=[progress()])
    if follows():
        return 0
    if record is None:
        print("another process is training this run")
        return 1
    print(headline(record) if brief else describe(record, store))
    if config.save:
        print(f"weights   {config.save}")
    if there is not None and there == record:
        day = clean(record.provenance.get("finished", "an unknown day"))
        print(f"was done on {day}; nothing trained")
    return 0 if record.status == "done" else 1


def headline(record: Record) -> str:
    """What a run was and, where it is done, its test metrics, in one line."""
    settings = flat(record.config)  # of whatever shape, if somebody sent the store
    parts = [key.split(".") for key in settings]
    found = dict.fromkeys(rest[0] for group, *rest in parts if group == "loss" and rest)
    terms = "+".join(name for name in found if name not in ("mix", "p"))
    what = f"{record.id}  {settings.get('data.name')}  {terms}  seed {record.seed}"
    test = {n.partition("/")[2]: v for n, v in record.metrics.items() if n.startswith("test/")}
    shown = "  ".join(f"{name} {value:.4g}" for name, value in test.items())
    return printable(f"{what}  {record.error or shown}".replace("\n", " "))


def describe(record: Record, store: Store) -> str:
    """A record for a person: status, metrics, where it lies."""
    lines = [f"run       {headline(record).partition('  seed ')[0]}  seed {record.seed}"]
    lines.append(f"status    {record.status}")
    if record.error:
        lines.append(f"error     {clean(record.error)}")
    lines += [f"note      {clean(note)}" for note in record.notes]
    if record.parameters and record.seconds:
        took = f"{record.steps} steps in {record.seconds['total']:.1f} s"
        devices = clean(record.provenance.get("devices", 1))
        where = f" on {devices} devices" if devices != "1" else ""
        lines.append(f"model     {record.parameters} parameters, {took}{where}")
    names = sorted({name.partition("/")[2] for name in record.metrics})
    if names:
        others = "".join(f"{clean(name):>14}" for name in record.references)
        lines.append(f"{'metric':<24}{'val':>12}{'test':>12}{others}")
    for name in names:
        pair = [record.metrics.get(f"{split}/{name}") for split in ("val", "test")]
        pair += [metrics.get(f"test/{name}") for metrics in record.references.values()]
        cells = "".join(f"{'' if v is None else format(v, '.4g'):>{12 + 2 * (i > 1)}}"
                        for i, v in enumerate(pair))  # fmt: skip
        lines.append(f"{clean(name):<24}{cells}")
    folder = store.run_folder(record.id)
    lines.append(f"record    {folder / 'record.json'}")
    kept = weights_kept(folder, "both").values()
    lines += [f"weights   {path}" for path in kept if path.exists()]
    return "\n".join(lines)


def multirun(overrides: Sequence[str]) -> int:
    """Check every point of the product, then let Hydra train each; what is done is not repeated.

    Returns 0 if all are done, 1 otherwise.

    Raises:
        ValueError: some point is wrong; nothing was trained.
        StoreError: the store cannot be written.
    """
    ours = [text for text in overrides if not text.startswith(("hydra.", "hydra/"))]
    points = [compose(point) for point in expand(ours)]
    for point in points:
        store_in(point.store)
        check_ready(point)
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["lossbench", "--multirun", *with_settings(overrides)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through, to be told in one line
    try:
        _app()
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(" ".join(str(error).split())) from error
    except OSError as error:  # Hydra keeps a file of its own in the store
        raise StoreError(f"cannot write {error.filename}: {error.strerror}") from error
    finally:
        sys.argv = before
    records = [Store(point.store).read(run_id(point, point.seed)) for point in points]
    return 0 if all(record and record.status == "done" for record in records) else 1


def job(composed: DictConfig) -> None:
    """One point: check and train it."""
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    train_one(check({str(key): value for key, value in plain.items()}), brief=True)


def _app() -> None:
    register()
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="run")(job)()
