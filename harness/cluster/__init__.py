"""Runs on machines that others give out: Slurm through submitit, Ray through its core API.

What is learnt of a run is its record in the store, which all machines share; nothing that a node
sends back is trusted beyond where to look. Needs no torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.plan import PlannedRun
from harness.store import Store

if TYPE_CHECKING:
    from harness.cluster.cluster import Cluster
    from harness.cluster.settings import Ray, Slurm


def check(settings: "Slurm | Ray") -> None:
    """Raise in one line where what `launch=` names is not there, before anything is planned.

    Raises:
        ValueError: an extra is missing, or Slurm has no such partition.
        LaunchError: the cluster does not answer.
    """
    from harness.cluster import ray, slurm
    from harness.cluster import settings as known

    if isinstance(settings, known.Slurm):
        slurm.check(settings.partition)
    else:
        ray.check(settings.address)


def words(settings: "Slurm | Ray") -> str:
    """What `launch=` asks for, in one line."""
    from harness.cluster import settings as known

    return known.words(settings)


def launch_on(
    settings: "Slurm | Ray", runs: Sequence[PlannedRun], store: Store, log: Path, **how: Any
) -> "Cluster":
    """What trains the runs where `launch=` says; `log` is the one of a sweep's workers."""
    from harness.cluster import ray, slurm
    from harness.cluster import settings as known
    from harness.cluster.cluster import Cluster

    if isinstance(settings, known.Slurm):
        return Cluster(runs, store, slurm.Slurm(settings, log.parent.name), **how)
    return Cluster(runs, store, ray.Ray(settings, log), log=log, **how)
