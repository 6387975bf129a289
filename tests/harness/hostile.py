"""Sweep files that somebody sent who means ill: each with what must be said of it."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness.spine import write_sweep

OWNED = "OWNED"
"""In every command that would run: the file it would leave, and in every text that it compiles."""
CODE = f"open('{OWNED}', 'w').write('x')"
TARGETS = {
    "os.system": f"touch {OWNED}",
    "builtins.eval": CODE,
    "builtins.exec": CODE,
    "subprocess.Popen": ["touch", OWNED],
    "torch.load": OWNED,
    "torch.hub.load": "evil/repository",
    "hydra.utils.instantiate": {"_target_": "os.system", "_args_": [f"touch {OWNED}"]},
    "importlib.import_module": OWNED,
    "pathlib.Path.write_text": OWNED,
    "shutil.rmtree": ".",
}
"""What a config must not call, with what."""
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'"
Sent = tuple[dict[str, Any] | str | bytes | Callable[[Path], object], str]
"""Changes of a harmless file, a file's content, or what makes it; and words of the refusal."""


def arm(*overrides: str, **more: Any) -> dict[str, Any]:
    """Changes by which the arm `focal` has more overrides."""
    return {"arms": {"ce": ["loss=cross_entropy"], "focal": ["loss=focal", *overrides]}, **more}


def called() -> dict[str, Sent]:
    """`_target_` and its kin, everywhere they could stand."""
    found: dict[str, Sent] = {}
    for target, argument in TARGETS.items():
        node = {"_target_": target, "_args_": [argument]}
        found[f"{target} beside the arms"] = (node, "no parameter '_target_'")
        text = f"+loss.x={{_target_: {target}, loss: {target}, weight: 1}}"
        found[f"{target} as a term"] = (arm(text), f"there is no loss '{target}'")
    key = "_target_=os.system"
    found |= {
        "of a loss": (arm(f"+loss.focal.{key}"), "no parameter '_target_'"),
        "of all losses": (arm(f"+loss.{key}"), "loss._target_ must be a mapping"),
        "of the optimiser": (arm(f"+optimizer.{key}"), "no parameter '_target_'"),
        "of the trainer": (arm(f"+trainer.{key}"), "no parameter '_target_'"),
        "of the model": (arm(f"+model.{key}"), "no parameter '_target_'"),
        "of the data": (arm(f"+data.{key}"), "no parameter '_target_'"),
        "of the task": (arm(f"task.{key}"), "no parameter '_target_'"),
        "of a projection": (arm(f"+projection.{key}"), "no projection '_target_'"),
        "of the config": (arm(f"+{key}"), "no key '_target_'"),
        "of callbacks": (arm(f"+trainer.callbacks=[{{{key.replace('=', ': ')}}}]"), "'callbacks'"),
        "in an arm": ({"arms": {"ce": {"_target_": "os.system"}}}, "must be a list of overrides"),
        "in an override": ({"overrides": [{"_target_": "os.system"}]}, "overrides"),
        "in the tasks": (
            {"task": None, "tasks": {"a": {"_target_": "os.system"}}},
            "must be a list of overrides",
        ),
        "in tune": ({"tune": {"_target_": "os.system"}}, "no parameter '_target_'"),
        "in its space": (
            {"tune": {"space": {"optimizer._target_": ["os.system"]}}},
            "has no 'optimizer._target_'",
        ),
        "as a range": (
            {"tune": {"space": {"optimizer.lr": {"_target_": "os.system"}}}},
            "must be log(a, b)",
        ),
        "as a choice": (
            {"tune": {"arms": {"focal": {"loss.focal.loss": ["os.system"]}}}},
            "there is no loss 'os.system'",
        ),
        "as a sampler": ({"tune": {"sampler": "os.system", "space": {}}}, "must be one of"),
        "in the controls": ({"controls": [{"_target_": "os.system"}]}, "controls"),
        "as a control": ({"controls": ["os.system"]}, "there is no control"),
        "as a seed": ({"seeds": {"_target_": "os.system"}}, "seeds"),
        "as a loss": (arm("loss=os.system"), "there is no loss 'os.system'"),
        "as another's loss": (arm("loss=os/system"), "there is no library of losses 'os'"),
        "as a loss of torch": (arm("loss=torch/load"), "there is no torch loss 'load'"),
        "as a model": (arm("model=os.system"), "there is no model"),
        "as torchvision's": (arm("model=torchvision/../../os"), "there is no model"),
        "as torchvision's weights": (arm("model=torchvision/get_model"), "there is no model"),
        "as data": (arm("data=os.system"), "there is no data set"),
        "as a task": ({"task": "os.system"}, "there is no task"),
        "as a name": (arm("model.name=os.system"), "there is no model"),
        "as a strategy": (arm("trainer.strategy=os.system"), "trainer: "),
        "as an accelerator": (arm("trainer.accelerator=os.system"), "trainer: "),
    }
    return found


