"""Ours against trl: what its trainers minimise, by the parameters of a tiny language model.

Only constructors, data loaders and `compute_loss` of its trainers are called; the model has random
weights and the tokens are words of one's own, so nothing is downloaded. Of `losses.policy` trl has
no counterpart of `ppo_value`.
"""

import pytest
import torch

import losses
from tests.peers.agreement import library

trl, datasets = library("trl"), library("datasets")
tokenizers, transformers = library("tokenizers"), library("transformers")
cpo, orpo = library("trl.experimental.cpo"), library("trl.experimental.orpo")
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

# The model and ours are in float64, but trl takes logarithms of probabilities in float32: values
# differ by 1e-6 at most; ten times that leaves room for processors that add in another order.
PRECISION = 1e-5
VOCABULARY = ["<pad>", "<eos>", *"abcdefghijklmn"]
PAIRS = [
    {"prompt": "a b", "chosen": " c d e", "rejected": " f"},
    {"prompt": "g", "chosen": " a", "rejected": " c b h i"},
    {"prompt": "d d d", "chosen": " a b", "rejected": " c b"},
    {"prompt": "k l", "chosen": " n", "rejected": " m a"},
]


def language_model(seed):
    """Scores of the next token, in float64; the spread of its weights makes it far from uniform."""
    torch.manual_seed(seed)
    size = {"vocab_size": len(VOCABULARY), "n_positions": 16, "n_embd": 8}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    config = transformers.GPT2Config(n_layer=1, n_head=2, initializer_range=0.5, **size, **tokens)
    return transformers.GPT2LMHeadModel(config).double().eval()


@pytest.fixture
def model():
    return language_model(0)


@pytest.fixture
def trainer(model, tmp_path):
    """Makes a trainer of the model, by its name; all rows are one batch."""

    def make(name, *, home=trl, rows=PAIRS, settings, **given):
        words = tokenizers.models.WordLevel(
            {word: i for i, word in enumerate(VOCABULARY)}, unk_token="<pad>"
        )
        tokenizer = tokenizers.Tokenizer(words)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        arguments = getattr(home, f"{name}Config")(
            output_dir=str(tmp_path),
            per_device_train_batch_size=len(rows),
            use_cpu=True,
            bf16=False,
            report_to="none",
            **settings,
        )
        made = getattr(home, f"{name}Trainer")(
            model=model,
            args=arguments,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=transformers.PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"
            ),
            **given,
        )
        model.eval()
        return made

    return make


def batch_of(made):
    return next(iter(made.get_train_dataloader()))


def scores(model, ids, attention):
    """Of the tokens after the first, [N, T, V]."""
    return model(input_ids=ids, attention_mask=attention).logits[:, :-1]


def answers(model, ids, attention, mask):
    """Log-probabilities of the tokens after the first, 0 outside the answer, and what is inside."""
    mask = mask[:, 1:].bool()
    log_p = scores(model, ids, attention).log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return torch.where(mask, log_p, 0), mask


def whole(model, *batch):
    return answers(model, *batch)[0].sum(1)


def per_token(model, *batch):
    log_p, mask = answers(model, *batch)
    return log_p.sum(1) / mask.sum(1)


def agree(model, ours, theirs):
    """Same value, and same gradient by all the model's parameters."""

    def sloped(value):
        slopes = torch.autograd.grad(value, list(model.parameters()))
        return value.detach().double(), torch.cat([slope.flatten() for slope in slopes])

    (value, slope), (found, gradient) = sloped(ours), sloped(theirs)
    assert slope.abs().max() > 100 * PRECISION  # what is compared is more than the tolerance
    for mine, other in ((value, found), (slope, gradient)):
        torch.testing.assert_close(mine, other, rtol=PRECISION, atol=PRECISION)


@pytest.mark.parametrize(
    ("name", "loss_type", "log_prob"), [("dpo", "sigmoid", whole), ("ipo", "ipo", per_token)]
)
def test_pairs_with_a_reference(model, trainer, name, loss_type, log_prob):
    reference = language_model(1)
    made = trainer("DPO", settings={"loss_type": loss_type, "beta": 0.3}, ref_model=reference)
    batch = batch_of(made)
    tokens = [batch[key] for key in ("input_ids", "attention_mask", "completion_mask")]
    fields = [side for each in (model, reference) for side in log_prob(each, *tokens).chunk(2)]
    ours = losses.build(name, beta=0.3)(*fields)
    agree(model, ours, made.compute_loss(model, batch))


