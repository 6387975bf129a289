"""The layer whose answers to ordered questions cannot contradict each other."""

import pytest
import torch
from torch import nn

import losses


def test_answers_never_contradict_each_other_whatever_is_learnt():
    torch.manual_seed(0)
    layer = losses.Thresholds(6)
    score = torch.randn(50, 1)
    for _ in range(20):
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(5 * torch.randn_like(parameter))
        logits = layer(score)
        assert logits.shape == (50, 5)
        assert (logits.diff(dim=1) <= 0).all()
        yes = logits > 0
        assert torch.equal(yes, yes.cumprod(1).bool())


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_at_the_start_a_score_of_0_makes_all_classes_equally_probable(classes):
    layer = losses.Thresholds(classes)
    above = layer(torch.zeros(1, 1)).sigmoid()[0]
    share = torch.cat([torch.ones(1), above]) - torch.cat([above, torch.zeros(1)])
    torch.testing.assert_close(share, torch.full((classes,), 1 / classes))
    assert sum(p.numel() for p in layer.parameters()) == classes - 1


def test_with_it_coral_learns_an_order_that_free_rows_contradict():
    """All classes but the middle ones are rare, so that free rows see little of their questions."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 20, generator=generator)
    target = (features[:, 0] + 0.5 * torch.randn(60, generator=generator) + 2.5).round()
    target = target.clamp(0, 5).long()
    torch.manual_seed(0)
    heads = {
        "shared": nn.Sequential(nn.Linear(20, 1, bias=False), losses.Thresholds(6)),
        "free": nn.Linear(20, 5),
    }
    fresh = torch.randn(500, 20, generator=generator)
    contradicted, costs = {}, {}
    for name, head in heads.items():
        optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
        before = losses.coral(head(features), target).item()
        for _ in range(200):
            optimizer.zero_grad()
            losses.coral(head(features), target).backward()
            optimizer.step()
        costs[name] = losses.coral(head(features), target).item() / before
        contradicted[name] = int((head(fresh).diff(dim=1) > 0).any(1).sum())
    assert max(costs.values()) < 0.7
    assert contradicted["shared"] == 0 < contradicted["free"]


def test_maps_have_a_question_per_step_at_each_place():
    layer, score = losses.Thresholds(4), torch.randn(2, 1, 3, 5)
    flat = layer(score.movedim(1, -1).reshape(-1, 1))
    torch.testing.assert_close(layer(score).movedim(1, -1).reshape(-1, 3), flat)
    assert layer.double()(score.double()).dtype == torch.float64


def test_scores_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="Thresholds needs at least 2 classes, got 1"):
        losses.Thresholds(1)
    for shape in ((5,), (5, 2)):
        with pytest.raises(ValueError, match=r"Thresholds needs scores \[N, 1, ...\], got \[5"):
            losses.Thresholds(4)(torch.zeros(shape))
