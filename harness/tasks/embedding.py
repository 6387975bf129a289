"""Vectors by which items of one class are found among others: metric learning and retrieval."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from harness import across
from harness.batches import Batches, Draw
from harness.data import Data, Part
from harness.judges import Yardstick
from harness.objective import OUTPUT, Compared, Facts, Subject
from harness.retrieval import ClusterInformation, Retrieval
from harness.samples import Array, Samples
from harness.tasks._shown import as_bytes, nearest
from harness.tasks.base import Task, subject
from losses import Loss, LossModule
from losses.arguments import Bounds, Count
from losses.embedding import unit

TRIPLETS = {"anchor", "positive", "negative"}
PAIRS = {"first", "second", "similar"}
VIEWS = {"first", "second"}
VECTORS = {"float N D", "int N"}
"""Declared shapes of inputs that can be made of embeddings and of whether they belong together."""


@dataclass(frozen=True)
class Settings:
    """What an embedding is, and how batches are composed.

    Attributes:
        features: numbers per item.
        per_class: K items of each of P = batch_size // K classes make a batch.
        normalise: give the losses vectors of length 1.
        neighbours: k of `recall_at_k`.
        negatives: which negative a triplet gets, see :func:`triplets`.
    """

    features: Annotated[int, Bounds(2)] = 16
    per_class: Annotated[int, Bounds(2)] = 4
    normalise: bool = False
    neighbours: Count = 5
    negatives: Literal["semihard", "hardest"] = "semihard"


class Embedding(Task):
    """Embeddings [N, D], judged by whether an item's nearest others are of its class.

    The model learns on the training part and is judged within the validation and the test part:
    each item in turn looks for its like among all others of the part.
    """

    kinds = ("multiclass",)
    fields = (*TRIPLETS, *PAIRS)
    unseen = True
    Settings = Settings

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        search = self.judges.yardsticks["recall_at_k"].metric
        assert isinstance(search, Retrieval)
        search.neighbours = self.settings.neighbours
        terms = self.objective.modules_by_term.values()
        compared = [term.entry for term in terms if isinstance(term, LossModule)]
        self.named = [set(entry.inputs) for entry in compared if entry.target == "fields"]
        if PAIRS in self.named and VIEWS in self.named:
            raise ValueError("a loss of pairs and one of two views cannot stand in one objective")

    @classmethod
    def refusal(cls, loss: Loss, kind: str, term: str = "") -> str | None:
        if loss.target == "fields" and set(loss.inputs) in (TRIPLETS, PAIRS, VIEWS):
            shapes = {loss.fields.get(name) for name in loss.inputs}
            return None if shapes <= VECTORS else f"{loss.name} compares more than embeddings"
        if loss.target == "labels":
            unknown = [size for size in loss.sizes if size not in ("classes", "features")]
            return f"{loss.name} needs to know {' and '.join(unknown)}" if unknown else None
        return f"{loss.name} compares {subject(loss)}, and this model gives embeddings"

    @classmethod
    def outputs(cls, data: Data, settings: Any) -> int:
        return int(settings.features)

    @classmethod
    def facts(cls, data: Data, settings: Any, seed: int) -> Facts:
        """Of the classes that train: those of a split by class come first."""
        classes = int(data.train.target.max()) + 1
        counts = None if data.class_counts is None else data.class_counts[:classes]
        return Facts(counts, {"classes": classes, "features": settings.features}, seed)

    @classmethod
    def draw(cls, data: Data, size: int, settings: Any) -> Draw:
        for name, part in (("validation", data.val), ("test", data.test)):
            if not part.target.bincount().gt(1).any():
                raise ValueError(f"no class has two items in the {name} part: nothing to find")
        rows = _rows_by_class(data.train.target)
        several, kept = size // settings.per_class, settings.per_class
        if several < 2:
            raise ValueError(
                f"a batch of {size} with task.per_class={kept} holds items of {several} class: "
                f"set trainer.batch_size to {2 * kept} or more"
            )
        if several > len(rows):
            raise ValueError(
                f"a batch of {size} with task.per_class={kept} holds items of {several} classes, "
                f"and {len(rows)} train: set trainer.batch_size={len(rows) * kept}, or "
                f"task.per_class={-(-size // len(rows))}"
            )
        batches = -(-len(data.train) // (several * kept))
        return lambda generator: [*balanced(rows, several, kept, batches, generator)]

    @classmethod
    def yardsticks(cls, data: Data) -> dict[str, Yardstick]:
        search = Retrieval()
        found = {
            name: Yardstick("higher", search, cheap=True, key=name)
            for name in ("recall_at_1", "recall_at_k", "map_at_r")
        }
        return found | {
            "nmi": Yardstick("higher", ClusterInformation()),
            "queries": Yardstick(None, search, key="queries"),
        }

    def forward(self, inputs: Tensor) -> Tensor:
        output = super().forward(inputs)
        return unit(output) if self.settings.normalise else output

    def compare(self, inputs: Tensor, target: Tensor) -> Compared:
        """The batch, and of the whole batch of all processes the triplets and pairs asked for."""
        if not self.named:
            return super().compare(inputs, target)
        share = slice(None)
        if across.processes():
            share = slice(self.global_rank, None, self.trainer.world_size)
            inputs, target = (self._whole(rows) for rows in (inputs, target))
        embeddings = self(inputs)
        fields: dict[str, Tensor] = {}
        for names in self.named:
            made = self._fields(names, embeddings, target)
            fields |= {name: rows[share] for name, rows in made.items()}
        return Compared({OUTPUT: Subject((embeddings[share], target[share]))}, fields)

    def _whole(self, rows: Tensor) -> Tensor:
        """A batch as it was before each process took its share."""
        gathered, world = across.gathered(rows), self.trainer.world_size
        places = torch.arange(len(gathered), device=rows.device)
        return gathered[torch.cat([places[rank::world] for rank in range(world)]).argsort()]

    def _fields(self, names: set[str], embeddings: Tensor, target: Tensor) -> dict[str, Tensor]:
        if names == TRIPLETS:
            chosen = triplets(embeddings.detach(), target, self.settings.negatives)
            made = zip(("anchor", "positive", "negative"), chosen, strict=True)
            return {name: embeddings[rows] for name, rows in made}
        if names == VIEWS:
            first, second = views(target)
            return {"first": embeddings[first], "second": embeddings[second]}
        items = len(target)
        first, second = torch.triu_indices(items, items, offset=1, device=target.device)
        similar = (target[first] == target[second]).long()
        return {"first": embeddings[first], "second": embeddings[second], "similar": similar}

    def references(self, part: Part) -> dict[str, dict[str, float]]:
        """The same search among the inputs as they are, and among the untrained embeddings."""
        self.judges.reset(self.judges.all, self.device)
        for inputs, target in Batches(part.to(self.device), self.evaluation_batch):
            self.judges.update(inputs.flatten(1), inputs.flatten(1), target, self.judges.all)
        return {
            "raw inputs": self.judges.compute(self.judges.all),
            "untrained": self.evaluate(part),
        }

    def samples(self, part: Part, images: Array) -> Samples | None:
        if len(part) < 2:
            return None
        embedded = torch.cat([self(x.to(self.dtype)) for x, _ in self._in_order(part)])
        rows = nearest(embedded, len(images)).cpu()  # [K, n]
        found, labels = dataclasses.replace(part, normalise=False).take(rows.flatten())
        labels = labels.view_as(rows).cpu()
        _, target = part.first(len(images)).take(torch.arange(len(images)))
        true = target.cpu()
        return Samples(
            "neighbours",
            images,
            {"labels": true.numpy()},
            {
                "images": as_bytes(found.view(*rows.shape, *found.shape[1:])),
                "labels": labels.numpy(),
            },
            (labels == true.unsqueeze(1)).double().mean(1).numpy(),
        )

    def predict(self, output: Tensor) -> Tensor:
        return output.to(torch.promote_types(output.dtype, torch.float32))


def _rows_by_class(target: Tensor) -> list[Tensor]:
    """Row numbers of each class that is there."""
    counts = target.bincount()
    return list(torch.split(target.argsort(stable=True), counts[counts > 0].tolist()))


def balanced(
    rows: list[Tensor], several: int, kept: int, batches: int, generator: torch.Generator
) -> Iterable[Tensor]:
    """Row numbers of each batch: `kept` items of each of `several` classes.

    Classes are drawn at random among those used least so far in the epoch, so that each is used as
    often as any other to within one. The items of a class come in a random order, `kept` at a time;
    when fewer are left, a new order begins. A class with fewer than `kept` items gives all of them,
    and again in another order until there are enough.
    """
    used = torch.zeros(len(rows), dtype=torch.float64)
    left = [mine[:0] for mine in rows]
    for _ in range(batches):
        luck = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        chosen = (used + luck).argsort()[:several]
        used[chosen] += 1
        batch = []
        for each in chosen.tolist():
            if len(left[each]) < kept:
                left[each] = _shuffled(rows[each], kept, generator)
            batch.append(left[each][:kept])
            left[each] = left[each][kept:]
        yield torch.cat(batch)


def _shuffled(rows: Tensor, least: int, generator: torch.Generator) -> Tensor:
    """The rows in a random order, over and over until there are as many as are needed."""
    times = -(-least // len(rows))
    return torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(times)])


def triplets(embeddings: Tensor, target: Tensor, negatives: str) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers of anchors, positives and negatives: every pair of one class, both ways round.

    By Euclidean distance, the `semihard` negative is the nearest of those farther away than the
    positive, or where there are none the farthest (Schroff et al. 2015, section 3.2); the `hardest`
    is the nearest of all. Anchors without any negative have no triplets.
    """
    same = target.unsqueeze(1) == target
    itself = torch.eye(len(target), dtype=torch.bool, device=target.device)
    possible = ~same.all(1, keepdim=True)
    anchor, positive = (same & ~itself & possible).nonzero().unbind(1)
    apart = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    rivals = apart[anchor].masked_fill(same[anchor], torch.inf)  # [T, N]
    if negatives == "hardest":
        return anchor, positive, rivals.argmin(1)
    beyond = rivals.masked_fill(rivals <= apart[anchor, positive].unsqueeze(1), torch.inf)
    nearest, farthest = beyond.min(1), apart[anchor].masked_fill(same[anchor], -1).argmax(1)
    return anchor, positive, torch.where(nearest.values.isfinite(), nearest.indices, farthest)


def views(target: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers of two items of each class that has two: the first and the second in the batch.

    One pair of each, for losses of two views take all other pairs for items apart.
    """
    turn = (target.unsqueeze(1) == target).tril().sum(1)  # 1 for the first of its class
    second = (turn == 2).nonzero().squeeze(1)
    first = ((target[second].unsqueeze(1) == target) & (turn == 1)).long().argmax(1)
    return first, second


TASK = Embedding
