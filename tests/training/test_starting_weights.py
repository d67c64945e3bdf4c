"""Runs that start from weights that exist: shape, tokenizer, first logits, lineage. transformers is the judge."""

import json
import shutil
import warnings

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from gpt2tui import generation
from gpt2tui.data import tokenizers
from gpt2tui.data.tokenizer_kinds import ByteTokenizer
from gpt2tui.data.tokenizers import gpt2
from gpt2tui.errors import CheckpointError, PresetError
from gpt2tui.launch import Launch, drive
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Evaluated, RunStarted, Step
from gpt2tui.training.controls import Controls
from gpt2tui.training.preparation import load_weights
from gpt2tui.training.starting import resolve
from gpt2tui.training.update import fresh_update
from tests import tiny_runs

OTHERS = tuple(setting for setting in tiny_runs.SETTINGS if not setting.startswith(("model.", "data.tokenizer")))


@pytest.fixture
def partial(tmp_path):
    """A preset file that says nothing of the model."""
    path = tmp_path / "partial.toml"
    path.write_text("")
    return path


def their_model(folder, **changes):
    torch.manual_seed(0)
    shape = {"vocab_size": 257, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "eos_token_id": 256}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape | changes)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    tokenizers.save(ByteTokenizer(), folder)
    return theirs


def settings(folder, source, *overrides):
    return [f"model.init_from={source}", f"data.source={tiny_runs.corpus_file(folder)}", *OTHERS, *overrides]


def loaded_from(folder, source, *overrides):
    (folder / "partial.toml").write_text("")
    return preset_files.load([folder / "partial.toml"], settings(folder, source, *overrides))


def train(launch):
    events, opened = [], None
    for emitted in drive(launch.open(), Controls()):
        opened = opened or emitted
        events.append(emitted)
    return opened.run, events


