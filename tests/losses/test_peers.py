"""Losses of other libraries by name: what is found, what may be set, what counts as a mean."""

import copy
import pickle
import subprocess
import sys
import typing

import pytest
import torch
from torch import nn

import losses
from losses import peers
from losses.conformance import check
from losses.core import Target
from losses.peer_table import LIBRARIES, PEERS

WEIGHT = [1.0, 2.0, 0.5]
LOGITS = torch.linspace(-2, 2, 15).reshape(5, 3)
TARGET = torch.tensor([0, 2, -100, 1, 2])


def test_every_row_is_of_a_known_library_and_kind():
    assert set(PEERS) == set(LIBRARIES)
    for rows in PEERS.values():
        assert {form.target for form in rows.values()} <= set(typing.get_args(Target))


def test_no_library_is_imported_before_one_of_its_losses_is_asked_for():
    modules = [space.split(".")[0] for each in LIBRARIES.values() for space in each.namespaces]
    code = f"import sys, losses.peers; print([m for m in {modules[3:]} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("torsh/HuberLoss", "there is no library of losses 'torsh'; did you mean 'torch'?"),
        ("torch/HubberLoss", "there is no torch loss 'HubberLoss'; did you mean 'HuberLoss'?"),
        ("torch/nn.HuberLoss", "there is no torch loss 'nn.HuberLoss'; did you mean 'HuberLoss'?"),
        ("torch/__builtins__", "there is no torch loss '__builtins__'"),
        ("torch/", "there is no torch loss ''"),
        ("huberr", "there is no loss 'huberr'; did you mean 'huber'?"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name, told):
    with pytest.raises(ValueError, match="there is no") as error:
        losses.get(name)
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


def test_a_missing_library_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.losses", None)
    peers.get.cache_clear()
    with pytest.raises(ValueError, match=r"kornia/DiceLoss needs kornia, .*: pip install kornia$"):
        losses.get("kornia/DiceLoss")
    peers.get.cache_clear()


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("torch/HuberLoss", {"detla": 2}, "has no parameter 'detla'; did you mean 'delta'?"),
        ("torch/HuberLoss", {"delta": "2"}, "delta must be number, got '2'"),
        ("torch/HuberLoss", {"reduction": "sum"}, None),
        ("torch/PoissonNLLLoss", {"log_input": False}, "has no parameter 'log_input'"),
    ],
)
def test_parameters_are_read_from_the_signature(name, given, told):
    if told is None:  # ours, of the module
        assert losses.build(name, **given).reduction == "sum"
        return
    with pytest.raises(ValueError, match=r"parameter|must be") as error:
        losses.build(name, **given)
    assert told in str(error.value)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_a_mean_is_the_librarys_own(weight):
    """Values and counts of ours, with class weights and ignored items, divide to torch's mean."""
    ours = losses.build("torch/CrossEntropyLoss", class_weight=weight, label_smoothing=0.1)
    theirs = nn.CrossEntropyLoss(torch.tensor(weight) if weight else None, label_smoothing=0.1)
    torch.testing.assert_close(ours(LOGITS, TARGET), theirs(LOGITS, TARGET))
    parts = [ours.fraction(LOGITS[part], TARGET[part]) for part in (slice(2), slice(2, 5))]
    total, count = (sum(column) for column in zip(*parts, strict=True))
    torch.testing.assert_close(total / count, theirs(LOGITS, TARGET))


ADDITIVE = [name for name in peers.names("torch") if losses.get(name).additive]


@pytest.mark.parametrize("name", [*ADDITIVE, *peers.names("torchvision")])
def test_what_says_it_is_additive_is(name):
    findings = {finding.property: finding for finding in check(name)}
    told = {key: findings[key].reason for key in ("additive", "reductions")}
    ignoring = "target out of range"  # a label that says ignore me is none to multi_margin_loss
    assert {key: why for key, why in told.items() if why and ignoring not in why} == {}


def test_a_function_and_a_module_of_one_formula_are_alike():
    for module, function in [("HuberLoss", "huber_loss"), ("SoftMarginLoss", "soft_margin_loss")]:
        target = (LOGITS > 0).long() if module.startswith("Soft") else LOGITS.flip(0)
        values = [losses.build(f"torch/{name}")(LOGITS, target) for name in (module, function)]
        assert values[0] == values[1]


def test_what_the_library_raises_is_one_line_with_shapes():
    huber = losses.build("torch/MultiMarginLoss")
    told = r"torch/MultiMarginLoss on \[5, 3\] torch.float32 and \[4\] torch.int64: RuntimeError: "
    with pytest.raises(ValueError, match=told) as error:
        huber(LOGITS, TARGET[:4])
    assert "\n" not in str(error.value)


def test_a_module_is_made_once_and_leaves_the_generator_alone():
    entry = losses.get("torch/HuberLoss")
    before = torch.random.get_rng_state()
    for _ in range(3):
        entry.fraction(LOGITS, LOGITS.flip(0), delta=0.123)
    made = [key for key in entry.call.modules if "0.123" in key]
    assert len(made) == 1
    assert torch.equal(torch.random.get_rng_state(), before)


def test_copies_and_pickles_go_by_name():
    module = losses.build("torch/HuberLoss", delta=0.5)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin.entry is module.entry
        assert twin(LOGITS, LOGITS.flip(0)) == module(LOGITS, LOGITS.flip(0))


def test_the_hash_tells_losses_and_versions_apart(monkeypatch):
    huber = losses.source_hash("torch/HuberLoss")
    assert huber == peers.source_hash("torch/HuberLoss")
    assert huber != losses.source_hash("torch/SmoothL1Loss")
    monkeypatch.setattr(peers.importlib.metadata, "version", lambda _: "0.0")
    peers.get.cache_clear()
    assert peers.source_hash("torch/HuberLoss") != huber
    peers.get.cache_clear()


def test_conformance_reports_what_torch_does_and_does_not():
    failed = {f.property for f in check("torch/CrossEntropyLoss") if f.verdict == "fail"}
    assert "internal precision" in failed  # float16 stays float16
    assert not failed & {"gradcheck", "additive", "compile", "vmap", "perfect prediction"}
