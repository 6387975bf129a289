"""From overrides to a checked config: every name, Hydra's grammar, a clear line for errors."""

import os
import re
from pathlib import Path

import pytest

import losses
from harness import data, models
from harness.compose import compose, expand, options
from tests.harness.spine import IRIS, iris, leaves


def test_every_loss_and_penalty_is_chosen_by_its_name() -> None:
    """With the defaults of its signature, and no YAML of its own."""
    entries = {name: losses.get(name) for name in losses.names()}
    forms = {name: (entry.heads, entry.point) for name, entry in entries.items()}
    whole = {name for name in entries if not missing(entries[name])}
    for form in set(forms.values()):  # terms of an objective read the output in one way
        chosen = [name for name in entries if forms[name] == form and name in whole]
        terms = iris(f"loss=[{','.join([*chosen, *losses.penalty_names()])}]").objective.terms
        assert list(terms) == [*chosen, *losses.penalty_names()]
        for name, term in terms.items():
            entry = entries.get(name) or losses.get_penalty(name)
            assert term.weight == 1.0
            assert term.parameters == {k: each.default for k, each in entry.parameters.items()}
    for name in entries.keys() - whole:
        with pytest.raises(ValueError, match=rf"needs a value for loss\.{name}\."):
            iris(f"loss={name}")


def missing(entry: losses.Loss) -> list[str]:
    return [key for key, parameter in entry.parameters.items() if parameter.required]


def test_every_data_set_and_model_is_chosen_by_its_name() -> None:
    for name in data.names():
        if not any(parameter.required for parameter in data.get(name).parameters.values()):
            assert iris(f"data={name}").data["name"] == name
    for name in [*models.names(), "torchvision/resnet18"]:
        assert iris(f"model={name}").model["name"] == name
    table = iris("data=csv", "data.path=my file.csv", "data.target=[a,b]", "data.kind=multilabel")
    assert (table.data["path"], table.data["target"]) == ("my file.csv", ["a", "b"])


def test_options_are_names_and_files() -> None:
    assert {*losses.names(), *losses.penalty_names(), "ce_focal"} <= set(options("loss"))
    assert {"mlp", "mlp32", "cnn"} <= set(options("model"))
    assert {"digits", "long_tail_digits"} <= set(options("data"))
    assert "classification/digits" in options("task")


def test_a_task_brings_settings_that_overrides_replace_in_any_order() -> None:
    config = compose(["task=classification/iris", "loss=focal"])
    assert (config.data["name"], config.trainer.batch_size) == ("iris", 32)
    overrides = ["trainer.batch_size=7", "loss.focal.gamma=1", "model=linear", "seed=5"]
    for order in (overrides, overrides[::-1]):
        changed = compose([*order, "loss=focal", "task=classification/iris"])
        assert (changed.trainer.batch_size, changed.seed) == (7, 5)
        assert changed.objective.terms["focal"].parameters["gamma"] == 1.0
        assert changed.model == {"name": "linear", "pretrained": None}


def test_several_terms_and_their_settings() -> None:
    config = iris(
        "loss=[cross_entropy,focal,l2]",
        "loss.l2.weight=1e-3",
        "loss.l2.half=true",
        "loss.focal.weight={schedule: linear, end: 2}",
        "+loss.soft={loss: cross_entropy, smoothing: 0.1}",
    )
    terms = config.objective.terms
    assert list(terms) == ["cross_entropy", "focal", "l2", "soft"]
    assert (terms["l2"].weight, terms["l2"].parameters) == (1e-3, {"half": True})
    assert terms["focal"].weight.end == 2.0  # type: ignore[union-attr]
    assert terms["soft"].loss == "cross_entropy"
    convex = iris("loss=ce_focal", "loss.mix=convex", "loss.p=0.3").objective
    assert (convex.mix, convex.p, list(convex.losses())) == (
        "convex",
        0.3,
        ["cross_entropy", "focal"],
    )


def test_interpolations_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIDTH", "[12]")
    monkeypatch.setenv("PLACE", "/a folder/ünï")
    config = iris(
        "model.hidden='${oc.decode:${oc.env:WIDTH}}'",
        "store=${oc.env:PLACE}/results",
        "trainer.batch_size=${trainer.epochs}",
    )
    assert config.model["hidden"] == [12]
    assert config.store == "/a folder/ünï/results"
    assert config.trainer.batch_size == config.trainer.epochs


