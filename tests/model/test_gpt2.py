"""The network against the published implementation's logits, the paper's initialisation, and itself."""

import math

import pytest
import torch
from torch import nn

from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2, network_without_weights


def small(**changes):
    return GPT2Config(**{"vocab_size": 61, "n_positions": 32, "n_embd": 48, "n_layer": 3, "n_head": 4} | changes)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(7)


@pytest.mark.parametrize(
    ("n_embd", "n_layer", "n_head", "published"),
    # Table 2 of the paper; counts of the published checkpoints
    [
        (768, 12, 12, 124_439_808),
        (1024, 24, 16, 354_823_168),
        (1280, 36, 20, 774_030_080),
        (1600, 48, 25, 1_557_611_200),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(n_embd, n_layer, n_head, published):
    config = GPT2Config(vocab_size=50257, n_embd=n_embd, n_layer=n_layer, n_head=n_head)
    model = network_without_weights(config)
    assert model.num_parameters == published == config.parameter_count()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(48, 3, 4), (8, 1, 1), (30, 2, 5)])
def test_parameter_count_of_the_config_is_that_of_the_network(bias, shape):
    config = small(n_embd=shape[0], n_layer=shape[1], n_head=shape[2], bias=bias)
    assert GPT2(config).num_parameters == config.parameter_count()


def test_initial_loss_is_ln_v_within_2_percent():
    model = GPT2(small(vocab_size=5000, n_embd=128))
    tokens = torch.randint(5000, (8, 33))
    loss = model(tokens[:, :-1], tokens[:, 1:])
    assert loss.item() == pytest.approx(math.log(5000), rel=0.02)


def test_initialisation_is_that_of_transformers():
    config = small(n_embd=256, n_layer=8)
    for name, parameter in GPT2(config).named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any(), name
        elif "ln_" in name:
            assert (parameter == 1).all(), name
        else:
            residual = name.endswith(("attn.c_proj.weight", "mlp.c_proj.weight"))
            std = 0.02 / math.sqrt(2 * 8) if residual else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name
            assert abs(parameter.mean().item()) < 5 * std / math.sqrt(parameter.numel()), name


def test_a_network_without_weights_draws_no_random_numbers():
    before = torch.get_rng_state()
    model = network_without_weights(small())
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_without_weights_is_initialised_like_any_other():
    model = network_without_weights(small())
    model.to_empty(device="cpu")
    torch.manual_seed(3)
    model.init_weights()
    other = GPT2(small())
    torch.manual_seed(3)
    other.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_without_bias_no_layer_has_one():
    model = GPT2(small(bias=False))
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Linear | nn.LayerNorm))
    assert not [name for name, _ in model.named_parameters() if "bias" in name]


def test_embedding_is_the_output_weight():
    model = GPT2(small())
    x = torch.randn(2, 5, 48)
    with torch.no_grad():
        before = model.logits(x)
        model.wte.weight.mul_(2)
        assert torch.allclose(model.logits(x), 2 * before)


def test_no_position_sees_a_later_token():
    model = GPT2(small()).eval()
    tokens = torch.randint(61, (1, 20))
    changed = tokens.clone()
    changed[0, 12] = (changed[0, 12] + 1) % 61
    with torch.no_grad():
        difference = (model(tokens) - model(changed)).abs().amax(-1)[0]
    assert difference[:12].max() < 1e-6
    assert (difference[12:] > 1e-6).all()


@pytest.mark.slow
def test_a_single_batch_can_be_overfitted():
    model = GPT2(small(dropout=0.0))
    tokens = torch.randint(61, (4, 17))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        loss = model(tokens[:, :-1], tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_loss_of_the_network_is_the_cross_entropy_of_its_logits():
    model = GPT2(small())
    tokens, targets = torch.randint(61, (2, 9)), torch.randint(61, (2, 9))
    targets[0, 3:] = -1
    expected = nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=-1)
    assert model(tokens, targets).item() == pytest.approx(expected.item(), abs=1e-6)
    assert model(tokens, targets, reduction="none").shape == (2, 9)
    assert model(tokens, targets, reduction="sum").item() == pytest.approx(12 * expected.item(), abs=1e-4)


def test_dropout_acts_in_training_and_not_in_evaluation():
    model = GPT2(small(dropout=0.5))
    tokens = torch.randint(61, (2, 9))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))
    without = GPT2(small(dropout=0.0))
    without.load_state_dict(model.state_dict())
    assert torch.equal(model(tokens), without(tokens))


def test_dropout_is_on_embeddings_attention_and_both_residual_branches():
    block_dropouts = {"attn.resid_dropout", "mlp.dropout"}
    model = GPT2(small(dropout=0.3, n_layer=2))
    rates = {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
    assert rates == dict.fromkeys({"drop"} | {f"h.{i}.{name}" for i in range(2) for name in block_dropouts}, 0.3)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    tokens = torch.randint(61, (2, 9))
    assert not torch.equal(model(tokens), model(tokens)), "what is left is attention's own dropout"


@pytest.mark.parametrize(
    "changes", [{"vocab_size": None}, {"n_embd": 50}], ids=["no vocabulary", "width not divisible by heads"]
)
def test_a_shape_that_cannot_be_built_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        GPT2(small(**changes))


def test_text_longer_than_the_context_is_refused():
    model = GPT2(small())
    assert model(torch.zeros(1, 32, dtype=torch.long)).shape == (1, 32, 61)
    with pytest.raises(ValueError, match="33 tokens do not fit in a context of 32"):
        model(torch.zeros(1, 33, dtype=torch.long))


@pytest.mark.slow
def test_training_path_is_one_graph_for_the_compiler():
    model = GPT2(small(n_layer=1, dropout=0.1))
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph

    tokens = torch.randint(61, (2, 9))
    loss = torch.compile(model, backend=backend, fullgraph=True)(tokens, tokens)
    loss.backward()
    assert len(graphs) == 1
    assert model.wte.weight.grad.any()
