"""Every loss of the table by name, and other libraries' losses as arms beside ours."""

import importlib.util
import json

import pytest
import torch

import losses
from harness.catalogue import show as show_entry
from harness.cli import main
from harness.compose import compose
from harness.config import run_id
from harness.run import run
from harness.store import Store
from losses import peers
from losses.conformance import bind
from losses.conformance.samples import batch
from losses.peer_table import LIBRARIES
from tests.harness.spine import write_sweep
from tests.peers.agreement import agree, images, labels, library

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def needs(name):
    home = LIBRARIES[name.split("/")[0]].namespaces[0].split(".")[0]
    if importlib.util.find_spec(home) is None:
        pytest.skip(f"needs the extra 'peers': there is no {home}")


@pytest.mark.parametrize("name", peers.names())
def test_every_name_gives_a_number_and_a_gradient(name):
    needs(name)
    entry = bind(losses.get(name))
    first, *others = batch(entry)
    if "Lovasz" in name:  # which smp has in float32 alone
        first = first.float()
    first = first.requires_grad_()
    value = entry.divide(entry.fraction(first, *others))
    (slope,) = torch.autograd.grad(value, first)
    assert value.isfinite()
    assert slope.isfinite().all()
    assert slope.any()


def test_a_librarys_class_vectors_are_ours_to_train():
    needs("pml/")
    ours = losses.build("pml/ArcFaceLoss", classes=4, features=6, margin=20)
    assert [(name, list(p.shape)) for name, p in ours.named_parameters()] == [("W", [4, 6])]
    pml = library("pytorch_metric_learning.losses")
    theirs = pml.ArcFaceLoss(4, 6, margin=20)
    theirs.W.data = ours.W.data.t()
    agree(ours.double(), theirs.double(), images(12, 6), labels(4, 12))


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("monai/DiceLos", {}, "there is no monai loss 'DiceLos'; did you mean 'DiceLoss'?"),
        ("monai/DiceLoss", {"lambda_dise": 1}, "has no parameter 'lambda_dise'"),
        ("monai/DiceLoss", {"softmax": False}, "has no parameter 'softmax'"),
        ("monai/DiceLoss", {"batch": 3}, "batch must be true or false, got 3"),
        ("pml/ArcFaceLoss", {"classes": 4}, "needs features"),
    ],
)
def test_what_does_not_fit_is_told_before_a_batch(name, given, told):
    needs(name)
    with pytest.raises(ValueError, match=r"\S") as error:
        losses.build(name, **given)
    assert told in str(error.value)


IRIS = ("task=classification/iris", "trainer.epochs=2", "trainer.accelerator=cpu")
DIABETES = ("task=regression/diabetes", "trainer.epochs=2", "trainer.accelerator=cpu")
TWINS = {
    "torch/CrossEntropyLoss": (
        IRIS,
        ["loss=cross_entropy", "loss.cross_entropy.class_weight=[1,2,3]"],
        ["loss.CrossEntropyLoss.class_weight=[1,2,3]"],
    ),
    "torch/cross_entropy": (IRIS, ["loss=cross_entropy"], []),
    "timm/LabelSmoothingCrossEntropy": (
        IRIS,
        ["loss=cross_entropy", "loss.cross_entropy.smoothing=0.2"],
        ["loss.LabelSmoothingCrossEntropy.smoothing=0.2"],
    ),
    "torch/HuberLoss": (
        DIABETES,
        ["loss=huber", "loss.huber.delta=0.5"],
        ["loss.HuberLoss.delta=0.5"],
    ),
    "kornia/CharbonnierLoss": (DIABETES, ["loss=pseudo_huber"], []),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_run_with_a_library_s_loss_comes_out_as_with_ours(name, tmp_path):
    needs(name)
    task, ours, given = TWINS[name]
    store = Store(tmp_path)
    mine = run(compose([*task, *ours]), store)
    theirs = run(compose([*task, f"loss={name}", *given]), store)
    assert mine.status == theirs.status == "done"
    assert mine.id != theirs.id
    assert mine.fingerprints["order"] == theirs.fingerprints["order"]
    assert mine.fingerprints["loss"] != theirs.fingerprints["loss"]
    # float32 sums in another order, through two epochs of steps
    assert theirs.metrics == pytest.approx(mine.metrics, rel=1e-4, abs=1e-4)


def test_a_term_is_named_after_the_loss_and_says_whose_it_is():
    config = compose([*IRIS, "loss=[torch/CrossEntropyLoss,l2]", "loss.CrossEntropyLoss.weight=2"])
    assert str(config.objective) == "2 torch/CrossEntropyLoss + l2"
    assert config.loss["CrossEntropyLoss"]["loss"] == "torch/CrossEntropyLoss"
    again = compose([*IRIS, "loss=[torch/CrossEntropyLoss,l2]", "loss.CrossEntropyLoss.weight=2"])
    assert run_id(config, 0) == run_id(again, 0)
    assert json.loads(json.dumps(config.plain()))["loss"] == config.loss


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["loss=torch/CrossEntropyLos"], "did you mean 'CrossEntropyLoss'?"),
        (["loss=torch/BCEWithLogitsLoss"], "for independent yes-or-no targets"),
        (["loss=torchvision/generalized_box_iou_loss"], "compares boxes"),
        (["loss=torch/HuberLoss"], "compares real values"),
        (["loss=torch/CrossEntropyLoss", "loss.CrossEntropyLoss.gamma=2"], "loss.CrossEntropyLoss"),
        (["loss=torch/MultiMarginLoss", "loss.MultiMarginLoss.p=3"], "only p == 1 and p == 2"),
        (
            ["loss=[torch/CrossEntropyLoss,torch/CrossEntropyLoss]"],
            "names 'CrossEntropyLoss' twice",
        ),
        (["loss=cross_entropy", "+loss.b={loss: torch/HuberLos}"], "did you mean 'HuberLoss'?"),
    ],
)
def test_what_cannot_be_an_arm_is_told_in_one_line(overrides, told, capsys, tmp_path):
    command = ["train", *IRIS, *overrides, f"store={tmp_path}"]
    assert main(command) == 2
    said = capsys.readouterr().err.strip()
    assert told in said
    assert "\n" not in said


def test_a_sweep_file_can_name_them(tmp_path, capsys):
    arms = {
        "ours": ["loss=cross_entropy"],
        "torch": ["loss=torch/CrossEntropyLoss,torch/cross_entropy"],
        "margin": ["loss=torch/MultiMarginLoss", "loss.MultiMarginLoss.p=1,2"],
    }
    path = write_sweep(tmp_path, baseline="ours", arms=arms)
    assert main(["plan", str(path), f"store={tmp_path / 'store'}"]) == 0
    assert "5 arms" in capsys.readouterr().out


def test_a_loss_of_a_library_can_be_shown_and_checked(capsys):
    show_entry("losses", "torch")
    assert "torch/HuberLoss" in capsys.readouterr().out.split()
    show_entry("losses", "torch/HuberLoss")
    assert "delta: number = 1.0" in capsys.readouterr().out
    assert main(["check", "torch/HuberLoss"]) == 1
    table = capsys.readouterr().out
    assert table.startswith("torch/HuberLoss: ")
    assert "internal precision" in table