def hydras() -> dict[str, Sent]:
    """Hydra's own keys, defaults, and resolvers however they are written."""
    cannot = "cannot stand in a sweep file"
    secret = "${oc.env:HOSTILE_SECRET}"
    return {
        "hydra.callbacks": (arm("+hydra.callbacks.x._target_=os.system"), cannot),
        "hydra.run.dir": (arm("hydra.run.dir=/var/owned"), cannot),
        "hydra/launcher": (arm("hydra/launcher=submitit_local"), cannot),
        "hydra.searchpath": (arm("hydra.searchpath=[file:///srv]"), cannot),
        "hydra.job.env_set": (arm("+hydra.job.env_set.PATH=/srv"), cannot),
        "hydra@": (arm("+hydra@x=y"), cannot),
        "~hydra": (arm("~hydra.run"), cannot),
        "a hydra node": ({"hydra": {"callbacks": {}}}, "no parameter 'hydra'"),
        "a defaults node": ({"defaults": [{"override /loss": "focal"}]}, "no parameter 'defaults'"),
        "defaults in an arm": (arm("+defaults=[/etc/passwd]"), "no key 'defaults'"),
        "a package": (arm("+loss@hydra.callbacks=focal"), cannot),
        "oc.env": (arm(f"data.path={secret}"), cannot),
        "oc.env in a task": (
            {"task": None, "tasks": {"a": ["task=classification/iris", f"model={secret}"]}},
            cannot,
        ),
        "oc.env as a task": ({"task": secret}, "there is no task"),
        "oc.env for all": ({"overrides": [f"optimizer.name={secret}"]}, cannot),
        "oc.env in quotes": (arm(f"optimizer.name='a {secret} b'"), cannot),
        "oc.env in a mapping": (arm(f"+loss.x={{loss: '{secret}'}}"), cannot),
        "oc.env in a list": (arm(f"+model.hidden=[1,'{secret}']"), cannot),
        "oc.env in a product": (arm(f"optimizer.name='{secret}','{secret}x'"), cannot),
        "oc.env with a default": (arm("optimizer.name=${oc.env:NO,sgd}"), cannot),
        "oc.env, escaped": (arm("optimizer.name=$\\{oc.env:HOSTILE_SECRET\\}"), cannot),
        "oc.env by a reference": (arm("optimizer.name='${oc.${seed}:HOSTILE_SECRET}'"), cannot),
        "oc.env in a function": (arm(f"optimizer.name=str('{secret}')"), cannot),
        "oc.decode": (arm("trainer.epochs=${oc.decode:'1'}"), cannot),
        "oc.create": (arm("model='${oc.create:{name: mlp}}'"), cannot),
        "oc.dict.values": (arm("model=${oc.dict.values:model}"), cannot),
        "oc.select": (arm("trainer.epochs=${oc.select:seed}"), cannot),
        "hydra:": (arm("optimizer.name=${hydra:runtime.cwd}"), cannot),
        "a resolver of its own": (arm("trainer.epochs=${eval:1+1}"), cannot),
        "a reference to Hydra": (arm("optimizer.name=${hydra.runtime.cwd}"), "not found"),
        "a circle": (arm("optimizer.lr=${optimizer.lr}"), "Recursive interpolation"),
        "a larger circle": (
            arm("optimizer.lr=${optimizer.weight_decay}", "optimizer.weight_decay=${optimizer.lr}"),
            "Recursive interpolation",
        ),
    }