def test_rated_answers(model, trainer):
    """Its reference point is of this batch's prompts with other prompts' answers, not below 0."""
    reference = language_model(2)
    rows = [
        {"prompt": row["prompt"], "completion": row[kind], "label": kind == "chosen"}
        for row, kind in zip(PAIRS, ("chosen", "rejected", "chosen", "chosen"), strict=True)
    ]
    weights = {"desirable_weight": 0.8, "undesirable_weight": 1.5}
    settings = {"beta": 0.3, **weights}
    made = trainer("KTO", rows=rows, settings=settings, ref_model=reference)
    batch = batch_of(made)
    keys = ("input_ids", "attention_mask", "completion_mask")
    tokens, mismatched = [batch[key] for key in keys], [batch[f"KL_{key}"] for key in keys]
    point = (whole(model, *mismatched) - whole(reference, *mismatched)).mean()
    assert point > 0  # so that it is seen in the loss
    fields = whole(model, *tokens), whole(reference, *tokens), point.expand(len(rows))
    ours = losses.build("kto", beta=0.3, **weights)(*fields, torch.as_tensor(batch["label"]).bool())
    agree(model, ours, made.compute_loss(model, batch))


def sides(batch):
    """Tokens, attention and answer of the chosen and of the rejected ones."""
    for side in ("chosen", "rejected"):
        labels = batch[f"{side}_labels"]
        yield batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"], labels != -100


def test_pairs_without_a_reference(model, trainer):
    settings = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 0.7}
    made = trainer("CPO", home=cpo, settings=settings)
    batch = batch_of(made)
    ours = losses.build("simpo", beta=2.0, margin=0.7)(
        *(per_token(model, *side) for side in sides(batch))
    )
    agree(model, ours, made.compute_loss(model, batch))


def test_odds(model, trainer):
    """Its likelihood is of prompt and chosen answer, and a mean over the batch's tokens; ours and
    the paper's is of the answer, and a mean over answers of means over their tokens.
    """
    made = trainer("ORPO", home=orpo, settings={"beta": 0.4})
    batch = batch_of(made)
    chosen, rejected = sides(batch)
    fields = per_token(model, *chosen), per_token(model, *rejected)
    ids, attention, _ = chosen
    log_p, mask = answers(model, ids, attention, attention)
    ours = losses.build("orpo", odds_weight=0.4)(*fields)
    like_theirs = ours + fields[0].mean() - log_p.sum() / mask.sum()
    assert (like_theirs - ours).abs() > 100 * PRECISION  # they do differ
    agree(model, like_theirs, made.compute_loss(model, batch))


def test_odds_of_answers_of_one_length(model, trainer):
    """Then, and after prompts of one token, which nothing predicts, both likelihoods are one."""
    rows = [
        {"prompt": "a", "chosen": " c d", "rejected": " f"},
        {"prompt": "g", "chosen": " a b", "rejected": " c b h i"},
    ]
    made = trainer("ORPO", home=orpo, rows=rows, settings={"beta": 0.4})
    batch = batch_of(made)
    fields = (per_token(model, *side) for side in sides(batch))
    ours = losses.build("orpo", odds_weight=0.4)(*fields)
    agree(model, ours, made.compute_loss(model, batch))


def rollout(model, *, lengths=(4, 2, 1, 3, 4, 3)):
    """Prompts of 3 tokens, answers and their fields under `model`; others' are within a few tenths.

    The seed is any: near enough that some ratios are clipped on either side and others are not.
    """
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, len(VOCABULARY), (len(lengths), 7), generator=generator)
    mask = torch.arange(7) < 3 + torch.tensor(lengths)[:, None]
    answer = mask & (torch.arange(7) >= 3)
    log_prob, inside = (field[:, 2:] for field in answers(model, ids, mask.long(), answer))
    noise = 0.3 * torch.randn(2, *log_prob.shape, generator=generator, dtype=torch.float64)
    old, reference = torch.where(inside, log_prob.detach() + noise, 0)
    advantage = torch.randn(len(lengths), generator=generator, dtype=torch.float64)
    inputs = {
        "prompt_ids": ids[:, :3],
        "prompt_mask": torch.ones_like(ids[:, :3]),
        "completion_ids": ids[:, 3:],
        "completion_mask": inside.long(),
        "advantages": advantage,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": inside.sum(),
    }
    return inputs, log_prob, reference, old, advantage, inside


