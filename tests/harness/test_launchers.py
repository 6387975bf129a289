"""`train -m` with launchers of Hydra that others have written."""

import importlib.util
from pathlib import Path

import pytest

from tests.harness.spine import python, records

WORDS = ["task=classification/iris", "loss=cross_entropy,focal", "trainer.epochs=1", "seed=0,1"]
LAUNCHERS = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra.launcher.timeout_min=5"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_point_has_a_record_and_none_is_trained_twice(name: str, tmp_path: Path) -> None:
    package = f"hydra_{name.partition('_')[0]}_launcher"
    if not importlib.util.find_spec("hydra_plugins"):
        pytest.skip("needs a launcher of Hydra's")
    pytest.importorskip(f"hydra_plugins.{package}", reason=f"needs {package}")
    command = ["-m", "harness", "train", "-m", f"hydra/launcher={name}", *LAUNCHERS[name], *WORDS]
    for _ in range(2):
        done = python(command, tmp_path)
        assert done.returncode == 0, done.stderr
        found = records(tmp_path / "results")
        assert [record["status"] for record in found.values()] == ["done"] * 4
    assert not list(tmp_path.glob("results/runs/*/record.json.*"))
