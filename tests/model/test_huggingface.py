"""Conversion in both directions, with transformers as the judge."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.huggingface import from_published, to_published
from gpt2tui.model.published_config import config_from_published, published_config

SHAPES = [
    {"vocab_size": 61, "n_positions": 32, "n_embd": 48, "n_layer": 3, "n_head": 4},
    {"vocab_size": 257, "n_positions": 17, "n_embd": 64, "n_layer": 1, "n_head": 1},
    {"vocab_size": 100, "n_positions": 64, "n_embd": 30, "n_layer": 11, "n_head": 5},
]


def randomised(model):
    """Every parameter random, biases and layer norms too, so that none can be dropped or mixed up unseen."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def theirs_from(folder):
    model, info = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def write(folder, model, tensors=None):
    config = published_config(model.config, eos_token_id=0)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        to_published(model.state_dict(), model.config) if tensors is None else tensors,
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s['n_layer']}x{s['n_embd']}")
def test_transformers_computes_our_logits_from_our_folder(tmp_path, shape, bias):
    ours = randomised(GPT2(GPT2Config(**shape, bias=bias)))
    write(tmp_path, ours)
    theirs = theirs_from(tmp_path)
    for B, T in ((1, 1), (2, 9), (3, shape["n_positions"])):
        tokens = torch.randint(shape["vocab_size"], (B, T))
        with torch.no_grad():
            torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s['n_layer']}x{s['n_embd']}")
def test_we_compute_the_logits_of_transformers_from_its_folder(tmp_path, shape):
    theirs = randomised(transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0)))
    theirs.save_pretrained(tmp_path)
    config, state_dict = from_published(
        load_file(tmp_path / "model.safetensors"), json.loads((tmp_path / "config.json").read_text())
    )
    ours = GPT2(config).eval()
    ours.load_state_dict(state_dict)
    tokens = torch.randint(shape["vocab_size"], (2, shape["n_positions"]))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=0, atol=1e-4)


def test_a_wrong_layout_would_be_noticed(tmp_path):
    # The control of the two tests above: a square matrix that is not transposed fits, and gives other logits.
    ours = randomised(GPT2(GPT2Config(**SHAPES[0])))
    tensors = to_published(ours.state_dict(), ours.config)
    key = "transformer.h.1.attn.c_proj.weight"
    write(tmp_path, ours, tensors | {key: tensors[key].T.contiguous()})
    tokens = torch.arange(32)[None]
    with torch.no_grad():
        assert (ours(tokens) - theirs_from(tmp_path)(tokens).logits).abs().max() > 1e-3


@pytest.mark.parametrize("bias", [True, False])
def test_round_trip_is_exact(bias):
    config = GPT2Config(**SHAPES[0], dropout=0.25, bias=bias)
    state_dict = GPT2(config).state_dict()
    published = to_published(state_dict, config)
    assert "lm_head.weight" not in published
    assert all(tensor.is_contiguous() for tensor in published.values())
    config_json = json.loads(json.dumps(published_config(config, eos_token_id=None)))
    back_config, back = from_published(published, config_json)
    assert back_config == config
    assert back.keys() == state_dict.keys()
    assert all(torch.equal(back[name], tensor) and back[name].is_contiguous() for name, tensor in state_dict.items())


def test_published_names_are_those_of_transformers():
    config = GPT2Config(**SHAPES[0], bias=False)
    published = to_published(GPT2(config).state_dict(), config)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**SHAPES[0])).state_dict()
    del theirs["lm_head.weight"]
    assert {k: v.shape for k, v in published.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_are_read_as_fp32(dtype):
    config = GPT2Config(**SHAPES[0], bias=False)
    published = to_published(GPT2(config).to(dtype).state_dict(), config)
    assert {tensor.dtype for tensor in published.values()} == {dtype}
    _, back = from_published(published, published_config(config, None))
    assert {tensor.dtype for tensor in back.values()} == {torch.float32}
    assert torch.equal(back["wte.weight"], published["transformer.wte.weight"].float())


def published():
    config = GPT2Config(**SHAPES[0])
    return to_published(GPT2(config).state_dict(), config), published_config(config, eos_token_id=0)


def test_names_without_prefix_and_stored_masks_and_a_tied_output_weight_are_read():
    # as openai-community/gpt2 has them
    tensors, config_json = published()
    bare = {key.removeprefix("transformer."): tensor for key, tensor in tensors.items()}
    for layer in range(3):
        bare[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32).tril()
        bare[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    bare["lm_head.weight"] = bare["wte.weight"].clone()
    expected = from_published(tensors, config_json)[1]
    found = from_published(bare, config_json)[1]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_output_weight_of_its_own_is_refused():
    tensors, config_json = published()
    with pytest.raises(ValueError, match="lm_head"):
        from_published(tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1}, config_json)


def test_embeddings_that_are_not_tied_but_equal_are_one():
    tensors, config_json = published()
    config_json["tie_word_embeddings"] = False
    output = {"lm_head.weight": tensors["transformer.wte.weight"].clone()}
    assert "lm_head.weight" not in from_published(tensors | output, config_json)[1]
    with pytest.raises(ValueError, match="tie_word_embeddings = false"):
        from_published(tensors, config_json)


def test_every_key_that_does_not_fit_is_named():
    tensors, config_json = published()
    del tensors["transformer.h.2.ln_1.bias"], tensors["transformer.wpe.weight"]
    tensors["transformer.h.3.ln_1.bias"] = tensors["extra"] = torch.zeros(48)
    tensors["transformer.h.0.mlp.c_fc.weight"] = tensors["transformer.h.0.mlp.c_fc.weight"].T
    with pytest.raises(ValueError, match="missing") as error:
        from_published(tensors, config_json)
    message = str(error.value)
    assert "missing: h.2.ln_1.bias, wpe.weight" in message
    assert "unexpected: extra, h.3.ln_1.bias" in message
    assert "h.0.mlp.c_fc.weight is (192, 48), not (48, 192)" in message

    state_dict = GPT2(GPT2Config(**SHAPES[0])).state_dict()
    del state_dict["ln_f.weight"]
    with pytest.raises(ValueError, match=r"missing: ln_f\.weight"):
        to_published(state_dict, GPT2Config(**SHAPES[0]))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn, torch.complex64], ids=str)
