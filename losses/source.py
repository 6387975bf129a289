"""Fingerprint of a loss's code, so that a result can say which maths it was made with."""

import ast
import dis
import functools
import hashlib
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

from losses.core import REGISTRY
from losses.penalty import PENALTIES
from losses.projection import PROJECTIONS

DESCRIBING = ("source", "minimum", "saturating", "unbounded", "detached", "nonmonotone")
"""Declarations that describe what is computed and do not change it."""
TAKEN = ("LOAD_ATTR", "LOAD_METHOD")


@functools.cache
def source_hash(name: str) -> str:
    """Sha256 of the code of a loss, penalty or projection and of every helper of ours it calls.

    Of another library's loss, of its own code and the library's version.
    """
    if "/" in name and name not in REGISTRY:
        from losses import peers  # which needs this module

        return peers.source_hash(name)
    entry = REGISTRY.get(name) or PENALTIES.get(name) or PROJECTIONS[name]
    roots = [entry.function, *getattr(entry, "own", {}).values()]
    beside = (getattr(entry, fact, None) for fact in ("finish", "derivative", "total", "point"))
    return code_hash(*roots, *(function for function in beside if function))


def code_hash(*functions: Callable[..., Any]) -> str:
    """Sha256 of functions and of every helper of this package, or beside them, that they call.

    Comments, docstrings and layout do not count: only what is computed does.
    """
    seen: dict[str, str] = {}
    homes = {"losses", *(_home(function) for function in functions)}
    for number, function in enumerate(functions):
        _collect(f"{_named(function)} {number}", function, homes, seen)
    # a name's first part is the package, or a plug-in's path, which does not count
    lines = sorted(f"{key.partition('.')[2]} {text}" for key, text in seen.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _home(function: Callable[..., Any]) -> str:
    """The package, or the plug-in file, that a function is in."""
    return str(getattr(function, "__module__", None)).split(".")[0]


def _named(function: Any) -> str:
    """Where it is and what it is called there; the same in every process."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', None)}.{name}"


def _collect(key: str, value: Any, homes: set[str], seen: dict[str, str]) -> None:
    """Note a function of these homes and all it uses, or a constant, a table of them included."""
    if isinstance(value, int | float | str):
        seen[key] = repr(value)
    elif isinstance(value, list | tuple | dict):
        for name, entry in value.items() if isinstance(value, dict) else enumerate(value):
            _collect(f"{key}[{name!r}]", entry, homes, seen)
    elif inspect.isfunction(value) and _home(value) in homes:
        function = inspect.unwrap(value)
        if function.__name__ != "<lambda>":
            key = f"{function.__module__}.{function.__qualname__}"
        if key not in seen:
            seen[key] = text_of(function)
            _collect_used(function, homes, seen)
            for name, cell in zip(
                function.__code__.co_freevars, function.__closure__ or (), strict=True
            ):
                _collect(f"{key}<{name}>", cell.cell_contents, homes, seen)
    elif isinstance(value, functools.partial):
        _collect(f"{key}.partial", [value.func, value.args, value.keywords], homes, seen)
    elif inspect.isclass(value) and _home(value) in homes and key not in seen:
        methods = [_method(member) for member in vars(value).values()]
        written = [each for each in methods if each and each.__module__ == value.__module__]
        if written:  # and not a tuple of names
            seen[key] = text_of(value)
        for each in written:
            _collect_used(each, homes, seen)
    elif inspect.isroutine(value):  # of another library, or of Python
        seen[key] = _named(value)


def _method(member: Any) -> FunctionType | None:
    function = getattr(member, "__func__", getattr(member, "fget", member))
    return function if isinstance(function, FunctionType) else None


def _collect_used(function: FunctionType, homes: set[str], seen: dict[str, str]) -> None:
    """Note the globals it uses, and what it takes from a module among them, `derivatives.bce`."""
    for name, used in _used(function.__code__, function.__globals__, homes):
        _collect(f"{function.__module__}.{name}", used, homes, seen)


def _used(code: CodeType, known: Mapping[str, Any], homes: set[str]) -> Iterator[tuple[str, Any]]:
    for one, following in itertools.pairwise([*dis.get_instructions(code), None]):
        assert one is not None
        if one.opname not in ("LOAD_GLOBAL", "LOAD_NAME") or one.argval not in known:
            continue
        value = known[one.argval]
        if not inspect.ismodule(value):
            yield one.argval, value
        elif value.__name__.split(".")[0] in homes and following and following.opname in TAKEN:
            yield f"{one.argval}.{following.argval}", getattr(value, following.argval, None)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _used(constant, known, homes)


def text_of(function: Callable[..., Any]) -> str:
    """The code of a function or class without comments, docstrings and layout."""
    source = textwrap.dedent(inspect.getsource(function))
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a lambda within a table
        return source.strip()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Call):  # the decorator's, among others
            node.keywords = [word for word in node.keywords if word.arg not in DESCRIBING]
    return ast.unparse(tree)  # the same in every version of Python, which a dump is not
