"""Loading models, the alternatives and probabilities of generated tokens, and the scores of given texts."""

import dataclasses
import json
import os
import shutil
import socket
import sys

import pytest
import torch
from safetensors.torch import save_file

from gpt2tui import generation
from gpt2tui.data import hub, tokenizers
from gpt2tui.data.tokenizer_kinds import ByteTokenizer
from gpt2tui.errors import CheckpointError, ResourceError
from gpt2tui.generation import TextModel
from gpt2tui.model import decoding
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.preset.schema import SamplingTable
from gpt2tui.run import checkpoint
from tests import tiny_runs


def text_model(n_positions=16, context_length=None):
    torch.manual_seed(3)
    model = GPT2(GPT2Config(vocab_size=257, n_positions=n_positions, n_embd=16, n_layer=2, n_head=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that a wrong context changes the numbers
    return TextModel(model, ByteTokenizer(), "test", context_length or n_positions)


SAMPLING = SamplingTable(max_length=40, temperature=1.0, top_k=0)


def test_text_and_probabilities_are_the_same_with_and_without_alternatives():
    model = text_model()
    plain = [(p.token, p.text, p.probability) for p in model.stream("ab", SAMPLING)]
    assert plain == [(p.token, p.text, p.probability) for p in model.stream("ab", SAMPLING, alternatives=5)]


def test_there_are_no_alternatives_unless_asked_for():
    assert all(p.alternatives == () for p in text_model().stream("ab", SAMPLING))


def test_alternatives_are_the_likeliest_tokens_in_that_place_likeliest_first():
    model = text_model()
    (piece,) = model.stream("ab", SAMPLING.model_copy(update={"max_length": 1, "temperature": 0.0}), alternatives=5)
    with torch.no_grad():
        odds = model.model(torch.tensor([list(b"ab")]))[0, -1].softmax(-1)
    expected, tokens = odds.topk(5)
    assert [r.token for r in piece.alternatives] == tokens.tolist()
    assert [r.probability for r in piece.alternatives] == pytest.approx(expected.tolist(), rel=1e-5)
    assert piece.alternatives[0].token == piece.token  # temperature 0 takes the likeliest
    assert piece.alternatives[0].probability == pytest.approx(piece.probability)


def alone(model, prompt, count, sampling=SAMPLING):
    return [model.continuation(prompt, sampling.model_copy(update={"seed": sampling.seed + n})) for n in range(count)]


def test_several_texts_are_those_of_their_seeds_alone_also_beyond_the_context():
    model = text_model()
    texts = model.continuations("ab", SAMPLING, 8)
    assert [(c.text, c.tokens) for c in texts] == [(c.text, c.tokens) for c in alone(model, "ab", 8)]
    assert len({c.text for c in texts}) > 1


@pytest.mark.parametrize("packed", [True, False])
def test_several_texts_are_those_of_their_seeds_with_rounded_weights_too(monkeypatch, packed):
    if packed and not decoding.has_packed_products():
        pytest.skip("this torch has no FBGEMM")
    monkeypatch.setattr(decoding, "has_packed_products", lambda: packed)
    model = text_model()
    model = dataclasses.replace(model, decoder=generation.decoder_of(model.model, "fp16"))
    assert len(list(model.seeds_together("ab", SAMPLING, 8))) == (1 if packed else 8)
    assert [c.text for c in model.continuations("ab", SAMPLING, 8)] == [c.text for c in alone(model, "ab", 8)]


def test_a_text_that_ends_ends_alone():
    model = text_model(64)
    with torch.no_grad():
        model.model.wte.weight[256] *= 3  # the end of text is drawn sooner or later
    texts = model.continuations("ab", SAMPLING, 8)
    lengths = [c.tokens for c in texts]
    assert lengths == [c.tokens for c in alone(model, "ab", 8)]
    assert len(set(lengths)) > 2
    assert min(lengths) < 40
    times = [c.seconds for c in sorted(texts, key=lambda c: c.tokens)]
    assert times == sorted(times)  # also where a text ends within a character


def test_the_prompt_of_several_texts_is_read_once(monkeypatch):
    model, shapes = text_model(), []
    hidden = model.model.hidden
    monkeypatch.setattr(
        model.model, "hidden", lambda tokens, *rest: shapes.append((*tokens.shape,)) or hidden(tokens, *rest)
    )
    sampling = SAMPLING.model_copy(update={"max_length": 3})
    assert [c.tokens for c in model.continuations("abcde", sampling, 8)] == [3] * 8
    assert shapes == [(1, 5), (8, 1), (8, 1)]


@pytest.mark.parametrize("limit", ["KEPT_BYTES", "free_bytes"])
def test_as_many_texts_are_written_together_as_their_keys_have_room(monkeypatch, limit):
    model = text_model()
    of_one = 2 * 4 * 2 * 16 * 16  # keys and values, fp32, layers, width, the context
    monkeypatch.setattr(generation, limit, 3 * of_one if limit == "KEPT_BYTES" else lambda: 6 * of_one)
    first = SAMPLING.seed
    groups = list(model.seeds_together("ab", SAMPLING, 8))
    assert groups == [range(first, first + 3), range(first + 3, first + 6), range(first + 6, first + 8)]
    assert [c.text for c in model.continuations("ab", SAMPLING, 8)] == [c.text for c in alone(model, "ab", 8)]


def test_a_text_is_read_with_the_probabilities_of_its_tokens_after_the_start_of_a_document():
    model = text_model()
    pieces = list(model.score("hello", alternatives=2))
    ids = torch.tensor([[256, *b"hello"]])
    with torch.no_grad():
        own = model.model(ids[:, :-1]).softmax(-1)[0].gather(-1, ids[0, 1:, None]).squeeze(-1)
    assert "".join(p.text for p in pieces) == "hello"
    assert [p.probability for p in pieces] == pytest.approx(own.tolist(), rel=1e-5)
    assert all(len(p.alternatives) == 2 for p in pieces)


def uncached_probabilities(model, ids):
    """By the definition of the window in writing: beyond the context its older half is forgotten."""
    window, probabilities = [256], []
    n = model.context_length
    for token in ids:
        with torch.no_grad():
            probabilities.append(float(model.model(torch.tensor([window]))[0, -1].softmax(-1)[token]))
        window.append(token)
        if len(window) > n:
            window = window[-max(1, n // 2) :]
    return probabilities


@pytest.mark.parametrize("n_positions", [1, 2, 7, 16])
def test_a_text_longer_than_the_context_is_read_whole_with_the_window_of_writing(n_positions):
    model = text_model(n_positions)
    text = "the quick brown fox jumps over the lazy dog "
    pieces = list(model.score(text))
    assert [p.token for p in pieces] == list(text.encode())
    assert [p.probability for p in pieces] == pytest.approx(uncached_probabilities(model, text.encode()), rel=1e-4)


def test_positions_beyond_the_trained_length_are_never_used():
    model, short = text_model(16, context_length=7), text_model(7)
    with torch.no_grad():
        model.model.wpe.weight[:7], model.model.wpe.weight[7:] = short.model.wpe.weight, torch.nan
        for name, parameter in short.model.named_parameters():
            if not name.startswith("wpe"):
                parameter.copy_(model.model.get_parameter(name))
    for prompt in ("ab", "a prompt longer than that"):
        written = [(p.token, p.probability) for p in model.stream(prompt, SAMPLING)]
        assert written == [(p.token, p.probability) for p in short.stream(prompt, SAMPLING)]
    text = "the quick brown fox jumps over the lazy dog "
    assert [p.probability for p in model.score(text)] == [p.probability for p in short.score(text)]
    assert any(p.probability != p.probability for p in dataclasses.replace(model, context_length=8).score(text))


def test_a_checkpoint_and_its_export_say_how_long_the_training_sequences_were(tmp_path):
    trainer = tiny_runs.trainer(tmp_path, "training.sequence_length=8", "sampling.max_length=30")
    list(trainer.train())
    model = generation.load(str(trainer.run.folder), "cpu")
    assert (model.context_length, model.model.config.n_positions) == (8, 16)
    foreign = tmp_path / "exported"
    foreign.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "gpt2tui_tokenizer.json"):
        shutil.copy(model.saved.folder / name, foreign)
    assert generation.load(str(foreign), "cpu").context_length == 8
    config = json.loads((foreign / "config.json").read_text())
    for length, expected in ((None, 16), (16, 16)):
        (foreign / "config.json").write_text(json.dumps(config | {"trained_sequence_length": length}))
        assert generation.load(str(foreign), "cpu").context_length == expected
    # A checkpoint from before config.json said it has it in its preset.
    assert generation._context_length(foreign, model.model, trainer.preset) == 16
    (foreign / "config.json").write_text(json.dumps(config | {"trained_sequence_length": None}))
    assert generation._context_length(foreign, model.model, trainer.preset) == 8


@pytest.mark.parametrize("length", [0, 17, "8", True, 8.0])
def test_a_trained_length_that_is_none_of_the_positions_is_refused(tmp_path, length):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    folder = tmp_path / "exported"
    folder.mkdir()
    saved = checkpoint.newest(trainer.run.checkpoints).folder
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(saved / name, folder)
    config = json.loads((saved / "config.json").read_text()) | {"trained_sequence_length": length}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="trained_sequence_length is"):
        generation.load(str(folder), "cpu")


def test_characters_of_several_tokens_are_read_as_whole_characters():
    pieces = list(text_model().score("né…"))
    assert [p.text for p in pieces] == ["n", "", "é", "", "", "…"]


def test_an_empty_text_has_nothing_to_read():
    assert list(text_model().score("")) == []


def test_large_models_on_a_cpu_generate_from_fp16_unless_asked_otherwise(monkeypatch):
    model = text_model().model
    assert generation.decoder_of(model, "auto") is None
    assert generation.decoder_of(model, "fp16").dtype == torch.float16
    monkeypatch.setattr(generation, "LARGE_PARAMETERS", 1)
    assert generation.decoder_of(model, "auto").dtype == torch.float16
    assert generation.decoder_of(model, "fp32") is None


def test_weights_beyond_fp16_stay_as_they_are():
    model = text_model().model
    with torch.no_grad():
        model.wte.weight[0, 0] = 1e6
    assert generation.decoder_of(model, "fp16") is None


def test_alternatives_and_probabilities_come_from_what_writes():
    model = text_model()
    rounded = dataclasses.replace(model, decoder=generation.decoder_of(model.model, "fp16"))
    pieces = list(rounded.stream("ab", SAMPLING, alternatives=257))
    for piece in pieces:
        assert {alternative.token: alternative.probability for alternative in piece.alternatives}[
            piece.token
        ] == pytest.approx(piece.probability)
    exact = list(model.stream("ab", SAMPLING))
    assert pieces[1].probability != exact[1].probability
    assert pieces[1].probability == pytest.approx(exact[1].probability, rel=0.1)


def test_a_run_that_prunes_while_its_best_checkpoint_is_loaded_gives_the_next_one(tmp_path, monkeypatch):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    first = checkpoint.best(trainer.run.checkpoints)
    load_model = generation.load_model

    def beside_a_training(folder):
        model = load_model(folder)
        if folder == first.folder:
            shutil.rmtree(folder)  # between the weights and the tokenizer
        return model

    monkeypatch.setattr(generation, "load_model", beside_a_training)
    model = generation.load(str(trainer.run.folder), "cpu")
    assert model.saved.step != first.step
    assert model.saved.skipped == ()


def test_a_checkpoint_that_stays_and_cannot_be_loaded_is_an_error_at_once(tmp_path, monkeypatch):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    tried = []

    def broken(folder):
        tried.append(folder)
        raise CheckpointError("no GPT-2")

    monkeypatch.setattr(generation, "load_model", broken)
    with pytest.raises(CheckpointError, match="no GPT-2"):
        generation.load(str(trainer.run.folder), "cpu")
    assert len(tried) == 1


def test_a_run_is_sampled_from_its_own_checkpoints_and_any_checkpoint_by_its_path(tmp_path):
    run, other = tiny_runs.trainer(tmp_path), tiny_runs.trainer(tmp_path, "training.num_iterations=16")
    for trainer in (run, other):
        list(trainer.train())
    foreign = run.run.checkpoints / "step-00000016"
    shutil.copytree(other.run.checkpoints / foreign.name, foreign)
    model = generation.load(str(run.run.folder), "cpu")
    assert model.saved.run_id == run.state.run_id
    assert "of another run" in model.saved.skipped[0]
    assert generation.load(str(foreign), "cpu").saved.run_id == other.state.run_id


def needs(trainer):
    return generation.bytes_needed(generation.load(str(trainer.run.folder), "cpu").model)


@pytest.mark.parametrize(
    ("gpu", "free", "place"),
    [("all", 0.5, "cuda"), ("spare", 0.5, "cpu"), ("spare", 1.9, "cpu"), ("spare", 2.1, "cuda"), ("none", 99.0, "cpu")],
)
def test_a_checkpoint_is_loaded_on_the_cpu_where_a_training_leaves_no_clear_room_on_the_gpu(
    tmp_path, monkeypatch, gpu, free, place
):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    needed, moved_to = needs(trainer), []
    monkeypatch.setattr(generation, "choose_device", lambda asked: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * needed), 10**12))
    monkeypatch.setattr(GPT2, "to", lambda model, device: moved_to.append(device.type) or model)
    model = generation.load(str(trainer.run.folder), gpu=gpu)
    assert moved_to == [place]
    assert model.placement_note == (None if place == "cuda" else generation.ON_CPU_BESIDE_TRAINING)


