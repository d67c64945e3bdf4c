"""Loading models, the alternatives and probabilities of generated tokens, and the scores of given texts."""

import dataclasses
import json
import shutil

import pytest
import torch

from gpt2tui import generation
from gpt2tui.data.tokenizer_kinds import ByteTokenizer
from gpt2tui.errors import CheckpointError
from gpt2tui.generation import TextModel
from gpt2tui.preset.schema import SamplingTable
from gpt2tui.run import checkpoint
from model.config import GPT2Config
from model.gpt2 import GPT2
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