def elsewhere() -> dict[str, Sent]:
    """Code, places to write, the network, and files that never end."""
    cannot = "cannot stand in a sweep file"
    return {
        "a plug-in": (arm("plugins=[evil.py]"), cannot),
        "a plug-in, added": (arm("+plugins=[evil.py]"), cannot),
        "a plug-in, forced": (arm("++plugins=evil.py"), cannot),
        "a plug-in of all": ({"plugins": ["evil.py"]}, "no parameter 'plugins'"),
        "a plug-in in quotes": (arm("plugins='evil.py'"), cannot),
        "a plug-in after a blank": (arm(" plugins=[evil.py]"), "cannot read"),
        "a plug-in's package": (arm("+plugins@x=evil"), cannot),
        "save": (arm("save=/var/owned"), cannot),
        "save of all": ({"overrides": ["save=../../owned"]}, cannot),
        "save of the file": ({"save": "/var/owned"}, "no parameter 'save'"),
        "a store": (arm("store=../../.."), cannot),
        "a store at home": ({"overrides": ["store=/srv/x"]}, cannot),
        "a store of the file": ({"store": "/"}, "no parameter 'store'"),
        "a tracker": (arm("trackers=[wandb]"), cannot),
        "a download": (arm("data=mnist", "data.download=true"), cannot),
        "a download, forced": ({"overrides": ["++data.download=true"]}, cannot),
        "a download of a task": (
            {"task": None, "tasks": {"a": ["task=classification/iris", "data.download=true"]}},
            cannot,
        ),
        "a download, chosen": (
            {"tune": {"arms": {"focal": {"data.download": [True, False]}}}},
            "is not for one arm alone",
        ),
        "weights of a pipe": (arm("model.pretrained=pipe"), "there is no file 'pipe'"),
        "weights of a device": (arm("model.pretrained=/dev/zero"), "there is no file"),
        "weights of a folder": (arm("model.pretrained=/etc"), "'/etc'"),
        "weights that are none": (arm("model.pretrained=/etc/hosts"), "no file of weights"),
        "weights of nobody": (arm("model.pretrained=~nobody/x"), "pretrained"),
        "weights, NUL": (arm('model.pretrained="\\0"'), "there is no file"),
        "a table of a device": (
            {
                "task": "classification/csv",
                "overrides": ["data.path=/dev/zero", "data.target=x", "data.kind=multiclass"],
            },
            "no file",
        ),
        "a table of a pipe": (
            {
                "task": "classification/csv",
                "overrides": ["data.path=pipe", "data.target=x", "data.kind=multiclass"],
            },
            "no file",
        ),
    }


def worded() -> dict[str, Sent]:
    """Names that are paths, and text that would act where it is shown."""
    return {
        "a task of a path": ({"task": "../../../etc/passwd"}, "there is no task"),
        "a task of a root": ({"task": "/etc/passwd"}, "there is no task"),
        "a task of two lines": ({"task": "classification/iris\nplugins=[x]"}, "cannot read"),
        "a task with more": ({"task": "classification/iris,[x]"}, "names several values"),
        "a loss of a path": (arm("loss=../../../../var/owned"), "there is no library of losses"),
        "data of a path": (arm("data=../../etc"), "there is no data set"),
        "NUL in a name": (b'arms: {"a\\0": [loss=focal]}\nmetric: a\nbaseline: a\n', "printable"),
        "escapes in a name": (arm(baseline="\x1b[2Jce"), "printable"),
        "bells in a question": ({"question": "\x07\x1b]0;owned\x07"}, "printable"),
        "escapes in an override": (arm("loss.focal.gamma=\x1b[31m"), "cannot read"),
        "escapes in a key": ({"\x1b[31mowned": 1}, "no parameter"),
        "text that turns round": ({"question": "\u202egnp.exe"}, "printable"),
        "markup as a metric": ({"metric": MARKUP}, "no metric"),
        "markup as a loss": (arm(f"loss={MARKUP}"), "cannot read"),
        "markup as an override": ({"overrides": [MARKUP]}, "cannot read"),
    }


