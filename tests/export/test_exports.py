"""Each export is read by programs that nobody here wrote, and what is not the model is refused and leaves nothing."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

from gpt2tui.__main__ import main
from gpt2tui.data import tokenizer_files
from gpt2tui.data.split_patterns import CODE_PATTERN
from gpt2tui.data.tokenizer_kinds import EOT_TEXT, BytePairTokenizer, ByteTokenizer, CharTokenizer
from gpt2tui.errors import CheckpointError, UsageError
from gpt2tui.export import gguf as gguf_export
from gpt2tui.export import huggingface, verification, weights
from gpt2tui.export.verification import GREEDY_TOKENS
from gpt2tui.export.writing import export
from gpt2tui.model.huggingface import to_published
from gpt2tui.preset.schema import SamplingTable
from tests.export.models import TOKENS, text_model, tokenizer

transformers = pytest.importorskip("transformers")

PROMPT = torch.arange(12) * 29 % TOKENS
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def logits(model):
    with torch.no_grad():
        return model.model(PROMPT[None])[0]


def swapped(text_tokenizer):
    """The same tokens, two of which have changed places."""
    ranks = dict(text_tokenizer.ranks)
    first, second = b"a", b"b"
    ranks[first], ranks[second] = ranks[second], ranks[first]
    return BytePairTokenizer("bpe", text_tokenizer.pattern, ranks, {EOT_TEXT: text_tokenizer.eot})


# ---- safetensors


@pytest.mark.parametrize("dtype", TYPES)
def test_safetensors_hold_the_weights_rounded_to_the_type(tmp_path, dtype):
    model = text_model()
    exported = export(model, "safetensors", tmp_path / "model.safetensors", dtype)
    read = load_file(tmp_path / "model.safetensors")
    for name, tensor in to_published(model.model.state_dict(), model.model.config).items():
        assert read[name].dtype == TYPES[dtype]
        assert torch.equal(read[name], tensor.to(TYPES[dtype]))
    (verified,) = exported.checked.verifications
    assert verified.difference <= verified.limit
    assert dtype != "fp32" or verified.equal_tokens == GREEDY_TOKENS
    content = (tmp_path / "model.safetensors").read_bytes()
    (file,) = exported.files
    assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def transposed(tensors, *names):
    return {name: tensor.T.contiguous() if name in names else tensor for name, tensor in tensors.items()}


def test_a_transposed_matrix_is_found_in_the_file(tmp_path, monkeypatch):
    save = weights.save_file
    name = "transformer.h.1.attn.c_proj.weight"
    monkeypatch.setattr(weights, "save_file", lambda tensors, *rest: save(transposed(tensors, name), *rest))
    with pytest.raises(CheckpointError, match=name):
        export(text_model(), "safetensors", tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "dtype"), [*(("model.safetensors", dtype) for dtype in TYPES), ("model", "fp32"), ("model", "bf16")]
)
@pytest.mark.parametrize("wrong", ["transposed", "permuted"])
def test_wrong_weights_of_a_barely_trained_model_are_found_in_its_small_logits(tmp_path, monkeypatch, to, dtype, wrong):
    export_format = "safetensors" if to.endswith("safetensors") else "huggingface"
    published = weights._published

    def changed(*arguments):
        tensors = published(*arguments)
        if wrong == "transposed":
            return transposed(tensors, "transformer.h.1.attn.c_proj.weight")
        rows = torch.arange(TOKENS + 1)
        rows[[97, 98]] = rows[[98, 97]]
        return tensors | {"transformer.wte.weight": tensors["transformer.wte.weight"][rows]}

    model = text_model(std=0.05)
    if to != "model":
        export(model, export_format, tmp_path / f"right-{to}", dtype)
    monkeypatch.setattr(weights, "_published", changed)
    with pytest.raises(CheckpointError, match="logits differ"):
        export(model, export_format, tmp_path / to, dtype)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith("right-")]


def test_weights_too_large_for_fp16_are_refused(tmp_path):
    model = text_model()
    with torch.no_grad():
        model.model.h[0].mlp.c_fc.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match="differ"):
        export(model, "safetensors", tmp_path / "model.safetensors", "fp16")
    assert list(tmp_path.iterdir()) == []
    export(model, "safetensors", tmp_path / "model.safetensors", "bf16")


def test_the_greedy_continuation_is_that_of_generate():
    model = text_model()
    reference = verification.Reference(model)
    assert len(reference.steps) == GREEDY_TOKENS
    for step in reference.steps:
        with torch.no_grad():
            assert model.model(step.window[None])[0, -1].argmax() == step.token


# ---- huggingface


@pytest.mark.parametrize(("bias", "padding"), [(True, 0), (False, 7)])
def test_transformers_loads_the_folder(tmp_path, bias, padding):
    model = text_model(bias=bias, padding=padding)
    exported = export(model, "huggingface", tmp_path / "model")
    assert [v.runtime.split()[0] for v in exported.checked.verifications] == ["gpt2tui", "transformers"]
    assert exported.checked.not_run_in == ()
    assert {v.equal_tokens for v in exported.checked.verifications} == {GREEDY_TOKENS}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(PROMPT[None]).logits[0], logits(model), rtol=0, atol=1e-5)
    assert theirs.generation_config.top_k == model.sampling.top_k
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")("the fox")["input_ids"]
    assert ids == model.tokenizer.encode("the fox")
    assert {file.name for file in exported.files} == {p.name for p in (tmp_path / "model").iterdir()}


@pytest.mark.parametrize("kind", [ByteTokenizer(), CharTokenizer("abc def\n"), tokenizer(CODE_PATTERN)])
def test_every_kind_of_tokenizer_is_read_back(tmp_path, kind):
    exported = export(text_model(kind), "huggingface", tmp_path / "model")
    assert len(exported.checked.verifications) == 2


def test_without_transformers_it_is_not_called_verified_there(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface.importlib.util, "find_spec", lambda name: None)
    checked = export(text_model(), "huggingface", tmp_path / "model").checked
    assert [v.runtime for v in checked.verifications] == ["gpt2tui"]
    assert checked.not_run_in == ("transformers",)


def test_a_permuted_vocabulary_is_found(tmp_path, monkeypatch):
    save = tokenizer_files.save
    monkeypatch.setattr(huggingface.tokenizer_files, "save", lambda kind, *rest: save(swapped(kind), *rest))
    with pytest.raises(CheckpointError, match="is not the model's: 4 tokens differ"):
        export(text_model(), "huggingface", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# ---- gguf


@pytest.fixture
def gguf():
    return pytest.importorskip("gguf")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("bias", "padding"), [(True, 0), (False, 7)])
def test_gguf_holds_everything_and_is_run(gguf, tmp_path, dtype, bias, padding):
    model = text_model(bias=bias, padding=padding)
    exported = export(model, "gguf", tmp_path / "model.gguf", dtype)
    assert exported.checked.not_run_in == ("llama.cpp",)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
    assert len(shapes) == 4 + 12 * 2  # two embeddings, the last norm, two blocks
    assert shapes["position_embd.weight"] == (16, fields["gpt2.context_length"]) == (16, 16)
    assert shapes["blk.1.ffn_up.weight"] == (16, 64)  # in llama.cpp's order the length of the input comes first
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert len(fields["tokenizer.ggml.tokens"]) == model.vocab_size
    assert len(fields["tokenizer.ggml.merges"]) == TOKENS - 256


def test_transformers_reads_the_gguf(gguf, tmp_path):
    model = text_model(context=24)
    export(model, "gguf", tmp_path / "model.gguf")
    # It reads the context as n_ctx and takes n_positions to be 1,024.
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", n_positions=24).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(PROMPT[None]).logits[0], logits(model), rtol=0, atol=1e-4)
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert tokens("it's the fox")["input_ids"] == model.tokenizer.encode("it's the fox")


@pytest.mark.parametrize("dtype", TYPES)
def test_llama_cpp_splits_a_text_alike_and_writes_the_same(gguf, tmp_path, dtype):
    reason = "cyllama is not installed, so no GGUF was opened in llama.cpp"
    llama = pytest.importorskip("cyllama.llama.llama_cpp", reason=reason, exc_type=ImportError)
    model, text = text_model(context=24), "the fox it's"
    export(model, "gguf", tmp_path / "model.gguf", dtype)
    theirs = llama.LlamaModel(str(tmp_path / "model.gguf"), llama.LlamaModelParams())
    tokens = list(theirs.get_vocab().tokenize(text, False, False))
    assert tokens == model.tokenizer.encode(text)
    settings = llama.LlamaContextParams()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = 24
    context = llama.LlamaContext(theirs, settings)
    sampler = llama.LlamaSampler(llama.LlamaSamplerChainParams())
    sampler.add_greedy()
    expected = [piece.token for piece in model.stream(tokens, SamplingTable(temperature=0.0, max_length=12))]
    written = []
    for _ in expected:
        context.kv_cache_clear()
        context.decode(llama.llama_batch_get_one([*tokens, *written]))
        written.append(sampler.sample(context, -1))
    assert written == [token for token in expected if token >= 0]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (ByteTokenizer(), "its tokenizer is byte"),
        (CharTokenizer("abc"), "its tokenizer is char"),
        (tokenizer(CODE_PATTERN), "splits text before merging in another way"),
    ],
)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(gguf, tmp_path, kind, reason):
    with pytest.raises(UsageError, match=reason):
        export(text_model(kind), "gguf", tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", TYPES)
def test_a_transposed_matrix_in_a_gguf_is_found(gguf, tmp_path, monkeypatch, dtype):
    arrays = gguf_export._arrays
    model = text_model(std=0.05)
    export(model, "gguf", tmp_path / "right.gguf", dtype)

    def wrong(model):
        return {name: a.T.copy() if name == "blk.0.attn_output.weight" else a for name, a in arrays(model).items()}

    monkeypatch.setattr(gguf_export, "_arrays", wrong)
    with pytest.raises(CheckpointError, match="in numpy its logits differ"):
        export(model, "gguf", tmp_path / "model.gguf", dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["right.gguf"]


def test_a_permuted_vocabulary_in_a_gguf_is_found(gguf, tmp_path, monkeypatch):
    vocabulary_of = gguf_export.vocabulary_of

    def wrong(definition):
        found = vocabulary_of(definition)
        return found | {"a": found["b"], "b": found["a"]}

    monkeypatch.setattr(gguf_export, "vocabulary_of", wrong)
    with pytest.raises(CheckpointError, match="tokenizer, read by tokenizers, is not the model's"):
        export(text_model(), "gguf", tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_of_another_program_with_gpt2s_split_is_exported(gguf, tmp_path):
    export(text_model(), "huggingface", tmp_path / "model")
    (tmp_path / "model" / tokenizer_files.OWN_FILE).unlink()
    assert main(["export", str(tmp_path / "model"), "--format", "gguf", "--to", str(tmp_path / "model.gguf")]) == 0
    definition = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    definition["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(definition))
    assert main(["export", str(tmp_path / "model"), "--format", "gguf", "--to", str(tmp_path / "x.gguf")]) == 2
