"""Parts are disjoint and seeded, and only the training part is ever corrupted."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from harness import data
from harness.data import corrupt
from harness.data.split import cut, generator

COMPOSED = ("mask", "semantic", "boxes")  # scenes, which have tests of their own
BUNDLED = [
    name
    for name in data.names()
    if not data.get(name).needs and data.get(name).kind not in COMPOSED
]
CLASSES = [name for name in BUNDLED if data.get(name).kind in ("binary", "multiclass")]
NUMBERS = [name for name in BUNDLED if data.get(name).kind == "regression"]
ONCE = [name for name in BUNDLED if name != "digit_numbers"]  # every source row is used once
IMAGES = [name for name in BUNDLED if name.startswith("digit")]


def loaded(name: str, seed: int = 0, **given: Any) -> data.Data:
    return data.load(name, split_seed=seed, corrupt_seed=seed, **given)


def parts(loaded: data.Data) -> dict[str, data.Part]:
    return {"train": loaded.train, "val": loaded.val, "test": loaded.test}


def same(one: data.Part, other: data.Part) -> bool:
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.target, other.target)


@pytest.mark.parametrize("name", ONCE)
def test_parts_share_no_row_of_the_source(name: str) -> None:
    """Holds for composed items too, whose rows are those they are composed of."""
    rows = torch.cat([part.flatten() for part in loaded(name).rows.values()])
    assert len(set(rows.tolist())) == len(rows)


@pytest.mark.parametrize("name", ONCE)
def test_parts_are_60_20_20_of_all_rows(name: str) -> None:
    source = {"digit": "digits", "breast": "breast_cancer"}.get(name.split("_")[0], name)
    n = len(getattr(datasets, f"load_{source}")().target)
    sizes = [part.numel() for part in loaded(name).rows.values()]
    # a part is off by at most half an item per class, the training part by the sum of both others;
    # pairing drops an odd item per part
    assert np.abs(np.array(sizes) - np.array([0.6, 0.2, 0.2]) * n).max() <= 10
    assert n - sum(sizes) in ((0, 1, 2, 3) if name == "digit_pairs" else (0,))


@pytest.mark.parametrize("name", BUNDLED)
def test_two_loads_are_identical_and_seeds_differ(name: str) -> None:
    first, again, other = loaded(name, 0), loaded(name, 0), loaded(name, 1)
    assert all(
        same(a, b) for a, b in zip(parts(first).values(), parts(again).values(), strict=True)
    )
    assert first.fingerprints == again.fingerprints
    assert first.fingerprints["data"] == other.fingerprints["data"]
    assert first.fingerprints["split"] != other.fingerprints["split"]
    assert not torch.equal(first.test.target, other.test.target)


def test_sources_have_different_fingerprints() -> None:
    prints = {name: loaded(name).fingerprints["data"] for name in ("digits", "iris", "diabetes")}
    assert len(set(prints.values())) == 3


@pytest.mark.parametrize("name", BUNDLED)
def test_types_and_shapes_are_as_declared(name: str) -> None:
    one = loaded(name)
    outputs = {"binary": 1, "multiclass": len(one.target_names)}
    assert one.kind == data.get(name).kind
    assert one.outputs == outputs.get(one.kind, len(one.target_names))
    several = one.kind == "multilabel" or (one.kind == "regression" and one.outputs > 1)
    for part in parts(one).values():
        assert part.inputs.dtype == torch.float32
        assert part.inputs.isfinite().all()
        assert part.target.dtype == (torch.float32 if one.kind == "regression" else torch.int64)
        assert part.target.shape == ((len(part), one.outputs) if several else (len(part),))
        assert len(part.inputs) == len(part)


def test_loading_leaves_the_cached_arrays_alone() -> None:
    """A run may write into its tensors without changing what the next one gets."""
    before = loaded("digits").train.inputs.clone()
    loaded("digits").train.inputs.zero_()
    assert torch.equal(loaded("digits").train.inputs, before)


@pytest.mark.parametrize("name", [name for name in CLASSES if name in ONCE])
def test_splits_are_stratified_like_scikit_learn(name: str) -> None:
    """Each class's count is within one of what train_test_split gives."""
    one = loaded(name)
    target = torch.cat([part.target for part in parts(one).values()]).numpy()
    _, rest = train_test_split(target, test_size=0.4, stratify=target, random_state=0)
    wanted = [np.bincount(half) for half in train_test_split(rest, test_size=0.5, stratify=rest)]
    for part, counts in zip((one.val, one.test), wanted, strict=True):
        assert np.abs(np.bincount(part.target) - counts).max() <= 1


