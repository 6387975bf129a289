"""Losses of other libraries by name, `monai/DiceCELoss`, as entries like those of our own.

A name is looked up in :data:`losses.peer_table.PEERS`, and then in its library's namespace: no
dotted path, no import of anything else. The library is imported when one of its losses is asked
for.

A peer computes what its library computes. Nothing is upcast, masked or checked on its way; the
form of the target alone is put as the library wants it. Where its unreduced values add up to its
own mean, it has a value per item like ours. Else its scalar stands for the batch, and it counts as
coupled: several processes must first bring their batches together.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import types
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_origin

import torch
from torch import Tensor, nn

from losses.arguments import Count, Parameter, look_up, nearest
from losses.core import RESERVED, Loss, Parts
from losses.peer_table import LIBRARIES, PEERS, Form
from losses.source import code_hash, text_of

REDUCING = {"size_average", "reduce", "reduction"}
SIZES = {"num_classes": "classes", "embedding_size": "features"}
"""What libraries call the sizes of class vectors, and what we do."""
INPUTS = {"boxes": ("boxes", "target"), "labels": ("embeddings", "labels")}
PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Peer(Loss):
    """A loss of another library; `call` is how it is called."""

    call: "Call | None" = None

    @property
    def ignoring(self) -> bool:
        """Ignored items are the library's affair: never masked here."""
        return False

    def parts(self, *inputs: Tensor, **parameters: Any) -> Parts:
        """What the library computes, unreduced where it can be.

        Raises:
            ValueError: the library raised; the message has its words and the shapes it was given.
        """
        for key in parameters:
            if key not in self.parameters and key not in self.own:
                raise ValueError(
                    f"{self.name} has no parameter '{key}'{nearest(key, self.parameters)}"
                )
        if torch.compiler.is_compiling():
            return _as_parts(self, inputs[1], self.function(*inputs, **parameters))
        try:
            return _as_parts(self, inputs[1], self.function(*inputs, **parameters))
        except Exception as error:
            shapes = " and ".join(f"{list(given.shape)} {given.dtype}" for given in inputs)
            raise ValueError(f"{self.name} on {shapes}: {_said(error)}") from error

    def construct(self, parameters: Mapping[str, Any]) -> None:
        """Let the library look at parameters before a batch is there.

        Raises:
            ValueError: its constructor raised.
        """
        if self.call is None or not inspect.isclass(self.call.home):
            return
        try:
            self.call.module(parameters, [2, 2] if self.own else [], torch.zeros(2, 2))
        except Exception as error:
            given = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
            raise ValueError(f"{self.name} does not take {given}: {_said(error)}") from error

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle by name."""
        return (get, (self.name,)) if get(self.name) is self else object.__reduce__(self)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


def _as_parts(entry: Peer, target: Tensor, result: Any) -> Parts:
    values, counts = result if isinstance(result, tuple) else (result, None)
    if values.ndim == 0:
        return Parts(values.reshape(1), None)
    if entry.target == "index" and target.ndim > 1:  # a list of them may have been asked for
        values = values.reshape(target.shape)
    summed = entry.sum_classes and values.ndim > 1
    return Parts(values.sum(1) if summed else values, counts)


def names(library: str | None = None) -> list[str]:
    """Every name that can be asked for, of one library or of all, installed or not.

    Raises:
        ValueError: no such library.
    """
    chosen = PEERS if library is None else {library: look_up("library of losses", library, PEERS)}
    return sorted(f"{each}/{row}" for each, rows in chosen.items() for row in rows)


def key(name: str) -> str:
    """What a config calls the term: `DiceCELoss` for `monai/DiceCELoss/binary`."""
    return name.split("/")[1] if "/" in name else name


@functools.cache
def get(name: str) -> Peer:
    """The loss `LIBRARY/NAME`, or `LIBRARY/NAME/binary`.

    Raises:
        ValueError: no such library or loss, with the nearest name, or the library is not installed,
            with the command that installs it.
    """
    library, _, row = name.partition("/")
    form = look_up(f"{library} loss", row, look_up("library of losses", library, PEERS))
    called = _resolve(library, row.removesuffix("/binary"))
    declared = _declared(called, form)
    call = Call(called, form, declared)
    facts = {"minimum": None, "additive": form.items, **form.facts}
    own = {each: _maker(called, each, columns) for each, columns in form.own.items()}
    return Peer(
        name,
        call,
        form.target,
        _version(library),
        declared,
        own=own,
        call=call,
        **facts,
    )


def source_hash(name: str) -> str:
    """Sha256 of a peer's library and version, its own code, and how it is called here."""
    entry = get(name)
    assert entry.call is not None
    form = entry.call.form
    ours = [code_hash(part) for part in (form.adapt, form.counts) if part]
    about = [entry.source, text_of(entry.call.home), repr(entry.call.fixed), *ours]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()