def sized() -> dict[str, Sent]:
    """Numbers, lists and nesting that memory or time could not hold."""
    digits = "9" * 4900
    steps = zip("abcdefgh", "bcdefghi", strict=True)
    laughs = "\n".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in steps)
    return {
        "infinity": ({"margin": float("inf")}, "margin must be number > 0"),
        "no number": ({"margin": float("nan")}, "margin must be number > 0"),
        "1e999": (b"margin: 1e999\nmetric: a\nbaseline: a\narms: {}\n", "margin must be number"),
        "an infinite rate": (arm("optimizer.lr=1e999"), "optimizer.lr must be number > 0"),
        "a rate of NaN": (arm("optimizer.lr=nan"), "optimizer.lr must be number > 0"),
        "4,900 digits": (f"seeds: {digits}\n".encode(), "digits"),
        "4,900 digits in an arm": (arm(f"trainer.epochs={digits}"), "digits"),
        "a batch of 300 digits": (
            arm(f"trainer.batch_size={'9' * 300}"),
            "batch_size must be whole",
        ),
        "epochs of 300 digits": (arm(f"trainer.epochs={'9' * 300}"), "epochs must be whole"),
        "a model of 300 digits": (
            arm("model=mlp", f"model.hidden=[{'9' * 300}]"),
            "hidden[0] must be whole",
        ),
        "a rate of 400 digits": (arm(f"optimizer.lr={'9' * 400}"), "optimizer.lr must be number"),
        "a wide model": (arm("model=mlp", f"model.hidden=[{10**15}]"), "memory"),
        "a billion seeds": ({"seeds": 10**9}, "seeds must be whole number"),
        "a seed of 300 digits": ({"seeds": [10**300]}, "seeds"),
        "a billion trials": ({"tune": {"trials": 10**9}}, "trials must be >= 1 and <= 10000"),
        "a trial's billion seeds": ({"tune": {"seeds": 10**9}}, "seeds must be >= 1 and <= 10000"),
        "a range": (arm("optimizer.lr=range(0,10000000000)"), "more than 10000"),
        "a range, shuffled": (arm("optimizer.lr=shuffle(range(0,10000000000))"), "more than"),
        "a range of small steps": (arm("optimizer.lr=range(0,1,1e-9)"), "more than 10000"),
        "a range that stands still": (arm("optimizer.lr=range(0,1,0)"), "must not be zero"),
        "a product": (arm(*[f"+loss.x{i}=1,2,3,4,5,6,7,8,9,10" for i in range(9)]), "more than"),
        "an interval": (arm("optimizer.lr=interval(0,1)"), "no finite list"),
        "a glob": (arm("loss=glob(*)"), "no finite list"),
        "an alias": (b"a: &a [x]\nb: *a\n", "the alias *a cannot stand"),
        "a billion laughs": (f"a: &a [ha]\n{laughs}\n".encode(), "the alias *a cannot stand"),
        "an alias of itself": (b"arms: &a {ce: *a}\n", "the alias *a cannot stand"),
        "a merge": (b"x: &x {a: 1}\ny: {<<: *x}\n", "the alias *x cannot stand"),
        "deep lists": (b"a: " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        "deep mappings": (b"{a: " * 3000 + b"1" + b"}" * 3000, "nested too deeply"),
        "open brackets": (b"[" * 150_000, "nested too deeply"),
        "dashes": (b"- " * 90_000, "nested too deeply"),
        "a deep override": (arm("+loss.x=" + "[" * 400 + "]" * 400), "nested too deeply"),
        "a long override": (arm("+loss.x=" + "[" * 9000 + "]" * 9000), "more than 5000"),
        "a deep reference": (
            arm("optimizer.name=" + "${a." * 200 + "x" + "}" * 200),
            "cannot read",
        ),
        "a long name": ({"arms": {"x" * 100_000: ["loss=focal"]}}, "baseline 'ce' is no arm"),
        "a key twice": (b"metric: a\nmetric: b\n", "duplicate key"),
        "an arm twice": (b"arms: {a: [loss=mse], a: [loss=mae]}\n", "duplicate key"),
        "an enormous file": (b"# " + b"x" * 10**6, "more than 200000 bytes"),
        "a sparse file": (_sparse, "more than 200000 bytes"),
    }


def spelt() -> dict[str, Sent]:
    """Tags, encodings, and what is no file."""
    return {
        "python/object/apply": (b"a: !!python/object/apply:os.system ['touch OWNED']\n", "tag"),
        "python/object/new": (b"!!python/object/new:os.system ['touch OWNED']\n", "tag"),
        "python/name": (b"metric: !!python/name:os.system\n", "tag"),
        "python/module": (b"metric: !!python/module:os\n", "tag"),
        "a path by a tag": (
            b"metric: !!python/object/apply:pathlib.Path [/etc/passwd]\nbaseline: a\narms: {}\n",
            "must be text",
        ),
        "an unknown tag": (b"metric: !evil x\n", "tag"),
        "a truth that is none": (b"metric: !!bool perhaps\n", "is no YAML"),
        "a number that is none": (b"metric: !!int owned\n", "is no YAML"),
        "a day that is none": (b"metric: !!timestamp owned\n", "is no YAML"),
        "a key that is a list": (b"? [a]\n: b\n", "is no YAML"),
        "two documents": (b"a: 1\n---\nb: 2\n", "is no YAML"),
        "UTF-16": ("metric: a\n".encode("utf-16"), "is no YAML"),
        "no UTF-8": (b"metric: \xff\xfe\xfa\n", "is no YAML"),
        "half a pair": (
            b'question: "\\ud800"\nmetric: a\nbaseline: a\narms: {a: []}\n',
            "printable",
        ),
        "control characters": (b"metric: \x1b[31m\n", "is no YAML"),
        "a byte order mark twice": (b"\xef\xbb\xbf\xef\xbb\xbfmetric: a\n", "no parameter"),
        "empty": (b"", "needs metric"),
        "binary": (bytes(range(256)) * 8, "is no YAML"),
        "a list": (b"- a\n", "must be a mapping"),
        "a number": (b"3\n", "is no YAML"),
        "a folder": (Path.mkdir, "there is no file"),
        "a pipe": (os.mkfifo, "there is no file"),
        "a device": (lambda path: path.symlink_to("/dev/zero"), "there is no file"),
        "a socket": (_socket, "there is no file"),
        "a circle of links": (lambda path: path.symlink_to(path.name), "there is no file"),
        "not there": (lambda path: None, "there is no file"),
    }


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _socket(path: Path) -> None:
    short = Path(tempfile.gettempdir()) / f"{os.getpid()}.socket"  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(short))
        shutil.move(short, path)


