"""How losses are called: tensors in order or by name, and what `help` shows."""

import inspect
import re

import pytest
import torch

import losses
from losses.conformance.samples import batch, own_tensors, settings


@pytest.mark.parametrize("name", losses.names())
def test_tensors_are_taken_in_order_or_by_name(name):
    entry, function = losses.get(name), getattr(losses, name)
    tensors = [*batch(entry), *own_tensors(entry).values()]
    named = dict(zip([*entry.inputs, *entry.own], tensors, strict=True))
    given = settings(entry)
    expected = function(*tensors, **given)
    assert torch.equal(function(**named, **given), expected)
    first, *rest = named
    assert torch.equal(function(named[first], **{k: named[k] for k in rest}, **given), expected)


@pytest.mark.parametrize("name", losses.names())
def test_a_signature_says_what_is_taken_and_that_a_tensor_comes_back(name):
    signature = inspect.signature(getattr(losses, name))
    assert signature.return_annotation is torch.Tensor
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    entry = losses.get(name)
    wanted = len(entry.inputs) + len(entry.own)
    kinds = [p.kind for p in list(signature.parameters.values())[:wanted]]
    assert set(kinds) == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def refused(message, call):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_what_is_missing_or_given_twice_is_named():
    x, y = torch.zeros(3, 4), torch.arange(3)
    refused("focal needs logits and target, got 1", lambda: losses.focal(logits=x))
    refused("focal needs logits and target, got 0", lambda: losses.focal(gamma=1.0))
    refused("focal has no parameter 'logits'", lambda: losses.focal(x, y, logits=x))
    refused("focal has no parameter 'logit'", lambda: losses.focal(logit=x, target=y))
    refused("dpo needs", lambda: losses.dpo(x[:, 0]))


def test_calls_by_name_compile():
    x, y = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.arange(3)
    torch.compiler.reset()
    compiled = torch.compile(
        lambda x, y: losses.focal(logits=x, target=y, gamma=1.0), fullgraph=True, backend="eager"
    )
    torch.testing.assert_close(compiled(x, y), losses.focal(x, y, gamma=1.0))
