"""Fingerprint of a loss's code, so that a result can say which maths it was made with."""

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType
from typing import Any

from losses.core import REGISTRY
from losses.penalty import PENALTIES


@functools.cache
def source_hash(name: str) -> str:
    """Sha256 of the code of a registered loss or penalty and of every helper of ours it calls."""
    entry = REGISTRY.get(name) or PENALTIES[name]
    finish = getattr(entry, "finish", None)
    roots = [entry.function] + ([finish] if inspect.isfunction(finish) else [])
    return code_hash(*roots)


def code_hash(*functions: Callable[..., Any]) -> str:
    """Sha256 of functions of this package and of every helper in it that they call.

    Comments, docstrings and layout do not count: only what is computed does.
    """
    seen: dict[str, str] = {}
    for function in functions:
        _collect(function, seen)
    return hashlib.sha256("\n".join(seen[key] for key in sorted(seen)).encode()).hexdigest()


def _collect(function: Callable[..., Any], seen: dict[str, str]) -> None:
    function = inspect.unwrap(function)
    key = f"{function.__module__}.{function.__qualname__}"
    if key in seen:
        return
    seen[key] = _code(function)
    for called in sorted(_names(function.__code__)):
        value = function.__globals__.get(called)
        if inspect.isfunction(value) and value.__module__.split(".")[0] == "losses":
            _collect(value, seen)
        elif isinstance(value, int | float | str):
            seen[f"{function.__module__}.{called}"] = f"{called}={value!r}"


def _names(code: CodeType) -> set[str]:
    nested = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*nested)


def _code(function: Callable[..., Any]) -> str:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
