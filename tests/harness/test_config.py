"""What a checked config holds, and what decides the identity of a run."""

import dataclasses
import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import losses
from harness import config as module
from harness.config import RunConfig, check, differences, outcome, run_id
from losses import source
from losses.core import REGISTRY
from tests.harness.spine import iris, leaves


def given(**changes: Any) -> dict[str, Any]:
    """The least a config must say."""
    return {
        "task": {"name": "classification"},
        "data": {"name": "iris"},
        "model": {"name": "mlp"},
        "loss": {"focal": {}},
    } | changes


def test_defaults_are_filled_in_so_that_a_record_says_all() -> None:
    checked = check(given())
    plain = checked.plain()
    assert plain["loss"]["focal"]["gamma"] == 2.0
    assert plain["model"]["hidden"] == [64, 64]
    assert plain["data"]["label_noise"] == 0.0
    assert plain["optimizer"]["name"] == "adam"
    assert check(plain) == checked  # nothing is lost on the way to a worker
    assert checked.shared().keys() == plain.keys() - set(module.OWN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sed": 3}, "config has no key 'sed'; did you mean 'seed'?"),
        ({"task": {}}, "config needs task, got {}"),
        ({"loss": None}, "config needs loss, got None"),
        ({"data": "iris"}, "config needs data, got 'iris'"),
        ({"task": {"name": "regresion"}}, "there is no task 'regresion'; did you mean"),
        ({"data": {"name": "irs"}}, "there is no data set 'irs'; did you mean 'iris'?"),
        ({"data": {"tail": 3}}, "there is no data set 'None'"),
        ({"data": {"name": "iris", "tial": 3}}, "data iris has no parameter 'tial'; did you mean"),
        ({"model": {"name": "mpl"}}, "there is no model 'mpl'; did you mean 'mlp'?"),
        ({"model": {"name": "mlp", "hidden": 3}}, "model mlp.hidden must be a list of whole"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"seed": 1.5}, "seed must be whole number >= 0, got 1.5"),
        ({"trackers": "wandb"}, "trackers must be a list of text, got 'wandb'"),
        ({"trainer": {"epochs": 0}}, "trainer.epochs must be >= 1, got 0"),
        ({"trainer": {"epoch": 1}}, "trainer has no parameter 'epoch'; did you mean 'epochs'?"),
        ({"trainer": {"precision": "8"}}, "trainer.precision must be one of 32-true, 64-true"),
        ({"trainer": {"devices": 99, "accelerator": "gpu"}}, "trainer.devices=99, but this"),
        ({"optimizer": {"lr": 0}}, "optimizer.lr must be > 0, got 0"),
        ({"optimizer": {"lr": "small"}}, "optimizer.lr must be number > 0, got 'small'"),
        ({"optimizer": {"name": "adm"}}, "optimizer.name must be one of adam, adamw, sgd"),
        ({"optimizer": {"momentum": 1}}, "optimizer.momentum must be >= 0 and < 1, got 1"),
    ],
)
def test_a_wrong_key_or_value_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}[^\n]*$"):
        check(given(**changes))


# Identity


ANOTHER: dict[str, Any] = {
    "data.head": 20,
    "data.label_noise": 0.1,
    "data.tail": 10,
    "data.train_size": 60,
    "loss.focal.class_gamma": [1.0, 2.0, 3.0],
    "loss.focal.class_weight": [1.0, 2.0, 3.0],
    "loss.focal.gamma": 1.0,
    "loss.focal.normalizer": "count",
    "loss.focal.weight": 2.0,
    "model.activation": "tanh",
    "model.dropout": 0.1,
    "model.hidden": [64],
    "optimizer.lr": 0.02,
    "optimizer.momentum": 0.5,
    "optimizer.name": "sgd",
    "optimizer.schedule": "cosine",
    "optimizer.weight_decay": 0.1,
    "trainer.batch_size": 16,
    "trainer.epochs": 2,
    "trainer.evaluations": 5,
    "trainer.gradient_clip": 1.0,
    "trainer.precision": "64-true",
    "trainer.test": False,
    "trainer.threads": 2,
    "optimizer.own_lr": 0.5,
}
"""Another value for every key that decides the outcome; a new key belongs here or below."""
FREE = {*module.OWN, *(f"trainer.{key}" for key in (*module.FREE, *module.PARTED))}
"""Keys that do not decide it."""
TRIED_BY_OVERRIDE = {"data.name", "model.name", "task.name", "loss.mix", "loss.p"}
TRIED_ELSEWHERE = {"model.pretrained", "teacher", "projection"}


