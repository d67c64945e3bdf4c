"""What a preset gets from the one it extends and from lower layers, and how it leaves a value out again."""

import pytest

from gpt2tui.errors import PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.layers import read_overrides, setting_values


def resolved(layers, *overrides):
    return preset_files.load(layers, overrides).preset


def test_a_preset_inherits_neither_description_nor_prompt(tmp_path):
    small = resolved(["small"])
    path = tmp_path / "mine.toml"
    path.write_text('extends = "small"\n')
    mine = resolved([path])
    assert small.description
    assert small.sampling.prompt == "def __init__(self"
    assert (mine.description, mine.sampling.prompt) == ("", "")
    assert mine.sampling.max_length == small.sampling.max_length == 120
    assert mine.model == small.model
    path.write_text('extends = "small"\ndescription = "own"\n[sampling]\nprompt = "ROMEO:"\n')
    assert (resolved([path]).description, resolved([path]).sampling.prompt) == ("own", "ROMEO:")


def test_a_prompt_does_not_outlast_the_corpus_it_was_written_for(tmp_path):
    assert resolved(["small"], "data.source=wikitext-2").sampling.prompt == ""
    assert resolved(["small"], "data.source=wikitext-2", "sampling.prompt=The").sampling.prompt == "The"
    assert resolved(["small"], "data.source=python-stdlib").sampling.prompt == "def __init__(self"
    layer = tmp_path / "mine.toml"
    layer.write_text('[data]\nsource = "wikitext-2"\n')
    assert resolved(["small", layer]).sampling.prompt == ""
    assert resolved(["small", layer]).description == ""


@pytest.mark.parametrize(("tokenizer", "size"), [("char", None), ("gpt2", None), ("byte", None), ("bpe", 4096)])
def test_a_vocabulary_size_does_not_outlast_its_tokenizer(tokenizer, size, tmp_path):
    assert resolved(["small"], f"data.tokenizer={tokenizer}").model.vocab_size == size
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "small"\n[data]\ntokenizer = "{tokenizer}"\n')
    assert resolved([path]).model.vocab_size == size
    kept = resolved(["small"], f"data.tokenizer={tokenizer}", "model.vocab_size=60000")
    assert kept.model.vocab_size == 60000


def test_auto_leaves_out_what_a_lower_layer_sets(tmp_path):
    assert resolved(["small"], "model.vocab_size=auto").model.vocab_size is None
    assert resolved(["small"], 'model.vocab_size="auto"').model.vocab_size is None
    # Left out, the sequence length is that of all positions.
    assert resolved(["small"], "model.n_positions=64", "training.sequence_length=auto").training.sequence_length == 64
    path = tmp_path / "mine.toml"
    path.write_text('extends = "small"\n[model]\nvocab_size = "auto"\n')
    assert resolved([path]).model.vocab_size is None
    assert resolved([path], "model.vocab_size=500").model.vocab_size == 500


@pytest.mark.parametrize("value", ["", "null", "none", "None"])
def test_other_ways_to_leave_a_value_out_are_answered_with_auto(value):
    with pytest.raises(PresetError, match='write "auto" to leave it out'):
        resolved(["small"], f"model.vocab_size={value}")


def test_a_setting_with_a_default_of_its_own_cannot_be_left_out():
    with pytest.raises(PresetError, match='"auto" is not a whole number'):
        resolved(["small"], "model.n_layer=auto")


def test_the_error_about_a_small_vocabulary_says_how_to_leave_it_out():
    with pytest.raises(PresetError, match='or write "auto"'):
        resolved(["small"], "data.tokenizer=gpt2", "model.vocab_size=4096")


def test_a_preset_without_a_model_is_partial(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[optimizer]\nlr = 0.01\n")
    assert preset_files.load([path]).is_partial
    assert not preset_files.load(["small", path]).is_partial
    assert not preset_files.load([path], ["model.n_layer=2"]).is_partial
    path.write_text('extends = "small"\n[optimizer]\nlr = 0.01\n')
    assert not preset_files.load([path]).is_partial
    shipped = [source.path for source in preset_files.available() if source.shipped]
    assert shipped
    assert not any(preset_files.check(source).is_partial for source in shipped)


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        (["data.messages_column=m"], (None, None, None, "m")),
        (["data.text_column=body"], ("body", None, None, None)),
        (["data.prompt_column=q"], (None, "q", "completion", None)),
    ],
)
def test_columns_of_another_kind_replace_those_of_a_base(given, columns):
    data = preset_files.load(["instruct"], given).preset.data
    assert (data.text_column, data.prompt_column, data.completion_column, data.messages_column) == columns


def test_columns_of_two_kinds_in_one_layer_are_refused():
    with pytest.raises(PresetError, match="either text or prompts and answers"):
        preset_files.load(["instruct"], ["data.text_column=text", "data.prompt_column=q"])


def test_the_form_shows_no_text_column_beside_prompts_and_answers():
    layer, _ = read_overrides(["data.prompt_column=q", "data.completion_column=a"])
    assert setting_values(layer)["data.text_column"] is None
    assert setting_values({})["data.text_column"] == "text"