def _resolve(library: str, name: str) -> Callable[..., Any]:
    """The class or function of that name in the library's namespaces."""
    about = LIBRARIES[library]
    for namespace in about.namespaces:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what a library's import warns of is its own
                module = importlib.import_module(namespace)
        except ImportError as error:
            raise ValueError(
                f"{library}/{name} needs {about.pip}, which does not import "
                f"({' '.join(str(error).split())}): pip install {about.pip}"
            ) from error
        found: Callable[..., Any] | None = getattr(module, name, None)
        if found is not None:
            return found
    raise ValueError(f"{_version(library)} has no {name}: pip install -U {about.pip}")


def _version(library: str) -> str:
    """Name and version, as pip or else the library itself says."""
    about = LIBRARIES[library]
    try:
        version = importlib.metadata.version(about.pip)
    except importlib.metadata.PackageNotFoundError:  # built from its source, or a nightly
        module = importlib.import_module(about.namespaces[0].partition(".")[0])
        version = getattr(module, "__version__", "of unknown version")
    return f"{about.pip} {version}"


def _declared(called: Callable[..., Any], form: Form) -> dict[str, Parameter]:
    """What a config may set: the arguments a config can write that do not decide the form."""
    source = called.__init__ if inspect.isclass(called) else called
    given = list(inspect.signature(source).parameters.values())
    given = given[1:] if inspect.isclass(called) else given[2:]  # without self, or the two inputs
    try:
        hints = typing.get_type_hints(source)
    except (NameError, TypeError):
        hints = {}
    made = {}
    for each in given:
        pointwise = each.name == "weight" and form.target in ("real", "boxes")
        hidden = REDUCING | set(form.fixed) | (set(SIZES) if form.own else set())
        if each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) or each.name in hidden or pointwise:
            continue
        default = form.filled.get(each.name, each.default)
        default = default.value if isinstance(default, Enum) else default
        default = list(default) if isinstance(default, tuple) else default
        annotation = _writable(hints.get(each.name, Any), default)
        if annotation is not None:
            name = _outside(each.name)
            made[name] = Parameter(name, annotation, default)
    return made


def _outside(name: str) -> str:
    """A library's argument as a config writes it: `weight` and its like mean the term's."""
    taken = name in RESERVED and name != "ignore_index"
    return f"class_{name}" if taken else name


def _inside(name: str) -> str:
    plain = name.removeprefix("class_")
    return plain if _outside(plain) == name else name


def _writable(annotation: Any, default: Any) -> Any:
    """The part of an annotation that a config can write, None if there is none."""
    if annotation is Any:
        if isinstance(default, int) and not isinstance(default, bool):
            return int | float
        return type(default) if isinstance(default, PLAIN) else None
    if get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [_writable(option, None) for option in get_args(annotation)]
        kept = [part for part in parts if part is not None]
        return typing.Union[tuple(kept)] if set(kept) - {types.NoneType} else None  # noqa: UP007
    if annotation is Tensor:
        return Tensor | Sequence[float]
    if get_origin(annotation) in (list, tuple, Sequence):
        items = [part for part in get_args(annotation) if part is not Ellipsis]
        return Sequence[items[0]] if items and items[0] in (int, float) else None  # type: ignore[valid-type]
    return annotation if annotation in (*PLAIN, types.NoneType) else None