def test_without_a_gpu_a_training_moves_no_model(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    assert generation.load(str(trainer.run.folder), "cpu", gpu="none").placement_note is None


# ---- models of other programs


def foreign_model(folder, **saving):
    """A GPT-2 saved by transformers, beside a byte tokenizer of ours."""
    from transformers import GPT2Config as TheirConfig
    from transformers import GPT2LMHeadModel

    torch.manual_seed(0)
    config = TheirConfig(vocab_size=257, n_positions=16, n_embd=16, n_layer=2, n_head=2, eos_token_id=256)
    theirs = GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(folder, **saving)
    tokenizers.save(ByteTokenizer(), folder)
    return theirs


def assert_same_logits(folder, theirs):
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        ours = generation.load(str(folder), "cpu").model(tokens)
        assert torch.allclose(ours, theirs(tokens).logits, atol=1e-5)


def test_weights_in_several_files_are_read(tmp_path):
    theirs = foreign_model(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    assert_same_logits(tmp_path, theirs)


def test_weights_whose_embedding_is_stored_as_the_output_weight_are_read(tmp_path):
    theirs = foreign_model(tmp_path)
    tensors = checkpoint.load_tensors(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    assert_same_logits(tmp_path, theirs)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../model.safetensors"}, "not a safetensors file beside it"),
        ({"a": "model.bin"}, "not a safetensors file beside it"),
        ({"a": "model-1-of-2.safetensors"}, "model-1-of-2.safetensors is missing"),
        ({"a": [1]}, "does not say in which files"),
        (None, "does not say in which files"),
    ],
)
def test_an_index_of_weights_that_are_not_there_is_refused(tmp_path, weight_map, message):
    foreign_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        generation.load(str(tmp_path), "cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 elsewhere")
def test_a_folder_whose_name_is_not_utf8_is_read(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    assert torch.equal(checkpoint.load_tensors(folder / "model.safetensors")["a"], torch.ones(2))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)")])
def test_weights_larger_than_memory_are_an_expected_failure(tmp_path, monkeypatch, error):
    foreign_model(tmp_path)

    def fails(path):
        raise error

    monkeypatch.setattr(checkpoint, "load_tensors", fails)
    with pytest.raises(ResourceError, match=r"out of memory while loading .* GB on the disk"):
        generation.load(str(tmp_path), "cpu")


def test_a_hub_that_accepts_and_never_answers_is_not_waited_for(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "_PROBE_SECONDS", 0.5)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(CheckpointError, match=r"there is no run nobody/nothing .* cannot be reached"):
            generation.load("nobody/nothing", "cpu")
