"""The chunked cross-entropy against torch's, in values and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from gpt2tui.model import loss as loss_module
from gpt2tui.model.loss import linear_cross_entropy

V, C = 40, 16
WAYS = {
    "plain": {},
    "one chunk": {"PLAIN_LOGITS": 0},
    "chunks, the last one shorter": {"PLAIN_LOGITS": 0, "CHUNK_LOGITS": 5 * V},
    "chunks cut in slices": {"PLAIN_LOGITS": 0, "CHUNK_LOGITS": 5 * V, "SLICE_LOGITS": 2 * V},
    "less room than a row": {"PLAIN_LOGITS": 0, "CHUNK_LOGITS": 1, "SLICE_LOGITS": 1},
    "plain, padded": {"_pads": lambda weight: True},
    "one chunk, padded": {"PLAIN_LOGITS": 0, "_pads": lambda weight: True},
    "chunks, padded": {"PLAIN_LOGITS": 0, "CHUNK_LOGITS": 5 * V, "_pads": lambda weight: True},
}


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def _way(request, monkeypatch):
    for name, value in request.param.items():
        monkeypatch.setattr(loss_module, name, value)


@pytest.fixture
def _chunked(monkeypatch):
    monkeypatch.setattr(loss_module, "PLAIN_LOGITS", 0)
    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", 5 * V)


def inputs(B=3, T=6, scale=1.0, vocabulary=V):
    generator = torch.Generator().manual_seed(5)
    hidden = (scale * torch.randn(B, T, C, generator=generator)).requires_grad_()
    weight = torch.randn(vocabulary, C, generator=generator).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (B, T), generator=generator)


def reference(hidden, weight, targets, reduction):
    logits = F.linear(hidden, weight).flatten(0, 1)
    loss = F.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction=reduction)
    return loss.view(targets.shape) if reduction == "none" else loss


def value_and_gradients(function, hidden, weight, targets, reduction):
    loss = function(hidden, weight, targets, reduction)
    upstream = torch.linspace(0.5, 2.0, loss.numel()).view(loss.shape)
    return loss.detach(), *torch.autograd.grad(loss, (hidden, weight), upstream)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", ["none", "some", "a whole sequence"])
def test_value_and_gradients_equal_those_of_torch(reduction, ignored):
    hidden, weight, targets = inputs()
    if ignored == "some":
        targets[:, ::3] = -1
    elif ignored == "a whole sequence":
        targets[1] = -1
    ours = value_and_gradients(linear_cross_entropy, hidden, weight, targets, reduction)
    theirs = value_and_gradients(reference, hidden, weight, targets, reduction)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=3e-6, atol=3e-6)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_value_without_gradients_equals_the_value_with_them(reduction):
    hidden, weight, targets = inputs()
    targets[0, 2] = -1
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets, reduction)
    torch.testing.assert_close(loss, reference(hidden, weight, targets, reduction).detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_torchs_ignore_index_does_not_count_either(reduction):
    hidden, weight, targets = inputs()
    targets[:, ::3] = -1
    expected = value_and_gradients(linear_cross_entropy, hidden, weight, targets, reduction)
    ours = value_and_gradients(linear_cross_entropy, hidden, weight, targets.where(targets >= 0, -100), reduction)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@pytest.mark.usefixtures("_way")
def test_when_no_target_counts_loss_and_gradients_are_zero():
    hidden, weight, targets = inputs()
    loss, *gradients = value_and_gradients(linear_cross_entropy, hidden, weight, torch.full_like(targets, -1), "mean")
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.usefixtures("_way")
def test_a_target_outside_of_the_vocabulary_is_an_error():
    hidden, weight, targets = inputs()
    targets[1, 1] = V
    with pytest.raises((IndexError, RuntimeError)):
        linear_cross_entropy(hidden, weight, targets)


@pytest.mark.usefixtures("_way")
def test_logits_of_thousands_do_not_overflow():
    hidden, weight, targets = inputs(scale=3000.0)
    ours = value_and_gradients(linear_cross_entropy, hidden, weight, targets, "mean")
    theirs = value_and_gradients(reference, hidden, weight, targets, "mean")
    assert ours[0] > 1000
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("_chunked")
def test_a_frozen_weight_still_gives_the_gradient_of_hidden():
    hidden, weight, targets = inputs()
    expected = torch.autograd.grad(reference(hidden, weight, targets, "mean"), hidden)[0]
    loss = linear_cross_entropy(hidden, weight.detach(), targets)
    torch.testing.assert_close(torch.autograd.grad(loss, hidden)[0], expected, rtol=1e-6, atol=3e-7)


@pytest.mark.usefixtures("_chunked")
def test_backward_may_be_repeated():
    hidden, weight, targets = inputs()
    loss = linear_cross_entropy(hidden, weight, targets)
    first = torch.autograd.grad(3.0 * loss, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(3.0 * loss, (hidden, weight))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.usefixtures("_way")
def test_bf16_autocast_is_close_to_fp32_and_accumulates_in_fp32():
    hidden, weight, targets = inputs(B=16, T=32)
    exact = value_and_gradients(reference, hidden, weight, targets, "mean")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = value_and_gradients(linear_cross_entropy, hidden, weight, targets, "mean")
    assert ours[0].dtype == torch.float32
    assert ours[0].item() == pytest.approx(exact[0].item(), rel=2e-3)
    for a, b in zip(ours[1:], exact[1:], strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.01 * b.norm()


@pytest.mark.usefixtures("_way")
def test_bf16_tensors_give_an_fp32_loss_and_bf16_gradients():
    hidden, weight, targets = inputs()
    rounded = [t.detach().bfloat16().requires_grad_() for t in (hidden, weight)]
    ours = value_and_gradients(linear_cross_entropy, *rounded, targets, "mean")
    exact = value_and_gradients(reference, *[t.detach().float().requires_grad_() for t in rounded], targets, "mean")
    assert [t.dtype for t in ours] == [torch.float32, torch.bfloat16, torch.bfloat16]
    for a, b in zip(ours, exact, strict=True):
        assert (a.float() - b).norm() < 0.02 * b.norm()


@pytest.fixture(params=["plain", "chunks", "padded chunks"])
def _fp16_way(request, monkeypatch):
    monkeypatch.setattr(loss_module, "PLAIN_LOGITS", 2**26 if request.param == "plain" else 0)
    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", 2**20)
    monkeypatch.setattr(loss_module, "_pads", lambda weight: request.param == "padded chunks")


def fp16_gradients(hidden, weight, targets, scale):
    with torch.autocast("cpu", dtype=torch.float16):
        loss = linear_cross_entropy(hidden, weight, targets)
    return [gradient / scale for gradient in torch.autograd.grad(scale * loss, (hidden, weight))]


@pytest.mark.usefixtures("_fp16_way")
def test_a_scaler_keeps_fp16_gradients_from_vanishing():
    # Each of 20,000 tokens has a probability near 5e-5: over 256 positions its gradient is 2e-7, which fp16
    # cannot resolve, unless the scale reaches the gradient of the logits before it is rounded.
    hidden, weight, targets = inputs(B=4, T=64, scale=0.01, vocabulary=20_000)
    exact = torch.autograd.grad(reference(hidden, weight, targets, "mean"), weight)[0]
    others = torch.ones(20_000, dtype=torch.bool).index_fill(0, targets.flatten(), False)

    def error(scale):
        ours = fp16_gradients(hidden, weight, targets, scale)[1]
        return ((ours - exact)[others].norm() / exact[others].norm()).item()

    assert error(2.0**14) < 0.01
    assert error(1.0) > 0.05, "without the scale they do vanish"


@pytest.mark.usefixtures("_fp16_way")
def test_fp16_gradients_of_many_positions_do_not_overflow():
    # Summed over the positions of a chunk it is 104,800, more than fp16 holds; the mean is 200.
    hidden = torch.full((2, 512, C), 200.0, requires_grad=True)
    weight = torch.zeros(2000, C, requires_grad=True)
    targets = torch.zeros(2, 512, dtype=torch.long)
    gradient = fp16_gradients(hidden, weight, targets, scale=1.0)[1]
    torch.testing.assert_close(gradient[0], torch.full((C,), -200.0), rtol=0.01, atol=0)


@pytest.mark.usefixtures("_chunked")
def test_the_logits_of_all_positions_are_never_held_at_once(monkeypatch):
    # Recording sizes where logits are made, by each of the two products; no tensor may be longer than a chunk.
    rows = []
    linear, mm = F.linear, torch.mm

    def recording_linear(x, weight):
        rows.append(x.numel() // x.size(-1))
        return linear(x, weight)

    def recording_mm(x, weight, *, out):
        rows.append(len(x))
        return mm(x, weight, out=out)

    monkeypatch.setattr(F, "linear", recording_linear)
    monkeypatch.setattr(torch, "mm", recording_mm)
    hidden, weight, targets = inputs()
    for reduction in ("mean", "none"):
        rows.clear()
        linear_cross_entropy(hidden, weight, targets, reduction).sum().backward()
        assert max(rows) == 5


@pytest.mark.usefixtures("_chunked")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_have_a_multiple_of_64_columns_where_the_vocabulary_is_padded(monkeypatch, dtype):
    columns = set()
    linear = F.linear

    def noting(x, weight):
        columns.add(len(weight))
        return linear(x, weight)

    monkeypatch.setattr(F, "linear", noting)
    monkeypatch.setattr(loss_module, "_in_place", lambda weight: False)  # as on a GPU
    for pads, expected in (True, {64}), (False, {V}):
        columns.clear()
        monkeypatch.setattr(loss_module, "_pads", lambda weight, pads=pads: pads)
        hidden, weight, targets = inputs()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = linear_cross_entropy(hidden, weight, targets)
        loss.backward()
        assert columns == expected
        assert weight.grad.shape == (V, C)


@pytest.mark.usefixtures("_way")
def test_tokens_that_do_not_exist_get_no_probability():
    # All logits are the same, so that each of V tokens has 1/V; of 64 it would be less.
    hidden, weight, targets = inputs()
    loss = linear_cross_entropy(torch.zeros_like(hidden), weight, targets)
    assert loss.item() == pytest.approx(math.log(V), rel=1e-6)
    # Nor where all others are far below the zeros that the padding gives.
    below = linear_cross_entropy(torch.ones_like(hidden), torch.full_like(weight, -5.0), targets)
    assert below.item() == pytest.approx(math.log(V), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.usefixtures("_chunked")
def test_traced_by_the_compiler_it_is_the_same(monkeypatch, reduction, padded):
    monkeypatch.setattr(loss_module, "_pads", lambda weight: padded)
    hidden, weight, targets = inputs()
    targets[0, :3] = -1
    compiled = torch.compile(linear_cross_entropy, backend="aot_eager", fullgraph=True)
    ours = value_and_gradients(compiled, hidden, weight, targets, reduction)
    theirs = value_and_gradients(reference, hidden, weight, targets, reduction)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=3e-6, atol=3e-6)