def changed(plain: Mapping[str, Any], path: str, value: Any) -> RunConfig:
    """The config with one leaf replaced."""
    key, _, rest = path.partition(".")
    inner = {**plain[key], rest.partition(".")[0]: value} if rest else value
    if rest.count("."):
        first, second = rest.split(".")
        inner = {**plain[key], first: {**plain[key][first], second: value}}
    return check({**plain, key: inner})


def test_every_key_that_decides_the_outcome_decides_the_id() -> None:
    config = iris("loss=focal")
    plain, ids = config.plain(), {run_id(config, 0): "nothing"}
    assert leaves(plain).keys() - {"loss.focal.loss"} == (
        ANOTHER.keys() | FREE | TRIED_BY_OVERRIDE | TRIED_ELSEWHERE
    )
    for path, value in ANOTHER.items():
        found = run_id(changed(plain, path, value), 0)
        assert found not in ids, f"{path} and {ids.get(found)}"
        ids[found] = path
    for override in (
        "loss=cross_entropy",
        "loss=ce_focal",
        "model=linear",
        "data=wine",
        "+loss.l2.weight=0.1",
    ):
        assert run_id(iris("loss=focal", override), 0) not in ids
    assert len({run_id(config, seed) for seed in range(100)}) == 100


def test_paths_devices_trackers_and_order_of_keys_do_not_decide_the_id() -> None:
    config = iris("loss=ce_focal")
    plain = config.plain()
    for changes in (
        {"store": "elsewhere"},
        {"trackers": ["tensorboard"]},
        {"trainer": {**plain["trainer"], "accelerator": "cpu", "strategy": "ddp"}},
        {"seed": 8},  # it is given beside the config
    ):
        assert run_id(check({**plain, **changes}), 0) == run_id(config, 0)

    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return value

    assert list(turned(plain)["loss"]) != list(plain["loss"])
    assert run_id(check(turned(plain)), 0) == run_id(config, 0)


def test_the_order_of_a_convex_mix_decides_the_id() -> None:
    """p is the share of the second loss."""
    mix = {"mix": "convex", "p": 0.3}
    one = check(given(loss={**mix, "focal": {}, "cross_entropy": {}}))
    swapped = check(given(loss={**mix, "cross_entropy": {}, "focal": {}}))
    assert one == swapped  # as mappings they are equal
    assert run_id(one, 0) != run_id(swapped, 0)
    penalty = check(given(loss={"l2": {}, **mix, "focal": {}, "cross_entropy": {}}))
    later = check(given(loss={**mix, "focal": {}, "cross_entropy": {}, "l2": {}}))
    assert run_id(penalty, 0) == run_id(later, 0)


