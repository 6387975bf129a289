"""Two tiny runs whose numbers must not change: what a refactor has to reproduce.

`golden.json` beside this file holds their metrics and curves, and where they were made. On the same
processor with the same torch they must come out to the last bit; elsewhere sums are taken in
another order, and TOLERANCE holds.

To renew the file: `python -m tests.harness.test_golden`. That is right in two cases only: a run is
meant to compute something else from now on, in which case `harness.config.RECIPE` is raised first
so that no old record is taken for a new one; or the file moves to another processor or torch. It
refuses anything else.
"""

import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.compose import compose
from harness.config import RECIPE
from harness.run import run
from harness.store import Store

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 1e-5
"""Initial weights changed by one unit in the last place move these numbers by 3e-7 at most."""
RUNS = {
    "classification": [
        "task=classification/wine",
        "loss=[cross_entropy,focal,l2]",
        "loss.cross_entropy.class_weight=balanced",
        "loss.focal.weight={schedule: cosine, end: 0.5}",
        "loss.l2.weight=1e-3",
        "data.label_noise=0.1",
        "model.dropout=0.1",
        "optimizer.name=sgd",
        "optimizer.lr=0.05",
        "optimizer.momentum=0.9",
        "optimizer.schedule=cosine",
        "trainer.epochs=8",
        "trainer.evaluations=4",
    ],
    "regression": [
        "task=regression/diabetes",
        "loss=huber",
        "data.outliers=0.05",
        "trainer.gradient_clip=1",
        "trainer.epochs=8",
        "trainer.evaluations=4",
    ],
}


def place() -> dict[str, str]:
    """What the last bits depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    except OSError:
        names = [platform.processor()]
    instructions = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "processor": f"{names[:1]} with {instructions}"}


def results(name: str, store: Path) -> dict[str, Any]:
    record = run(compose(RUNS[name]), Store(store))
    assert record.status == "done", record.error
    return {"metrics": record.metrics, "curve": record.curve}


def same(found: dict[str, Any], golden: dict[str, Any], tolerance: float) -> bool:
    """Whether both have the same names and, within the tolerance, the same numbers."""
    pairs = [(found["metrics"], golden["metrics"])]
    pairs += zip(found["curve"], golden["curve"], strict=True)
    return all(
        ours == (theirs if tolerance == 0 else pytest.approx(theirs, rel=tolerance, abs=tolerance))
        for ours, theirs in pairs
    )


@pytest.mark.parametrize("name", RUNS)
def test_a_golden_run_comes_out_as_ever(name: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["recipe"] == RECIPE, f"RECIPE was raised: {__doc__}"
    found = results(name, tmp_path)
    if golden["place"] == place():
        assert found == golden[name]
    assert same(found, golden[name], TOLERANCE)


def test_a_change_in_the_sixth_digit_would_be_seen() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for name in RUNS:
        for spoilt in (golden[name]["metrics"], *golden[name]["curve"]):
            key = "val/nll" if name == "classification" else "val/rmse"
            kept = spoilt[key]
            spoilt[key] = kept * (1 + 10 * TOLERANCE)
            assert not same(golden[name], json.loads(GOLDEN.read_text())[name], TOLERANCE)
            spoilt[key] = kept


def renew() -> None:
    """Write the file anew, if that is right."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as store:
        made = {name: results(name, Path(store)) for name in RUNS}
    if GOLDEN.exists():
        old = json.loads(GOLDEN.read_text(encoding="utf-8"))
        moved = old["place"] != place()
        kept = all(same(made[name], old[name], TOLERANCE if moved else 0) for name in RUNS)
        if old["recipe"] == RECIPE and not kept:
            sys.exit("runs compute something else: raise harness.config.RECIPE first, or mend them")
    content = {"recipe": RECIPE, "place": place(), **made}
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    renew()
