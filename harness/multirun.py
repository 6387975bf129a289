"""`train -m`: Hydra's own multirun over our configs, with whatever launcher Hydra is given."""

import os
import sys
from collections.abc import Sequence

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.commands import train_one
from harness.compose import compose, expand, register
from harness.config import check
from harness.paths import config_dir
from harness.run import check_ready
from harness.store import StoreError


def multirun(overrides: Sequence[str]) -> None:
    """Check every point of the product, then let Hydra train each; what is done is not repeated.

    Raises:
        ValueError: some point is wrong; nothing was trained.
        StoreError: the store cannot be written.
    """
    ours = [text for text in overrides if not text.startswith(("hydra.", "hydra/"))]
    for point in expand(ours):
        check_ready(compose(point))
    GlobalHydra.instance().clear()
    before, sys.argv = sys.argv, ["lossbench", "--multirun", *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through, to be told in one line
    try:
        _app()
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(" ".join(str(error).split())) from error
    except OSError as error:  # Hydra keeps a file of its own in the store
        raise StoreError(f"cannot write {error.filename}: {error.strerror}") from error
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
