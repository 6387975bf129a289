"""What holds for every test."""

import os

import torch

# One thread: sums are then added in the same order each time, so results repeat to the last bit,
# and a small tensor on a machine with few cores is not slower for it. Subprocesses inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