@pytest.mark.parametrize("name", [name for name in BUNDLED if name not in IMAGES])
@pytest.mark.parametrize("size", [None, 40])
def test_inputs_are_scaled_by_the_training_part(name: str, size: int | None) -> None:
    """Against StandardScaler in float64; 1e-5 is float32's resolution of values up to about 10."""
    source = name.removesuffix("_worst")
    bunch = getattr(datasets, f"load_{source}")(**({"scaled": False} if name == "diabetes" else {}))
    one = loaded(name, train_size=size)
    raw = bunch.data[:, : one.train.inputs.shape[1]]
    scaler = StandardScaler().fit(raw[one.rows["train"]])
    for key, part in parts(one).items():
        np.testing.assert_allclose(part.inputs, scaler.transform(raw[one.rows[key]]), atol=1e-5)


@pytest.mark.parametrize("name", IMAGES)
def test_images_keep_their_own_scale(name: str) -> None:
    one = loaded(name)
    wide = {"digit_pairs": 16, "digit_numbers": 24}.get(name, 8)
    assert one.train.inputs.shape[1:] == (1, 8, wide)
    assert (float(one.train.inputs.min()), float(one.train.inputs.max())) == (0.0, 1.0)


def test_contiguous_digits_are_the_stated_rows() -> None:
    one = loaded("digits", split="contiguous")
    bounds = {key: (int(rows[0]), int(rows[-1])) for key, rows in one.rows.items()}
    assert bounds == {"train": (0, 1077), "val": (1078, 1436), "test": (1437, 1796)}
    bunch = datasets.load_digits()
    assert torch.equal(one.test.target, torch.from_numpy(bunch.target[1437:]))
    assert torch.equal(one.test.inputs[:, 0] * 16, torch.from_numpy(bunch.images[1437:]).float())


def test_a_pair_shows_the_digits_it_is_labelled_with() -> None:
    one, bunch = loaded("digit_pairs"), datasets.load_digits()
    for key, part in parts(one).items():
        pair = one.rows[key]  # [N, 2]
        halves = np.concatenate([bunch.images[pair[:, 0]], bunch.images[pair[:, 1]]], axis=2)
        assert torch.equal(part.inputs[:, 0] * 16, torch.from_numpy(halves).float())
        single = set(loaded("digits").rows[key].tolist())  # stratified in its own test
        assert set(pair.flatten().tolist()) <= single
        shown = [sorted({int(d) for d in bunch.target[both]}) for both in pair]
        assert [row.nonzero().flatten().tolist() for row in part.target] == shown


@pytest.mark.parametrize(("length", "base", "copies"), [(1, 10, 3), (3, 10, 1), (5, 3, 2)])
def test_a_number_shows_its_digits(length: int, base: int, copies: int) -> None:
    one = loaded("digit_numbers", length=length, base=base, copies=copies)
    bunch, split = datasets.load_digits(), loaded("digits").rows
    assert (one.outputs, len(one.val), len(one.test)) == (base**length, 500, 500)
    assert torch.equal(torch.bincount(one.train.target), torch.full((base**length,), copies))
    for key, part in parts(one).items():
        rows = one.rows[key]  # [N, length]
        shown = np.concatenate([bunch.images[column] for column in rows.T], axis=2)
        assert torch.equal(part.inputs[:, 0] * 16, torch.from_numpy(shown).float())
        read = ["".join(map(str, digits)) for digits in bunch.target[rows]]
        assert read == [one.target_names[int(number)] for number in part.target]
        assert [int(text, base) for text in read] == part.target.tolist()
        assert set(rows.flatten().tolist()) <= set(split[key].tolist())  # parts share no digit


def test_too_many_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="100000 items or fewer, got 1000000"):
        loaded("digit_numbers", length=6)