def first_logits(folder, source):
    """Logits of the network that a training from `source` begins with, and its tokens."""
    loaded, weights = resolve(loaded_from(folder, source))
    preset = loaded.preset
    model = fresh_update(preset, torch.device("cpu"), "fp32", load_weights(weights.folder, preset)).model.eval()
    tokens = torch.randint(preset.model.vocab_size, (2, 16), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model(tokens), tokens


def rewritten(folder, change):
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def sharded(folder):
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    theirs.save_pretrained(folder, max_shard_size="8KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1


def without_prefix_and_with_masks(tensors):
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {"h.0.attn.bias": torch.ones(1, 1, 24, 24).tril(), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    return bare | masks


VARIANTS = {
    "safetensors": lambda folder: None,
    "sharded": sharded,
    "pickle": pickled,
    "bare names and masks": lambda folder: rewritten(folder, without_prefix_and_with_masks),
    "output weight": lambda folder: rewritten(
        folder, lambda tensors: tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_batch_has_the_logits_of_transformers(tmp_path, variant):
    theirs = their_model(tmp_path / "model")
    VARIANTS[variant](tmp_path / "model")
    logits, tokens = first_logits(tmp_path, tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(logits, theirs(tokens).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_give_the_logits_of_transformers_in_fp32(tmp_path, dtype):
    their_model(tmp_path / "model").to(dtype).save_pretrained(tmp_path / "model")
    logits, tokens = first_logits(tmp_path, tmp_path / "model")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(logits, theirs(tokens).logits, rtol=0, atol=1e-4)


def test_a_changed_weight_would_be_noticed(tmp_path):
    theirs = their_model(tmp_path / "model")
    rewritten(tmp_path / "model", lambda t: t | {"transformer.wpe.weight": 1.1 * t["transformer.wpe.weight"]})
    logits, tokens = first_logits(tmp_path, tmp_path / "model")
    with torch.no_grad():
        assert (logits - theirs(tokens).logits).abs().max() > 1e-3


@pytest.mark.slow
def test_a_vocabulary_with_added_tokens_is_trained_with(tmp_path):
    folder = tmp_path / "model"
    theirs = their_model(folder, vocab_size=50260, eos_token_id=50256)
    (folder / "gpt2tui_tokenizer.json").unlink()
    tokenizers.save(gpt2(), folder)
    (folder / "gpt2tui_tokenizer.json").unlink()
    theirs_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs_tokenizer.add_tokens(["<user>", "<model>", "quick brown"])
    theirs_tokenizer.save_pretrained(folder)
    run, _ = train(Launch(loaded_from(tmp_path, folder, "training.num_iterations=4")))
    saved = checkpoint.newest(run.checkpoints)
    assert preset_files.load_frozen(run.preset_file).model.vocab_size == 50260
    text = "the quick brown fox <user> said"
    expected = theirs_tokenizer(text)["input_ids"]
    assert tokenizers.load(run.folder).encode(text) == expected
    assert transformers.AutoTokenizer.from_pretrained(saved.folder)(text)["input_ids"] == expected
    assert theirs.config.vocab_size == 50260


def test_the_shape_and_the_tokenizer_come_from_the_weights(tmp_path, partial):
    their_model(tmp_path / "model")
    preset = preset_files.load([partial], [f"model.init_from={tmp_path / 'model'}"]).preset
    assert preset.model.shape.model_dump() == {
        "vocab_size": 257, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "dropout": 0.0, "bias": True,
    }  # fmt: skip
    assert preset.data.tokenizer == "byte"
    assert preset.training.sequence_length == 24


def test_a_preset_that_says_another_shape_or_tokenizer_is_refused_naming_the_fields(tmp_path):
    their_model(tmp_path / "model")
    with pytest.raises(PresetError) as caught:
        loaded_from(tmp_path, tmp_path / "model", "model.n_embd=32", "data.tokenizer=char", "model.n_layer=2")
    assert [mistake.key for mistake in caught.value.mistakes] == ["model.n_embd", "data.tokenizer"]
    assert "32 is not that of" in str(caught.value)
    assert "which has 16; leave it out" in str(caught.value)


def test_a_sequence_shorter_than_the_context_is_fine_and_a_longer_one_refused(tmp_path):
    their_model(tmp_path / "model")
    assert loaded_from(tmp_path, tmp_path / "model").preset.training.sequence_length == 16
    with pytest.raises(PresetError, match=r"sequence_length.*25 is more than model.n_positions = 24"):
        loaded_from(tmp_path, tmp_path / "model", "training.sequence_length=25")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"activation_function": "relu"}, "activation_function"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"n_inner": 100}, "n_inner"),
    ],
)
def test_what_gpt2_does_not_compute_is_refused_by_name(tmp_path, change, word):
    their_model(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(PresetError, match=word):
        loaded_from(tmp_path, tmp_path / "model")


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    their_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"transformer.wte.weight": Evil()}, tmp_path / "model" / "pytorch_model.bin")
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(CheckpointError, match="a pickle can run code") as caught,
    ):
        resolve_and_load(tmp_path)
    assert "weights_only" not in str(caught.value)  # torch says how to run the code
    assert not (tmp_path / "ran").exists()
    torch.save(["a list"], tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="does not hold named tensors"):
        resolve_and_load(tmp_path)


def resolve_and_load(tmp_path):
    loaded, weights = resolve(loaded_from(tmp_path, tmp_path / "model"))
    load_weights(weights.folder, loaded.preset)


def test_there_is_no_such_model(tmp_path):
    with pytest.raises(PresetError, match=r"model.init_from: there is no checkpoint \./nothing: the folder does not"):
        loaded_from(tmp_path, "./nothing")


@pytest.fixture
def base(tmp_path):
    """A finished run, whose preset has a `char` tokenizer made from its corpus."""
    trainer = tiny_runs.trainer(tmp_path, "data.tokenizer=char")
    list(trainer.train())
    return trainer.run


