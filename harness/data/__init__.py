"""Data sets by name, divided by seed, corrupted in the training part only.

Every module in this folder is imported, so that a new file with a registered data set is enough.
"""

import importlib
import pkgutil

from harness.data.base import Data, DataSet, Kind, Part, Raw, dataset, get, names
from harness.data.pictures import file_hash
from harness.data.prepare import load

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

__all__ = [
    "Data",
    "DataSet",
    "Kind",
    "Part",
    "Raw",
    "dataset",
    "file_hash",
    "get",
    "load",
    "names",
]