TABLE = {
    f"{kind}: {name}": sent
    for kind, table in (
        ("target", called()),
        ("hydra", hydras()),
        ("elsewhere", elsewhere()),
        ("words", worded()),
        ("size", sized()),
        ("spelling", spelt()),
    )
    for name, sent in table.items()
}


def written(folder: Path) -> list[tuple[str, Path, str]]:
    """Every hostile file in a folder: name, path, and words of the refusal."""
    (folder / "sent").mkdir()
    found = []
    for number, (name, (sent, said)) in enumerate(TABLE.items()):
        path = folder / "sent" / f"{number:03}.yaml"
        if isinstance(sent, dict):
            write_sweep(path.parent, path.stem, **sent)
        elif callable(sent):
            sent(path)
        else:
            path.write_bytes(sent.encode() if isinstance(sent, str) else sent)
        found.append((name, path, said))
    return found


def harmless(folder: Path) -> Path:
    """A file that is planned as it should be, with markup where text may stand."""
    name = f"{MARKUP} | & %s $HOME `id` \\input{{x}} =1+1"
    return write_sweep(
        folder,
        question=f"{MARKUP} [x](javascript:alert(1))",
        arms={
            "=ce": ["loss=cross_entropy"],
            name: ["loss=focal"],
            "-f": ["loss=focal", "loss.focal.gamma=1"],
        },
        baseline="=ce",
    )