def test_digit_vs_rest_marks_the_digit() -> None:
    one = loaded("digit_vs_rest", digit=3)
    assert torch.equal(one.val.target == 1, loaded_digits_at(one.rows["val"]) == 3)


def loaded_digits_at(rows: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(datasets.load_digits().target[rows])


def test_malignant_is_the_positive_class() -> None:
    one, bunch = loaded("breast_cancer"), datasets.load_breast_cancer()
    named = [bunch.target_names[c] for c in bunch.target[one.rows["test"]]]
    assert [one.target_names[int(c)] for c in one.test.target] == named


@pytest.mark.parametrize("name", NUMBERS)
def test_scale_restores_the_units_of_a_target(name: str) -> None:
    """1e-4 of the largest value: float32 stores the standardised target, its mean and its sd."""
    one = loaded(name, outliers=0.3)
    assert one.scale is not None
    mean, sd = one.scale
    bunch = datasets.load_diabetes() if name == "diabetes" else datasets.load_breast_cancer()
    raw = bunch.target if name == "diabetes" else bunch.data[:, 20:]
    restored = one.test.target * sd + mean
    wanted = raw[one.rows["test"]]
    np.testing.assert_allclose(restored, wanted, atol=float(1e-4 * np.abs(wanted).max()))
    clean = raw[one.rows["train"]]
    np.testing.assert_allclose(mean, clean.mean(0), rtol=1e-6)
    np.testing.assert_allclose(sd, clean.std(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits", {"label_noise": 0.3}),
        ("digits", {"head": 100, "tail": 5}),
        ("digit_vs_rest", {"tail": 20, "label_noise": 0.1}),
        ("digit_pairs", {"label_noise": 0.2}),
        ("diabetes", {"outliers": 0.1}),
        ("breast_cancer_worst", {"outliers": 0.1, "outlier_size": -5}),
    ],
)
def test_corruption_touches_the_training_part_alone(name: str, options: dict[str, Any]) -> None:
    clean, spoilt, other = (
        loaded(name),
        loaded(name, **options),
        data.load(name, split_seed=0, corrupt_seed=1, **options),
    )
    assert torch.equal(clean.val.target, spoilt.val.target)
    assert torch.equal(clean.test.target, spoilt.test.target)
    assert torch.equal(clean.rows["test"], spoilt.rows["test"])
    assert same(spoilt.train, loaded(name, **options).train)
    assert not torch.equal(other.train.target, spoilt.train.target)
    prints = [one.fingerprints["split"] for one in (clean, spoilt, other)]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("share", [0.0, 0.1, 0.37, 1.0])
def test_label_noise_changes_exactly_its_share(share: float) -> None:
    clean, noisy = loaded("digits"), loaded("digits", label_noise=share)
    changed = clean.train.target != noisy.train.target
    assert int(changed.sum()) == round(share * len(clean.train))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    more = loaded("digits", label_noise=min(1.0, share + 0.1)).train.target != clean.train.target
    assert bool(more[changed].all())


def test_label_noise_of_several_labels_counts_entries() -> None:
    clean, noisy = loaded("digit_pairs").train.target, loaded("digit_pairs", label_noise=0.25).train
    assert int((clean != noisy.target).sum()) == round(0.25 * clean.numel())
    assert set(noisy.target.flatten().tolist()) == {0, 1}


def test_noisy_labels_are_uniform_over_the_other_classes() -> None:
    """Chi-square over 30000 flips away from class 1 of 4; seed 0; would fail for 1 seed in 1000."""
    target = np.concatenate([np.ones(30_000, np.int64), [0, 2, 3]])
    _, noisy = corrupt.classes(target, np.random.default_rng(0), label_noise=1.0)
    counts = np.bincount(noisy[:30_000], minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3]]).pvalue > 1e-3


@pytest.mark.parametrize(("head", "tail"), [(100, 5), (50, None), (None, 10), (60, 60)])
def test_a_long_tail_is_exactly_exponential(head: int | None, tail: int | None) -> None:
    clean, cut_short = loaded("digits"), loaded("digits", head=head, tail=tail)
    assert clean.class_counts is not None
    assert cut_short.class_counts is not None
    first = head or int(clean.class_counts[0])
    wanted = np.round(np.geomspace(first, tail or first, 10))
    assert cut_short.class_counts.tolist() == wanted.tolist()
    assert cut_short.class_counts.tolist() == np.bincount(cut_short.train.target).tolist()
    assert set(cut_short.rows["train"].tolist()) <= set(clean.rows["train"].tolist())