@pytest.mark.parametrize("reference", ["name", "name@4", "name@latest", "folder", "prefix", "latest"])
def test_a_run_starts_from_a_checkpoint_and_says_so(tmp_path, base, reference):
    step = 4 if reference == "name@4" else 12 if "latest" in reference else checkpoint.best(base.checkpoints).step
    source = {
        "name": base.name, "name@4": f"{base.name}@4", "name@latest": f"{base.name}@latest", "folder": base.folder,
        "prefix": base.name[:-1], "latest": "latest",
    }[reference]  # fmt: skip
    saved = checkpoint.at(base.checkpoints, step)
    run, events = train(Launch(loaded_from(tmp_path, source, "training.num_iterations=4")))
    first = checkpoint.at(run.checkpoints, 0)
    assert first.files["model.safetensors"].sha256 == saved.files["model.safetensors"].sha256
    origin = run.info()["origin"]
    assert (origin["run_id"], origin["step"]) == (saved.run_id, step)
    assert origin["sha256"] == saved.files["model.safetensors"].sha256
    assert first.origin == checkpoint.newest(run.checkpoints).origin == checkpoint.Origin(**origin)
    started = next(event for event in events if isinstance(event, RunStarted))
    assert (started.step, started.init_from) == (0, origin["source"])
    assert started.init_from.endswith(saved.folder.name)
    assert tokenizers.load(run.folder).token_table == tokenizers.load(base.folder).token_table
    frozen = preset_files.load_frozen(run.preset_file)
    assert frozen.model.init_from == origin["source"]
    assert (frozen.model.n_embd, frozen.data.tokenizer) == (16, "char")


def test_what_the_weights_can_do_is_measured_before_the_first_step(tmp_path):
    """A rate that changes nothing gives the same loss later, and the checkpoint of step 0 has it."""
    their_model(tmp_path / "base")
    run, events = train(Launch(loaded_from(tmp_path, tmp_path / "base", "optimizer.lr=1e-12")))
    measured = {event.step: event.val_loss for event in events if isinstance(event, Evaluated) and not event.whole}
    assert min(measured) == 0
    assert measured[0] == pytest.approx(measured[4], rel=1e-6)
    assert checkpoint.at(run.checkpoints, 0).val_loss == measured[0]
    _, events = train(Launch(loaded_from(tmp_path, tmp_path / "base", "training.eval_frequency=0")))
    assert not [event for event in events if isinstance(event, Evaluated) and event.step == 0]


def test_a_resumed_run_never_needs_the_source_again_and_is_bit_identical(tmp_path, base):
    whole, _ = train(Launch(loaded_from(tmp_path, base.name, "training.num_iterations=8")))
    shutil.rmtree(base.folder)
    part = runs.Run(tmp_path / "part")
    shutil.copytree(whole.folder, part.folder)
    for saved in checkpoint.saved_in(part.checkpoints):
        if saved.step > 4:
            shutil.rmtree(saved.folder)
    _, events = train(Launch(preset_files.LoadedPreset("x", preset_files.load_frozen(part.preset_file), ()), part))
    assert [event.step for event in events if isinstance(event, Step)] == [5, 6, 7, 8]
    for name in ("model.safetensors", "training_state.safetensors"):
        ends = [checkpoint.at(run.checkpoints, 8).files[name].sha256 for run in (whole, part)]
        assert ends[0] == ends[1]


def test_a_text_of_the_start_is_what_the_weights_write(tmp_path, base):
    run, _ = train(Launch(loaded_from(tmp_path, base.name, "training.num_iterations=3")))
    texts = [
        generation.load(str(folder), "cpu").continuation("the ", generation.SamplingTable(max_length=12)).text
        for folder in (checkpoint.best(base.checkpoints).folder, checkpoint.at(run.checkpoints, 0).folder)
    ]
    assert texts[0] == texts[1]