def write_table(path: Path, rows: int = 30) -> Path:
    lines = ["a,b,label", *(f"{i},{i % 7},{i % 3}" for i in range(rows))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_table_is_known_by_its_content(tmp_path: Path) -> None:
    def identity(path: Path) -> str:
        return run_id(
            check(
                given(
                    data={
                        "name": "csv",
                        "path": str(path),
                        "target": "label",
                        "kind": "multiclass",
                    }
                )
            ),
            0,
        )

    first = write_table(tmp_path / "a" / "table.csv")
    same = write_table(tmp_path / "other folder" / "renamed.csv")
    longer = write_table(tmp_path / "longer.csv", rows=33)
    assert identity(first) == identity(same) != identity(longer)
    before = identity(first)
    first.write_text(first.read_text().replace("0,0,0", "0,1,0", 1))
    assert identity(first) != before


def test_the_recipe_decides_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    config = iris()
    before = run_id(config, 0)
    monkeypatch.setattr(module, "RECIPE", module.RECIPE + 1)
    assert run_id(config, 0) != before


def test_outcome_and_differences() -> None:
    config, changed_ = (
        iris("loss=focal"),
        iris("loss=focal", "optimizer.lr=0.5", "loss.focal.gamma=1"),
    )
    assert differences(outcome(changed_), outcome(config)) == {
        "optimizer.lr": 0.5,
        "loss.focal.gamma": 1.0,
    }
    assert differences({"a": 1, "b": {"c": [1]}}, {"b": {"c": [2]}, "d": 3}) == {
        "a": 1,
        "b.c": [1],
        "d": None,
    }
    assert differences({"a": None}, {}) == {"a": None}


# The code of a loss

CODE = '''
FACTOR = 2.0
TABLE = {"soft": lambda x: x.square(), "hard": lambda x: x.abs()}
STEPS = (1, 2)

def helper(x):
    """Say something."""
    return deeper(x) * FACTOR

def deeper(x):
    return x.abs()

@loss("probe", target="real", source="nobody 1900")
def probe(prediction, target, *, margin: float = 1.0):
    """Add a margin."""
    def inner(x):
        return TABLE["soft"](x) + STEPS[0]
    return inner(helper(prediction - target)) + margin
'''
SAME = {
    "a comment": ("    return deeper(x)", "    # so be it\n    return deeper(x)"),
    "a docstring": ('"""Say something."""', '"""Say something else,\n\n    at length.\n    """'),
    "no docstring": ('    """Say something."""\n', ""),
    "layout": (
        "helper(prediction - target)",
        "helper(\n        prediction\n        - target\n    )",
    ),
    "the citation": ("nobody 1900", "somebody 1901"),
    "code beside it": ("STEPS = (1, 2)", "STEPS = (1, 2)\n\ndef unused(x):\n    return x"),
}
OTHER = {
    "the function": ("+ margin", "+ 2 * margin"),
    "a default": ("margin: float = 1.0", "margin: float = 1.5"),
    "an inner function": ("+ STEPS[0]", "- STEPS[0]"),
    "a helper": ("deeper(x) * FACTOR", "deeper(x) + FACTOR"),
    "a helper's helper": ("return x.abs()", "return x.square()"),
    "a constant": ("FACTOR = 2.0", "FACTOR = 2.5"),
    "a table of constants": ("STEPS = (1, 2)", "STEPS = (1, 3)"),
    "a table of functions": ("lambda x: x.square()", "lambda x: x.sqrt()"),
    "what is declared": ('target="real"', 'target="real", heads=2'),
}


@pytest.fixture
def hash_of(tmp_path: Path) -> Any:
    """A function from code of a module in the losses package to the hash of its loss."""

    def hashed(code: str, module: str = "losses.probe") -> str:
        path = tmp_path / f"probe_{len(list(tmp_path.iterdir()))}.py"
        path.write_text("from losses.core import loss\n" + code, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(module, path)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.modules[module] = made  # where typing looks names up
        try:
            spec.loader.exec_module(made)
            return source.source_hash.__wrapped__("probe")
        finally:
            del sys.modules[module], REGISTRY["probe"]

    return hashed


def test_words_around_the_code_do_not_count(hash_of: Any) -> None:
    for what, (old, new) in SAME.items():
        assert CODE.count(old) == 1, what
        assert hash_of(CODE.replace(old, new)) == hash_of(CODE), what


def test_whatever_is_computed_counts(hash_of: Any) -> None:
    seen = {hash_of(CODE)}
    for what, (old, new) in OTHER.items():
        assert CODE.count(old) == 1, what
        found = hash_of(CODE.replace(old, new))
        assert found not in seen, what
        seen.add(found)


def test_a_plug_in_is_known_by_its_code_wherever_it_lies(hash_of: Any) -> None:
    first, second = "lossbench_plugin_a_0123", "lossbench_plugin_b_4567"
    assert hash_of(CODE, first) == hash_of(CODE, second)
    for what, (old, new) in OTHER.items():
        assert hash_of(CODE.replace(old, new), first) != hash_of(CODE, first), what


def test_the_code_of_a_loss_decides_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    config, others = iris("loss=focal"), iris("loss=cross_entropy")
    before = run_id(config, 0), run_id(others, 0)
    real = losses.source_hash
    monkeypatch.setattr(
        losses, "source_hash", lambda name: real(name) + ("!" if name == "focal" else "")
    )
    assert run_id(config, 0) != before[0]
    assert run_id(others, 0) == before[1]


def test_the_code_of_a_scheme_decides_the_id_of_those_who_use_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = iris("loss=focal")
    balanced = iris("loss=focal", "loss.focal.class_weight=balanced")
    before = run_id(plain, 0), run_id(balanced, 0)
    monkeypatch.setattr(losses, "code_hash", lambda *functions: "changed")
    assert run_id(plain, 0) == before[0]
    assert run_id(balanced, 0) != before[1]


def test_every_registered_loss_has_a_hash_of_its_own() -> None:
    named = [*losses.names(), *losses.penalty_names()]
    assert len({losses.source_hash(name) for name in named}) == len(named)


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        iris().seed = 3  # type: ignore[misc]
