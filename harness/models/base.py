"""What a model is, and the registry of all of them."""

import errno
import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.store import write_atomically
from losses.arguments import Parameter, check_arguments, nearest, parameters_of

Shape = tuple[int, ...]
TORCHVISION = "torchvision/"
Gives = Literal["values", "map", "boxes"]
"""What a model gives: [N, outputs] values per item, a map [N, outputs, H, W] of them, or whatever
the task of detection reads, see :mod:`harness.tasks.detection`."""
UNUSED = "aux_classifier."
"""What torchvision's files of segmentation hold beside the model, to train it by."""
PRETRAINED = Parameter("pretrained", str | None, None)
"""What every model takes beside its own parameters: a file of weights to start from."""


@dataclass(frozen=True)
class Model:
    """One registered model: a function (input_shape, outputs, *, parameters) to a module.

    `subjects` are what the terms of an objective compare, where a model has several, and how each
    is given, see :mod:`harness.models.boxes`.
    """

    name: str
    function: Callable[..., nn.Module]
    own: dict[str, Parameter]
    gives: Gives
    subjects: Mapping[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """What a config may say of it beside the name."""
        return {**self.own, PRETRAINED.name: PRETRAINED}


class Adapted(nn.Module):
    """A model between what fits its inputs and its output to a task; neither has weights."""

    def __init__(
        self, inner: nn.Module, before: nn.Module | None = None, after: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.before, self.inner, self.after = before, inner, after

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's output, of inputs and in a shape that are not its own."""
        output: Tensor = self.inner(inputs if self.before is None else self.before(inputs))
        return output if self.after is None else self.after(output)


REGISTRY: dict[str, Model] = {}


def model(
    name: str, gives: Gives = "values", subjects: Mapping[str, str] | None = None
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register a function (input_shape, outputs, *, parameters) that returns a module.

    The module takes [N, *input_shape] and gives what :data:`Gives` says; :func:`build` does the
    rest.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if name in REGISTRY:
            raise ValueError(f"model '{name}' is registered twice")
        REGISTRY[name] = Model(name, function, parameters_of(function), gives, subjects or {})
        return function

    return register


def names() -> list[str]:
    """Names of the registered models, sorted; `torchvision/NAME` is accepted besides."""
    return sorted(REGISTRY)


def get(name: str) -> Model:
    """The registered model of that name, or torchvision's `torchvision/NAME`.

    Raises:
        ValueError: no such model; the message has the nearest name.
    """
    if name.startswith(TORCHVISION):
        from harness.models import vision

        return vision.entry(name)
    if name not in REGISTRY:
        known = [*REGISTRY, f"{TORCHVISION}NAME"]
        raise ValueError(f"there is no model '{name}'{nearest(name, known)}")
    return REGISTRY[name]


def build(name: str, input_shape: Shape, outputs: int, *, seed: int, **given: Any) -> nn.Module:
    """A model with initial weights drawn from `seed` alone; no global random state changes.

    It takes float [N, *input_shape] and gives [N, outputs], or [N] where `outputs` is 1; a map
    [N, outputs, H, W], or [N, H, W].

    Args:
        name: a registered name, or `torchvision/NAME`.
        input_shape: the shape of one item.
        outputs: how many numbers per item, or per place of a map.
        seed: of the initial weights.
        given: the model's own parameters, and `pretrained`.

    Raises:
        ValueError: unknown model or parameter, a value out of bounds, inputs it cannot take, or
            weights that do not fit.

    >>> build("mlp", (1, 8, 8), 10, seed=0, hidden=[32])(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """
    entry = get(name)
    checked = check_arguments(name, entry.parameters, given)
    weights = checked.pop(PRETRAINED.name, None)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed GPUs too
        built = entry.function(tuple(input_shape), outputs, **checked)
    single = outputs == 1 and entry.gives != "boxes"
    if weights:
        load(built, weights)
    return Adapted(built, after=nn.Flatten(0, 1)) if single else built


def save(module: nn.Module, path: str | Path) -> None:
    """Write a model's weights to a file that :func:`load` reads, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    weights = {name: tensor.cpu() for name, tensor in _inner(module).state_dict().items()}
    content = io.BytesIO()
    torch.save(weights, content)
    write_atomically(Path(path), content.getvalue())


def load(module: nn.Module, path: str | Path) -> None:
    """Read weights from a file, without running any code of its.

    Tensors of a last layer that fit in everything but the number of outputs keep their initial
    values, so that weights of another data set can be a start.

    Raises:
        ValueError: no such file, no file of weights, or weights of another model.
    """
    file = Path(path).expanduser()
    try:
        if not file.is_file():  # a folder, or a pipe that would be waited for
            raise FileNotFoundError(errno.ENOENT, "No such file")
        _refuse_packed(file)
        with warnings.catch_warnings(action="ignore"):  # of what is refused below
            read = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"pretrained={path}: {error.strerror or error}") from error
    except Exception as error:  # torch has no one class for what is no file of weights
        raise ValueError(f"pretrained={path} is no file of weights alone") from error
    read = read.get("state_dict", read) if isinstance(read, dict) else read
    heads = getattr(module, "heads", ())
    module = _inner(module)
    own = module.state_dict()
    if not isinstance(read, dict) or not all(map(_is_weight, read, read.values())):
        raise ValueError(f"pretrained={path} holds no tensors of finite numbers by name")
    read = {k: t for k, t in read.items() if k in own or not k.startswith(UNUSED)}
    for key in sorted(read.keys() ^ own.keys())[:1]:
        raise ValueError(f"pretrained={path} is of another model: only one of them has {key}")
    others = [key for key, tensor in read.items() if tensor.shape != own[key].shape]
    wrong = [key for key in others if read[key].shape[1:] != own[key].shape[1:]]
    # a weight and a bias of a last layer may differ, or of those that a model names
    beyond = [key for key in others if not key.startswith(heads)] if heads else others[2:]
    for key in wrong or beyond:
        raise ValueError(
            f"pretrained={path} does not fit: {key} is {list(read[key].shape)} there and "
            f"{list(own[key].shape)} here"
        )
    module.load_state_dict(own | {k: t for k, t in read.items() if k not in others})


def _refuse_packed(file: Path) -> None:
    """Raise ValueError if a zip would unpack to more than it is; torch packs nothing."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as members:
            infos = members.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise ValueError("it is packed")


def _is_weight(name: object, tensor: object) -> bool:
    """Whether this is a dense tensor under a name, without NaN, infinity or imaginary parts.

    Every number must stand in the file: one repeated by its strides could be of any size.
    """
    if not (isinstance(name, str) and isinstance(tensor, Tensor)):
        return False
    odd = tensor.is_complex() or tensor.is_quantized or tensor.is_meta
    if odd or tensor.layout != torch.strided:
        return False
    return tensor.nbytes <= tensor.untyped_storage().nbytes() and bool(tensor.isfinite().all())


def _inner(module: nn.Module) -> nn.Module:
    """The model itself, whatever adapts it."""
    return _inner(module.inner) if isinstance(module, Adapted) else module


def parameter_count(module: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def fingerprint(module: nn.Module) -> str:
    """sha256 of the bytes of all parameters and buffers, in the order of the state dict."""
    total = hashlib.sha256()
    for tensor in module.state_dict().values():
        total.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
