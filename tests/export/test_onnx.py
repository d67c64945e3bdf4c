"""The ONNX export in onnxruntime and onnxruntime-genai, and what is not the model is refused and leaves nothing."""

import json
import stat
from collections import Counter

import numpy as np
import pytest
import torch

from gpt2tui.__main__ import main
from gpt2tui.data import tokenizer_files
from gpt2tui.data.tokenizer_kinds import ByteTokenizer, CharTokenizer
from gpt2tui.errors import CheckpointError, UsageError
from gpt2tui.export import onnx as onnx_export
from gpt2tui.export import onnx_graph, onnx_quantization, onnx_runtime, tensorrt
from gpt2tui.export.onnx_runtime import OnnxNetwork
from gpt2tui.export.verification import GREEDY_TOKENS, QuantizationLoss
from gpt2tui.export.writing import export
from gpt2tui.model.huggingface import PREFIX, to_published
from gpt2tui.model.published_config import published_config
from gpt2tui.preset.schema import SamplingTable
from tests.export.models import TOKENS, text_model
from tests.export.test_exports import swapped, transposed

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

PROMPT = torch.arange(12) * 29 % TOKENS


def theirs(model):
    """The same model as transformers runs it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(**published_config(model.model.config, model.tokenizer.eot))
    network = transformers.GPT2LMHeadModel(config).eval()
    network.load_state_dict(to_published(model.model.state_dict(), model.model.config), strict=False)
    return network


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = text_model()
    return model, export(model, "onnx", tmp_path_factory.mktemp("onnx") / "model")


@pytest.fixture
def network(exported):
    return OnnxNetwork(exported[1].path / onnx_runtime.FILE)


@pytest.mark.parametrize(("bias", "padding", "context"), [(True, 0, 16), (False, 7, 16), (True, 0, 1), (True, 0, 2)])
def test_it_is_verified_with_a_past_and_with_padding(tmp_path, bias, padding, context):
    done = export(text_model(bias=bias, padding=padding, context=context), "onnx", tmp_path / "model")
    verified = done.checked.verifications[0]
    assert verified.runtime.startswith("onnxruntime ")
    assert verified.padded_batches
    assert verified.difference <= verified.limit == pytest.approx(1e-4, rel=1)
    assert verified.equal_tokens == GREEDY_TOKENS
    assert {file.name for file in done.files} == {path.name for path in (tmp_path / "model").iterdir()}


def test_the_graph_has_the_names_and_lengths_that_other_programs_expect(exported):
    graph = onnx.load(exported[1].path / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    (opset,) = graph.opset_import
    assert (opset.domain, opset.version >= 18) == ("", True)

    def shapes(values):
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    layers, kinds = range(2), ("key", "value")
    assert shapes(graph.graph.input) == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "past_and_sequence"],
        "position_ids": ["batch", "sequence"],
        **{f"past_key_values.{n}.{kind}": ["batch", 2, "past", 8] for n in layers for kind in kinds},
    }
    assert shapes(graph.graph.output) == {
        "logits": ["batch", "sequence", TOKENS + 1],
        **{f"present.{n}.{kind}": ["batch", 2, "past_and_sequence", 8] for n in layers for kind in kinds},
    }


@torch.no_grad()
def test_padded_batches_equal_transformers(exported, network):
    tokens = torch.stack((PROMPT, PROMPT.flip(0)))
    mask = torch.ones_like(tokens)
    mask[1, :5] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    expected = theirs(exported[0])(tokens, attention_mask=mask, position_ids=positions).logits
    logits, _ = network.run(tokens, network.no_past(2), mask)
    torch.testing.assert_close(logits[mask > 0], expected[mask > 0], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("parts", [(12,), (11, 1), (1, 11), (4, 4, 4), (1,) * 12])
def test_a_text_in_parts_equals_transformers(exported, network, parts):
    expected = theirs(exported[0])(PROMPT[None]).logits
    past, found = network.no_past(1), []
    for part in PROMPT.split(parts):
        logits, past = network.run(part[None], past)
        found.append(logits)
    torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=0, atol=1e-5)


# ---- negative controls


@pytest.mark.parametrize(("export_format", "dtype"), [("onnx", "fp32"), ("onnx", "int8"), ("tensorrt", "fp32")])
def test_a_transposed_matrix_is_found(tmp_path, monkeypatch, export_format, dtype):
    views, name = onnx_graph.published_views, f"{PREFIX}h.1.attn.c_proj.weight"
    monkeypatch.setattr(onnx_graph, "published_views", lambda *arguments: transposed(views(*arguments), name))
    with pytest.raises(CheckpointError, match=r"in onnxruntime .* its logits differ"):
        export(text_model(), export_format, tmp_path / "model", dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("export_format", "dtype"), [("onnx", "fp32"), ("onnx", "int8"), ("tensorrt", "fp32")])
def test_a_permuted_vocabulary_is_found(tmp_path, monkeypatch, export_format, dtype):
    save = tokenizer_files.save
    monkeypatch.setattr(onnx_export.tokenizer_files, "save", lambda kind, *rest: save(swapped(kind), *rest))
    with pytest.raises(CheckpointError, match="is not the model's: 4 tokens differ"):
        export(text_model(), export_format, tmp_path / "model", dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("seen", ["causal", "causal"]),  # padding is seen
        ("rows", ["zero", "new", "one"]),  # a token after a past sees the beginning of it alone
        ("wpe", [f"{PREFIX}wpe.weight", "input_ids"]),
    ],
)
def test_a_wrong_operator_is_found(tmp_path, monkeypatch, node, inputs):
    add = onnx_graph._Graph.add

    def wrong(self, operator, name, *rest, **options):
        return add(self, operator, name, *(inputs if name == node else rest), **options)

    monkeypatch.setattr(onnx_graph._Graph, "add", wrong)
    with pytest.raises(CheckpointError, match=r"logits differ|cannot run"):
        export(text_model(), "onnx", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# ---- large files and int8


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_large_weights_are_in_a_file_beside_the_graph(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(onnx_export, "EMBEDDED_BYTES", 0)
    done = export(text_model(), "onnx", tmp_path / "model", dtype)
    names = {file.name for file in done.files}
    assert {"model.onnx", "model.onnx.data"} < names
    assert not any("unquantized" in name for name in names)
    graph = onnx.load(tmp_path / "model" / "model.onnx", load_external_data=False)
    places = {e.value for t in graph.graph.initializer for e in t.external_data if e.key == "location"}
    assert places == {"model.onnx.data"}
    (tmp_path / "model").rename(tmp_path / "moved")
    network = OnnxNetwork(tmp_path / "moved" / "model.onnx")
    assert network.run(PROMPT[None], network.no_past(1))[0].shape == (1, 12, TOKENS + 1)


def test_int8_has_its_loss_measured(tmp_path):
    done = export(text_model(), "onnx", tmp_path / "model", "int8")
    types = Counter(
        t.data_type for t in onnx.load(tmp_path / "model" / "model.onnx").graph.initializer if len(t.dims) > 1
    )
    assert types[onnx.TensorProto.INT8] > 0
    assert types[onnx.TensorProto.FLOAT] == 0
    loss = done.checked.quantization
    assert (loss.text, loss.tokens) == ("text that the model generated", onnx_quantization.GENERATED_TOKENS)
    assert loss.perplexity < loss.quantized_perplexity * 1.01
    assert done.as_dict()["quantization"]["perplexity"] == loss.perplexity


def test_the_loss_is_that_of_the_text(exported, network):
    """On a text, the perplexity that transformers gives for each window."""
    model, tokens = exported[0], torch.cat((PROMPT, PROMPT.flip(0), PROMPT))
    nats = 0.0
    for begin in range(0, len(tokens) - 1, model.context_length):
        window = tokens[begin : begin + model.context_length + 1]
        with torch.no_grad():
            logits = theirs(model)(window[None, :-1]).logits[0]
        nats += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
    found = onnx_quantization._perplexity(onnx_export.logits_of(network), tokens, model.context_length)
    assert found == pytest.approx(np.exp(nats / (len(tokens) - 1)), rel=1e-4)


def test_int8_that_costs_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_quantization, "LARGEST_LOSS", 0.5)
    with pytest.raises(CheckpointError, match="the quantised model has a perplexity of"):
        export(text_model(), "onnx", tmp_path / "model", "int8")
    assert list(tmp_path.iterdir()) == []


def test_how_a_loss_is_printed():
    text = str(QuantizationLoss("the validation text", 4096, 20.0, 20.5))
    assert text == "perplexity per token 20.5, unquantised 20 (+2.50%), on 4,096 tokens of the validation text"


@pytest.mark.parametrize(("export_format", "dtype"), [("onnx", "fp16"), ("tensorrt", "int8"), ("safetensors", "int8")])
def test_types_that_a_format_has_not_are_refused(tmp_path, export_format, dtype):
    with pytest.raises(UsageError, match=f"--format {export_format} has no --dtype {dtype}"):
        export(text_model(), export_format, tmp_path / "m.safetensors", dtype)


def test_without_the_packages_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_runtime.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="gpt2tui\\[onnx\\]"):
        export(text_model(), "onnx", tmp_path / "model")


# ---- onnxruntime-genai


@pytest.fixture
def genai():
    return pytest.importorskip(
        "onnxruntime_genai", reason="onnxruntime-genai, which opens the folder, is not installed"
    )


def test_genai_opens_the_folder_and_generates_the_same(genai, exported):
    model, done = exported
    assert done.checked.verifications[1].runtime.startswith("onnxruntime-genai ")
    assert done.checked.notes == done.checked.not_run_in == ()
    opened = genai.Model(str(done.path))
    tokens = [int(token) for token in genai.Tokenizer(opened).encode("the fox")]
    assert tokens == model.tokenizer.encode("the fox")
    settings = genai.GeneratorParams(opened)
    settings.set_search_options(do_sample=False)
    generator = genai.Generator(opened, settings)
    generator.append_tokens(tokens)
    found = []
    while not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    expected = [t.token for t in model.stream(tokens, SamplingTable(temperature=0, max_length=len(found)))]
    assert len(found) == model.context_length - len(tokens) or found[-1] == model.tokenizer.eot
    assert found == expected


@pytest.mark.parametrize(("kind", "noted"), [(ByteTokenizer(), False), (CharTokenizer("abc def\n"), True)])
def test_a_tokenizer_that_genai_has_not_is_noted(genai, tmp_path, kind, noted):
    done = export(text_model(kind), "onnx", tmp_path / "model")
    assert len(done.checked.verifications) == 2
    assert any("give it tokens, not text" in note for note in done.checked.notes) == noted


def test_without_genai_it_is_not_called_verified_there(tmp_path, monkeypatch):
    find = onnx_export.importlib.util.find_spec
    monkeypatch.setattr(
        onnx_export.importlib.util, "find_spec", lambda name: None if name == "onnxruntime_genai" else find(name)
    )
    checked = export(text_model(), "onnx", tmp_path / "model").checked
    assert len(checked.verifications) == 1
    assert checked.not_run_in == ("onnxruntime-genai",)


# ---- sampling from a file


@pytest.mark.parametrize("name", ["", "model.onnx"])
def test_sample_gives_the_text_of_the_model(exported, capsys, name):
    model, done = exported
    words = ["--prompt", "the fox", "--max-length", "40", "--temperature", "0.9", "--seed", "3", "--json"]
    assert main(["sample", str(done.path / name), *words]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    settings = SamplingTable(temperature=0.9, seed=3, max_length=40)
    assert found["text"] == model.continuation("the fox", settings).text
    assert found["tokens"] > 16  # the window has moved


def test_several_texts_are_those_of_their_seeds(exported, capsys):
    """One at a time: a graph returns the logits of all tokens of a prompt."""
    model, done = exported
    words = ["--prompt", "the fox", "--max-length", "20", "--seed", "3", "--num-samples", "3", "--json"]
    assert main(["sample", str(done.path), *words]) == 0
    texts = [found["text"] for found in json.loads(capsys.readouterr().out)]
    settings = [SamplingTable(seed=seed, max_length=20) for seed in (3, 4, 5)]
    assert texts == [model.continuation("the fox", each).text for each in settings]


def test_sample_prints_a_text_with_the_models_own_settings(tmp_path, capsys):
    model = text_model()
    model = type(model)(**{**vars(model), "sampling": SamplingTable(prompt="ab", max_length=5, temperature=0)})
    done = export(model, "onnx", tmp_path / "model")
    assert main(["sample", str(done.path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("ab")
    assert ", in onnxruntime" in captured.err


def foreign(path):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "other",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
    )
    opset = onnx.helper.make_opsetid("", 20)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


def described_wrongly(path, key, value):
    graph = onnx_graph.build(text_model().model, onnx_runtime.metadata_of(text_model()) | {key: value})
    onnx.save(graph, path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (foreign, "was not made by gpt2tui export --format onnx"),
        (lambda path: path.write_bytes(b"no graph"), "onnxruntime cannot open"),
        (lambda path: None, "there is no file"),
        (lambda path: described_wrongly(path, onnx_runtime.CONFIG, "{"), "metadata is not readable"),
        (lambda path: described_wrongly(path, onnx_runtime.CONTEXT, "99"), "describes no model"),
        (
            lambda path: described_wrongly(
                path, onnx_runtime.CONFIG, text_model().model.config.model_copy(update={"n_head": 4}).model_dump_json()
            ),
            "not those that it describes",
        ),
        (lambda path: described_wrongly(path, "key", "value"), "holds no tokenizer"),
    ],
)
def test_what_is_no_export_of_ours_is_exit_4(tmp_path, capsys, make, reason):
    make(tmp_path / "model.onnx")
    assert main(["sample", str(tmp_path / "model.onnx"), "--prompt", "a"]) == 4
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--precision", "fp16"], ["--device", "mps"]])
def test_options_that_a_file_has_not_are_exit_2(exported, words):
    assert main(["sample", str(exported[1].path), "--prompt", "a", *words]) == 2


# ---- tensorrt


@pytest.fixture
def no_trtexec(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin" / "trtexec"


def options_of(script):
    """The options in a script of trtexec, by name."""
    lines = script.read_text().replace(" \\\n", " ").splitlines()
    words = lines[-1].split()
    assert words[0] == "trtexec"
    return dict(word.removeprefix("--").partition("=")[::2] for word in words[1:])


def test_the_command_for_trtexec_fits_the_graph(no_trtexec, tmp_path):
    model = text_model()
    done = export(model, "tensorrt", tmp_path / "model")
    assert "TensorRT" in done.checked.not_run_in
    options = options_of(tmp_path / "model" / tensorrt.SCRIPT)
    graph = onnx.load(tmp_path / "model" / options["onnx"]).graph
    norms = {node.name for node in graph.node if node.op_type == "LayerNormalization"}
    assert len(norms) == 5
    for key in ("layerPrecisions", "layerOutputTypes"):
        assert set(options[key].split(",")) == {f"{name}:fp32" for name in norms}
    assert options["precisionConstraints"] == "obey"
    lengths = {}
    for point in ("min", "opt", "max"):
        shapes = dict(part.split(":") for part in options[f"{point}Shapes"].split(","))
        inputs = {}
        for value in graph.input:
            shape = [int(length) for length in shapes.pop(value.name).split("x")]
            kind = np.float32 if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT else np.int64
            inputs[value.name] = np.zeros(shape, kind)
        assert not shapes
        session = OnnxNetwork(tmp_path / "model" / "model.onnx")._session
        session.run(None, inputs)  # raises where the shapes do not fit together
        lengths[point] = inputs["input_ids"].shape[1], inputs["past_key_values.0.key"].shape[2]
    assert lengths == {"min": (1, 0), "opt": (1, 8), "max": (16, 15)}


def install(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_trtexec_is_run_where_it_is_installed(no_trtexec, tmp_path):
    install(no_trtexec, 'for word in "$@"; do echo "$word"; done > words\n: > model.plan')
    done = export(text_model(), "tensorrt", tmp_path / "model")
    assert "TensorRT" not in done.checked.not_run_in
    assert any("its logits were not compared" in note for note in done.checked.notes)
    assert not any("TensorRT" in verified.runtime for verified in done.checked.verifications)
    written = dict(
        word.removeprefix("--").partition("=")[::2] for word in (tmp_path / "model" / "words").read_text().splitlines()
    )
    assert written == options_of(tmp_path / "model" / tensorrt.SCRIPT)


@pytest.mark.parametrize("text", ["echo no GPU >&2; exit 1", "echo no GPU"])
def test_a_trtexec_that_fails_leaves_nothing(no_trtexec, tmp_path, text):
    install(no_trtexec, text)
    with pytest.raises(CheckpointError, match="no GPU"):
        export(text_model(), "tensorrt", tmp_path / "model")
    assert not (tmp_path / "model").exists()
