"""`train -m`: Hydra's own multirun over our configs, with whatever launcher Hydra is given."""

import sys
from collections.abc import Sequence

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from harness.commands import train_one
from harness.compose import compose, expand, register
from harness.config import check
from harness.paths import config_dir
from harness.run import check_ready


def multirun(overrides: Sequence[str]) -> None:
    """Check every point of the product, then let Hydra train each; what is done is not repeated.

    Raises:
        ValueError: some point is wrong; nothing was trained.
    """
    ours = [text for text in overrides if not text.startswith(("hydra.", "hydra/"))]
    for point in expand(ours):
        check_ready(compose(point))
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["lossbench", "--multirun", *overrides]
    try:
        _app()
    finally:
        sys.argv = before


def job(composed: DictConfig) -> None:
    """One point: check and train it."""
    plain = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(plain, dict)
    train_one(check({str(key): value for key, value in plain.items()}), brief=True)


def _app() -> None:
    register()
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="run")(job)()
