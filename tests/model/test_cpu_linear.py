"""The CPU linear layer, with the weight on the left of the product, equals that of torch."""

import pytest
import torch
import torch.nn.functional as F

from gpt2tui.model.cpu import FEW_ROWS, LARGE, CPULinear, linear

OUT, IN = 1024, 512


@pytest.fixture(scope="module")
def layer():
    torch.manual_seed(1)
    return CPULinear(IN, OUT)


@pytest.mark.parametrize("shape", [(IN,), (1, IN), (2, IN), (4, 3, IN), (1, 128, IN), (200, IN), (0, IN)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_product_equals_that_of_torch(layer, shape, with_bias):
    assert layer.weight.numel() >= LARGE
    x, bias = torch.randn(shape), layer.bias if with_bias else None
    with torch.no_grad():
        ours, theirs = linear(x, layer.weight, bias), F.linear(x, layer.weight, bias)
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_weight_is_on_the_left_for_few_rows_of_large_matrices_only(layer, monkeypatch):
    turned = []
    monkeypatch.setattr(F, "linear", lambda *arguments: turned.append(False) or arguments[0])

    def is_turned(rows, weight=layer.weight):
        turned.clear()
        with torch.no_grad():
            linear(torch.randn(rows, IN), weight)
        return not turned

    assert [is_turned(rows) for rows in (1, FEW_ROWS[0], FEW_ROWS[-1], FEW_ROWS[-1] + 1)] == [False, True, True, False]
    assert not is_turned(16, layer.weight[: LARGE // IN - 1])
    assert not is_turned(16, layer.weight.bfloat16())


def test_gradients_and_autocast_are_those_of_torch(layer):
    x = torch.randn(16, IN, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.detach().sum(0).expand(16, IN))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