def test_tail_makes_positives_rare_and_keeps_the_rest() -> None:
    clean, rare = loaded("breast_cancer"), loaded("breast_cancer", tail=7)
    assert clean.class_counts is not None
    assert rare.class_counts is not None
    assert rare.class_counts.tolist() == [int(clean.class_counts[0]), 7]


@pytest.mark.parametrize("name", NUMBERS)
def test_outliers_shift_exactly_their_share(name: str) -> None:
    clean, spoilt = loaded(name), loaded(name, outliers=0.1, outlier_size=7.0)
    shift = (spoilt.train.target - clean.train.target).reshape(len(clean.train), -1)
    moved = shift.abs().amax(1) > 0
    assert int(moved.sum()) == round(0.1 * len(clean.train))
    assert torch.allclose(shift[moved], torch.tensor(7.0), atol=1e-5)  # float32 of values near 7
    assert clean.class_counts is None


def test_train_size_keeps_shares_of_classes_and_is_nested() -> None:
    sizes = [10, 50, 333]
    cuts = [loaded("digits", train_size=size) for size in sizes]
    full = loaded("digits").class_counts
    assert full is not None
    for size, one in zip(sizes, cuts, strict=True):
        assert len(one.train) == size
        assert one.class_counts is not None
        assert bool(((one.class_counts - full * size / full.sum()).abs() <= 1).all())
    rows = [set(one.rows["train"].tolist()) for one in cuts]
    assert rows[0] < rows[1] < rows[2]
    assert torch.equal(cuts[0].test.target, loaded("digits").test.target)


def test_cut_gives_every_class_an_item_first() -> None:
    classes = np.array([0] * 90 + [1] * 3 + [2] * 2)
    assert sorted(classes[cut(np.arange(95), classes, train_size=3)]) == [0, 1, 2]


def test_cut_keeps_unequal_shares() -> None:
    classes = np.random.default_rng(0).permutation([0] * 60 + [1] * 30 + [2] * 10)
    for size in (10, 20, 50, 100):
        kept = classes[cut(np.arange(100), classes, train_size=size)]
        assert np.bincount(kept).tolist() == [size * 6 // 10, size * 3 // 10, size // 10]


def test_splitting_and_corrupting_are_unrelated() -> None:
    """Seed 0; a correlation of 1000 pairs is below 0.16 for all but 1 seed in a million."""
    one, other = (generator(0, purpose).random(1000) for purpose in ("split", "corrupt"))
    assert abs(stats.pearsonr(one, other).statistic) < 0.16


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("digit", {}, "there is no data set 'digit'; did you mean 'digits'?"),
        ("digits", {"split": "rand"}, "must be one of random, contiguous, classes, got 'rand'"),
        ("digits", {"label_nois": 0.1}, "did you mean 'label_noise'?"),
        ("digits", {"label_noise": 1.5}, "digits.label_noise must be >= 0 and <= 1, got 1.5"),
        ("diabetes", {"label_noise": 0.1}, "diabetes has no parameter 'label_noise'"),
        ("digits", {"train_size": 5000}, "digits: train_size=5000, but the training part has 1079"),
        ("digits", {"train_size": 4}, "digits: train_size=4 leaves some of 10 classes empty"),
        ("digits", {"head": 500}, "digits: head=500 and tail=500 ask for 500 training items"),
        ("digits", {"head": 5, "tail": 9}, "digits: tail=9 must not exceed head=5"),
        ("digit_vs_rest", {"digit": 10}, "digit_vs_rest.digit must be >= 0 and <= 9, got 10"),
    ],
)
def test_bad_settings_are_refused(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        loaded(name, **given)
    assert message in str(raised.value)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="data set 'digits' is registered twice"):
        data.dataset("digits", kind="multiclass", source="")(lambda _: None)  # type: ignore[arg-type, return-value]