@pytest.mark.parametrize("key", ["transformer.wte.weight", "lm_head.weight"])
def test_weights_of_another_type_are_refused_by_name(key, dtype):
    tensors, config_json = published()
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    tensors[key] = tensors[key].to(dtype)
    with pytest.raises(ValueError, match=f"{key.removeprefix('transformer.')} is {str(dtype).removeprefix('torch.')}"):
        from_published(tensors, config_json)


@pytest.mark.parametrize("n_layer", [4, 1000, 10**9])
def test_a_config_with_more_layers_than_there_are_is_one_short_sentence(n_layer, monkeypatch):
    tensors, config_json = published()

    def no_model(config):
        raise AssertionError("a model of that size is not to be laid out")

    monkeypatch.setattr("gpt2tui.model.huggingface._shapes", no_model)
    with pytest.raises(ValueError, match=f"n_layer.*{n_layer}") as error:
        from_published(tensors, config_json | {"n_layer": n_layer})
    assert len(str(error.value)) < 200


def test_of_many_keys_that_do_not_fit_a_few_are_named_and_the_rest_counted():
    tensors, config_json = published()
    tensors = {key: tensor[None] for key, tensor in tensors.items()} | {f"{i:03}": torch.ones(1) for i in range(999)}
    with pytest.raises(ValueError, match=r"unexpected: 000, 001, 002, 003, 004 and 1,\d+ more; ") as error:
        from_published(tensors | {"x" * 10**6: torch.ones(1)}, config_json | {"n_layer": 1})
    assert "of the wrong shape: h.0.attn" in str(error.value)
    assert len(str(error.value)) < 2000


def test_the_same_tensor_twice_is_refused():
    tensors, config_json = published()
    with pytest.raises(ValueError, match=r"wpe\.weight twice"):
        from_published(tensors | {"wpe.weight": tensors["transformer.wpe.weight"]}, config_json)


def test_biases_in_a_model_that_says_it_has_none_are_refused():
    tensors, config_json = published()
    tensors["transformer.h.1.ln_2.bias"] = torch.ones(48)
    with pytest.raises(ValueError, match=r"not zero: h\.1\.ln_2\.bias$"):
        from_published(tensors, config_json | {"bias": False})


@pytest.mark.parametrize(
    "change",
    [
        {"activation_function": "relu"},
        {"activation_function": "gelu"},
        {"layer_norm_epsilon": 1e-6},
        {"layer_norm_epsilon": None},
        {"n_inner": 100},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        {"add_cross_attention": True},
        {"model_type": "gpt_neo"},
        {"n_embd": "48"},
        {"n_embd": None},
        {"n_head": 5},
        {"n_layer": 0},
        {"resid_pdrop": None},
        {"bias": "no"},
    ],
    ids=str,
)
def test_what_is_not_gpt2_is_refused_by_name(change):
    _, config_json = published()
    with pytest.raises(ValueError, match=next(iter(change))):
        config_from_published(config_json | change)


def test_what_config_json_leaves_out_means_what_it_means_in_transformers():
    defaults = transformers.GPT2Config()
    config = config_from_published({})
    ours = (
        config.vocab_size,
        config.n_positions,
        config.n_embd,
        config.n_layer,
        config.n_head,
        config.dropout,
    )
    theirs = [
        getattr(defaults, key) for key in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "resid_pdrop")
    ]
    assert list(ours) == theirs
    assert config_from_published(defaults.to_dict()) == config
    assert config_from_published({"n_inner": 3072, "activation_function": "gelu_pytorch_tanh"}) == config