@pytest.fixture
def group_trainer(model, trainer, tmp_path):
    """Makes a trainer that compares the answers of a group; a reference is read from a file."""

    def make(name="GRPO", **settings):
        model.save_pretrained(tmp_path / "model")
        model.config.name_or_path = str(tmp_path / "model")
        settings = {"num_generations": len(PAIRS), "max_completion_length": 4, **settings}
        return trainer(name, settings=settings, reward_funcs=lambda **_: [0.0])

    return make


CLIPPED = {"loss_type": "grpo", "epsilon": 0.2, "beta": 0.3}


def test_answers_of_a_group(model, group_trainer):
    made = group_trainer(**CLIPPED, use_bias_correction_kl=False)
    inputs, *fields = rollout(model)
    ours = losses.build("grpo", clip=0.2, beta=0.3)(*fields)
    agree(model, ours, made.compute_loss(model, inputs))


def test_answers_without_tokens_count_in_its_mean(model, group_trainer):
    """Ours is of the 4 answers with tokens; the other 2 are zeros in its mean."""
    made = group_trainer(**CLIPPED, use_bias_correction_kl=False)
    inputs, *fields = rollout(model, lengths=(4, 2, 0, 3, 4, 0))
    ours = losses.build("grpo", clip=0.2, beta=0.3)(*fields)
    agree(model, ours * 4 / 6, made.compute_loss(model, inputs))


def test_its_divergence_may_be_weighted(model, group_trainer):
    """Unless told otherwise it multiplies the divergence by rho, as in DeepSeek-V3.2
    (arXiv:2512.02556); ours is as in DeepSeekMath, without it.
    """
    made = group_trainer(**CLIPPED, use_bias_correction_kl=True)
    inputs, log_prob, reference, old, advantage, inside = rollout(model)
    fields = log_prob, reference, old, advantage, inside
    ours = losses.build("grpo", clip=0.2, beta=0.3)(*fields)
    q = reference - log_prob
    more = torch.expm1(log_prob - old) * (torch.expm1(q) - q)  # (rho - 1) times the divergence
    more = 0.3 * ((more * inside).sum(1) / inside.sum(1)).mean()
    assert more.abs() > 10 * PRECISION  # they do differ
    agree(model, ours + more, made.compute_loss(model, inputs))


FORMS = {
    "dr_grpo": ({"clip": 0.2, "longest": 4}, {"epsilon": 0.2}),
    "dapo": ({"clip_low": 0.1, "clip_high": 0.28}, {"epsilon": 0.1, "epsilon_high": 0.28}),
}


@pytest.mark.parametrize("lengths", [(4, 2, 1, 3, 4, 3), (4, 2, 0, 3, 4, 0)])
@pytest.mark.parametrize("name", FORMS)
def test_tokens_of_a_group(model, group_trainer, name, lengths):
    given, settings = FORMS[name]
    made = group_trainer(loss_type=name, beta=0.0, **settings)
    inputs, log_prob, _, *fields = rollout(model, lengths=lengths)
    ours = losses.build(name, **given)(log_prob, *fields)
    agree(model, ours, made.compute_loss(model, inputs))


def test_clipped_policy_gradient(model, group_trainer):
    """An action is a whole answer to its trainer that leaves one out."""
    made = group_trainer("RLOO", epsilon=0.2, beta=0.0)
    inputs, log_prob, _, old, advantage, _ = rollout(model)
    ours = losses.build("ppo_clip", clip=0.2)(log_prob.sum(1), old.sum(1), advantage)
    agree(model, ours, made.compute_loss(model, {**inputs, "old_logps": old.sum(1)}))


def test_entropy(model, group_trainer):
    """A bonus of the mean over tokens; without advantages there is nothing beside it."""
    made = group_trainer(loss_type="dapo", beta=0.0, entropy_coef=0.5)
    inputs, *_, inside = rollout(model)
    inputs["advantages"] = torch.zeros(len(inside), dtype=torch.float64)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    ours = losses.policy_entropy(scores(model, ids, attention)[:, 2:][inside])
    agree(model, 0.5 * ours, made.compute_loss(model, inputs))
