"""Models by name: small ones of our own, and torchvision's.

Every module in this folder is imported, so that a new file with a registered model is enough.
"""

import importlib
import pkgutil

from harness.models.base import (
    Gives,
    Model,
    build,
    fingerprint,
    get,
    load,
    model,
    names,
    parameter_count,
    save,
)

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

__all__ = [
    "Gives",
    "Model",
    "build",
    "fingerprint",
    "get",
    "load",
    "model",
    "names",
    "parameter_count",
    "save",
]
