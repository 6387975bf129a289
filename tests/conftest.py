"""What holds for every test."""

import atexit
import os
import shutil
import tempfile

import torch

# One thread: sums are then added in the same order each time, so results repeat to the last bit,
# and a small tensor on a machine with few cores is not slower for it. Subprocesses inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# Slots of its own for every process that tests: several run at once, and none is to wait.
os.environ["LOSSBENCH_SLOTS"] = tempfile.mkdtemp(prefix="slots-")
atexit.register(shutil.rmtree, os.environ["LOSSBENCH_SLOTS"], ignore_errors=True)