class Call:
    """A peer as a function of inputs, its own class vectors and `declared` parameters."""

    def __init__(
        self, home: Callable[..., Any], form: Form, declared: Mapping[str, Parameter]
    ) -> None:
        self.home, self.form, self.declared = home, form, declared
        self.__doc__ = inspect.getdoc(home)
        self.__signature__ = _signature(form, declared)
        reduces = "reduction" in inspect.signature(home).parameters
        reduction = {"reduction": "none" if form.items else "mean"} if reduces else {}
        self.fixed = {**reduction, **form.fixed}
        self.modules: dict[str, nn.Module] = {}

    def settings(self, given: Mapping[str, Any], like: Tensor) -> dict[str, Any]:
        """Parameters under the library's names for them, tensors like `like`."""
        return {
            _inside(key): torch.as_tensor(value).to(like)
            if isinstance(value, Tensor | list)
            and Tensor in get_args(self.declared[key].annotation)
            else value
            for key, value in given.items()
        }

    def module(self, given: Mapping[str, Any], sizes: Sequence[int], like: Tensor) -> nn.Module:
        """The module with these parameters, made once for each device and dtype."""
        key = repr((given, sizes, like.device, like.dtype))
        if key in self.modules and not any(isinstance(v, Tensor) for v in given.values()):
            return self.modules[key]
        sized = dict(zip(SIZES, sizes, strict=True)) if self.form.own else {}
        with _quiet_randomness():  # its first class vectors are never used
            made: nn.Module = self.home(**self.fixed, **self.settings(given, like), **sized)
        self.modules[key] = made.to(like.device, like.dtype)
        return made

    def __call__(self, *inputs: Tensor, **given: Any) -> Any:
        """What the library returns, with counts where its mean is not a plain one."""
        own = {key: given.pop(key) for key in self.form.own}
        given = {key: p.default for key, p in self.declared.items()} | given
        first, second = self.form.adapt(*inputs) if self.form.adapt else inputs
        if inspect.isclass(self.home):
            sizes = [size for vectors in own.values() for size in vectors.shape]
            module = self.module(given, sizes, first)
            held = {key: v.t() if self.form.own[key] else v for key, v in own.items()}
            result = torch.func.functional_call(module, held, (first, second))
        else:
            result = self.home(first, second, **self.fixed, **self.settings(given, first))
        if self.form.counts is None:
            return result
        counts = self.form.counts(inputs[1], self.settings(given, first))
        return result, counts.to(result.dtype)


def _quiet_randomness() -> contextlib.AbstractContextManager[object]:
    """A context that leaves torch's global generator as it was; nothing while compiling."""
    if torch.compiler.is_compiling():
        return contextlib.nullcontext()
    return torch.random.fork_rng(devices=[])


def _signature(form: Form, declared: Mapping[str, Parameter]) -> inspect.Signature:
    inputs = tuple(form.facts.get("fields", ())) or INPUTS.get(form.target, ("output", "target"))
    kinds = inspect.Parameter
    first = [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in (*inputs, *form.own)]
    settings = [kinds(name, kinds.KEYWORD_ONLY, default=p.default) for name, p in declared.items()]
    return inspect.Signature([*first, *settings])


def _maker(called: Callable[..., Any], name: str, columns: bool) -> Callable[..., Tensor]:
    """What makes the class vectors [C, D] that a module starts with."""

    def make(
        *, classes: Count, features: Count, generator: torch.Generator | None = None
    ) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = called(num_classes=classes, embedding_size=features)
        made: Tensor = getattr(module, name).detach().clone()
        return made.t().contiguous() if columns else made

    return make
