"""Rules that hold over the whole tree: who imports whom, how long things are, what lies where."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

import losses

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {name: sorted((ROOT / name).rglob("*.py")) for name in ("harness", "losses")}
SOURCES = [path for package in PACKAGES.values() for path in package]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TOP = {"README.md", "pyproject.toml", "configs", "harness", "losses", "scripts", "tests"}
TORCH_FREE = ("cli", "compare", "launch", "plan", "record", "report", "statistics", "store")
DISTRIBUTIONS = {
    "PIL": "pillow",
    "faster_coco_eval": "faster-coco-eval",
    "hydra": "hydra-core",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
MACHINE = [
    r"/(home|Users|root|work|mnt|media|tmp|opt)/\w",  # a folder of somebody's
    r"\b[A-Z]:\\\w",
    r"\b(?!127\.0\.0\.1|0\.0\.0\.0)\d{1,3}(\.\d{1,3}){3}\b",  # an address
    r"\b[\w-]+\.(internal|intranet|corp|lan|local)\b",
    r"--(extra-)?index-url|--find-links|--trusted-host",
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(path: Path) -> Iterator[str]:
    """Dotted names a file imports, at the top or within functions; `from a import b` is `a.b`."""
    package = module_of(path).split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def reached(path: Path) -> Iterator[str]:
    """Dotted names used without an import of their own, such as `torch.distributed`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def offenders(paths: Iterable[Path], *forbidden: str) -> dict[str, list[str]]:
    """Files that import what is forbidden to them, and what that is."""
    found = {
        name_of(path): [n for n in (*imported(path), *reached(path)) if within(n, *forbidden)]
        for path in paths
    }
    return {path: names for path, names in found.items() if names}


def test_losses_know_nothing_of_the_harness():
    forbidden = ("harness", "lightning", "hydra", "omegaconf", "torch.distributed")
    assert offenders(PACKAGES["losses"], *forbidden) == {}


def test_a_task_imports_no_loss():
    tasks = [path for path in PACKAGES["harness"] if within(module_of(path), "harness.tasks")]
    names = [f"losses.{name}" for name in (*losses.names(), *losses.penalty_names())]
    assert offenders(tasks, *names) == {}


def test_only_the_main_module_imports_the_command_line():
    others = [path for path in SOURCES if module_of(path) != "harness.__main__"]
    assert offenders(others, "harness.cli") == {}


def test_only_one_file_knows_the_trainer():
    others = [path for path in SOURCES if module_of(path) != "harness.trainer"]
    trainers = [f"{prefix}.Trainer" for prefix in ("lightning", "lightning.pytorch", "L", "pl")]
    assert offenders(others, *trainers) == {}


@pytest.mark.parametrize("name", TORCH_FREE)
def test_what_only_reads_never_loads_torch(name):
    modules = [m for m in map(module_of, SOURCES) if within(m, f"harness.{name}")]
    assert modules, f"there is no harness.{name} any more: this list is stale"
    code = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
print([name for name in ("torch", "lightning", "hydra") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def libraries(paths: Iterable[Path]) -> set[str]:
    """Distributions whose modules these files import."""
    own = {"harness", "losses", "tests", *sys.stdlib_module_names}
    roots = {name.split(".")[0] for path in paths for name in imported(path)} - own
    return {DISTRIBUTIONS.get(root, root) for root in roots}


def distributions(requirements: Iterable[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def test_what_is_imported_is_what_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = distributions(project["dependencies"])
    optional = {name for extra in extras.values() for name in distributions(extra)}
    assert libraries(SOURCES) == needed
    assert libraries(TESTS) <= needed | optional


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file and how many lines it has besides its docstring."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            docstring = first.end_lineno - first.lineno + 1 if documented else 0
            yield node.name, node.end_lineno - node.lineno + 1 - docstring


def test_functions_fit_on_a_screen():
    lengths = {f"{name_of(p)}:{name}": n for p in SOURCES + TESTS for name, n in functions(p)}
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}


def test_files_can_be_read_in_one_sitting():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > 450} == {}


def listed() -> list[Path]:
    """Files that are in git or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs a git checkout")
    return [path for line in done.stdout.splitlines() if (path := ROOT / line).is_file()]


def test_the_top_level_holds_only_what_belongs_there():
    top = {path.relative_to(ROOT).parts[0] for path in listed()}
    assert {name for name in top if not name.startswith(".")} <= TOP


def test_a_commit_is_checked_by_the_commands_of_the_script():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    script = (ROOT / "scripts" / "test").read_text().replace('"$bin/python"', "python").splitlines()
    assert {hook["entry"] for hook in hooks} <= set(script)


def test_no_file_names_a_machine():
    for path in listed():
        if path == Path(__file__).resolve():  # it has to spell the patterns
            continue
        text = path.read_bytes().decode(errors="ignore")
        found = [match[0] for pattern in MACHINE for match in re.finditer(pattern, text)]
        assert found == [], name_of(path)