def test_texts_are_taken_as_hydra_takes_them() -> None:
    assert iris("store='a, b = c'").store == "a, b = c"
    assert iris('store="it\'s"').store == "it's"
    assert iris("store=/abs/path with spaces").store == "/abs/path with spaces"
    assert iris("~seed").seed == 0
    assert iris("trackers=[tensorboard]").trackers == ["tensorboard"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=focl"], "there is no loss 'focl'; did you mean 'focal'?"),
        (["loss=null"], "there is no loss 'None'"),
        (["~loss"], "there is no loss 'None'"),
        (["loss=[focal,focl]"], "there is no loss 'focl'; did you mean 'focal'?"),
        (["task=classification/digit"], "there is no task 'classification/digit'; did you mean"),
        (["task=../iris"], "there is no task '../iris'"),
        (["data=irs"], "there is no data set 'irs'; did you mean 'iris'?"),
        (["model=torchvision/resnet81"], "there is no model 'torchvision/resnet81'; did you mean"),
        (["sed=3"], "config has no key 'sed'; did you mean 'seed'?"),
        (["+sed=3"], "config has no key 'sed'; did you mean 'seed'?"),
        (["trainer.epoch=3"], "config has no key 'trainer.epoch'; did you mean 'trainer.epochs'?"),
        (["+trainer.epoch=3"], "trainer has no parameter 'epoch'; did you mean 'epochs'?"),
        (["+task.kind=x"], "task classification has no parameter 'kind'"),
        (["loss.gamma=3"], "config has no key 'loss.gamma'; did you mean"),
        (
            ["loss=focal", "loss.focal.gama=3"],
            "config has no key 'loss.focal.gama'; did you mean 'loss.focal.gamma'?",
        ),
        (
            ["loss=focal", "+loss.focal.gama=3"],
            "loss.focal has no parameter 'gama'; did you mean 'gamma'?",
        ),
        (
            ["loss=focal", "++loss.focal.gama=3"],
            "loss.focal has no parameter 'gama'; did you mean 'gamma'?",
        ),
        (["hydra.run.dir=x"], "config has no key 'hydra.run.dir'"),
        (["+hydra.verbose=true"], "config has no key 'hydra.verbose'"),
        (["hydra/launcher=joblib"], "config has no key 'hydra/launcher'"),
        (["trainer.epochs"], "cannot read 'trainer.epochs' as key=value: missing EQUAL"),
        (["loss.focal.gamma=${"], "cannot read 'loss.focal.gamma=${' as key=value:"),
        (["store=ü"], "cannot read 'store=ü' as key=value: token recognition error at: 'ü'"),
        (["=3"], "config has no key ''"),
        (["loss=focal,cross_entropy"], "'loss=focal,cross_entropy' names several values: use"),
        (["seed=1,2"], "'seed=1,2' names several values: use train -m, or a sweep file"),
        (["seed=range(3)"], "'seed=range(3)' names several values"),
        (["seed=${nothing}"], "Interpolation key 'nothing' not found"),
        (["seed=${oc.env:LOSSBENCH_NO}"], "KeyError raised while resolving interpolation"),
        (["data=csv"], "config needs a value for data.path, data.target, data.kind"),
        (["trainer=null"], "trainer must be a mapping of epochs, batch_size"),
        (["optimizer=adam"], "optimizer must be a mapping of name, lr"),
        (["+loss@other=focal"], "config has no key 'other'"),
        (["store=[a]"], "store must be text, got ['a']"),
    ],
)
def test_what_cannot_be_composed_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}[^\n]*$"):
        iris(*overrides)


def test_a_loss_must_be_named() -> None:
    with pytest.raises(ValueError, match=r"^a run needs loss=NAME, such as loss=cross_entropy"):
        compose(["task=classification/iris"])


def test_composing_writes_nothing_and_moves_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    for seed in range(3):
        assert iris(f"seed={seed}", "store=here").seed == seed
    assert list(tmp_path.iterdir()) == []
    assert Path.cwd() == tmp_path
    assert dict(os.environ) == before


def test_what_was_composed_before_leaves_no_trace() -> None:
    plain = leaves(compose(IRIS).plain())
    iris("loss=[focal,l2]", "+loss.focal.weight.schedule=linear", "model=torchvision/resnet18")
    with pytest.raises(ValueError, match="focl"):
        iris("loss=focl")
    assert leaves(compose(IRIS).plain()) == plain


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], [[]]),
        (["a=1"], [["a=1"]]),
        (["a=[1,2]"], [["a=[1,2]"]]),
        (["a='1,2'"], [["a='1,2'"]]),
        (["a={b: 1, c: 2}"], [["a={b: 1, c: 2}"]]),
        (["b=3", "a=1,2"], [["b=3", "a=1"], ["b=3", "a=2"]]),
        (["a=1,2", "b=x,y"], [["a=1", "b=x"], ["a=1", "b=y"], ["a=2", "b=x"], ["a=2", "b=y"]]),
        (["a=range(0,3)"], [["a=0"], ["a=1"], ["a=2"]]),
        (["a=choice(5,6)"], [["a=5"], ["a=6"]]),
        (["a=[1,2],[3]"], [["a=[1,2]"], ["a=[3]"]]),
        (["+a.b=1,2"], [["+a.b=1"], ["+a.b=2"]]),
        (["a='x y','p,q'"], [["a='x y'"], ["a='p,q'"]]),
    ],
)
def test_values_are_expanded_in_order(overrides: list[str], expected: list[list[str]]) -> None:
    assert expand(overrides) == expected


@pytest.mark.parametrize("text", ["seed=interval(1,2)", "loss=glob(f*)"])
def test_a_sweep_without_an_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^'{re.escape(text)}' names no finite list of values$"):
        expand([text])


def test_a_loss_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss names 'focal' twice: add \+loss.OTHER="):
        compose(["loss=[focal,focal]"])


def test_only_what_is_missing_is_asked_for() -> None:
    given = ["task=classification/csv", "loss=bce", "data.path=x.csv", "data.target=y"]
    with pytest.raises(ValueError, match=r"needs a value for data.kind$"):
        compose(given)


def test_a_wrong_key_of_a_schedule_is_named() -> None:
    with pytest.raises(ValueError, match="no parameter 'untill'; did you mean 'until'"):
        compose(["loss=focal", "loss.focal.weight={schedule:linear,untill:0.5}"])
