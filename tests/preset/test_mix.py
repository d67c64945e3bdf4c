"""[[data.mix]]: several sources instead of one."""

import pytest

from gpt2tui.errors import PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.settings import flat
from gpt2tui.tui.presets.field import as_override, parse_value, value_text
from gpt2tui.tui.presets.values import PresetEditing, check_values

MIX = """
extends = "small"

[[data.mix]]
source = "wikitext-2"
weight = 3

[[data.mix]]
source = "python-stdlib"
"""
TWO = [{"source": "wikitext-2", "weight": 3.0}, {"source": "python-stdlib", "weight": 1.0}]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.toml").write_text(MIX)
    return tmp_path / "mine.toml"


def test_a_mix_takes_the_place_of_an_inherited_source_and_its_prompt(file):
    preset = preset_files.check(file).preset
    assert [(each.source, each.weight) for each in preset.data.mix] == [("wikitext-2", 3.0), ("python-stdlib", 1.0)]
    assert (preset.data.source, preset.data.sources) == ("data.mix", ["wikitext-2", "python-stdlib"])
    assert preset.sampling.prompt == ""


def test_a_source_takes_the_place_of_an_inherited_mix(file):
    preset = preset_files.load([file], ["data.source=wikitext-103"]).preset
    assert (preset.data.source, preset.data.mix) == ("wikitext-103", ())


def test_a_mix_survives_being_written_and_read(file, tmp_path):
    preset = preset_files.check(file).preset
    preset_files.save(preset, tmp_path / "copy.toml")
    assert preset_files.check(tmp_path / "copy.toml").preset == preset
    assert preset_files.load_frozen(tmp_path / "copy.toml") == preset


def test_saving_over_a_file_keeps_what_is_unchanged_and_writes_a_changed_mix(file):
    editing = PresetEditing(flat(preset_files.check(file).preset))
    editing.set("optimizer.lr", 0.5)
    preset_files.update(check_values(editing.values).preset, file)
    assert file.read_text().startswith(MIX.rstrip("\n"))
    editing.set("data.mix", [TWO[0]])
    preset_files.update(check_values(editing.values).preset, file)
    assert flat(preset_files.check(file).preset) == editing.values


def test_a_relative_source_of_a_mix_is_relative_to_the_file(file, tmp_path):
    (tmp_path / "books").mkdir()
    file.write_text(MIX.replace("wikitext-2", "books"))
    assert preset_files.check(file).preset.data.sources == [str(tmp_path / "books"), "python-stdlib"]


@pytest.mark.parametrize(
    ("override", "message", "line"),
    [
        ('data.mix=[{source = "a"}, {source = "b", weight = 0}]', "0 as weight of source 2 is not a number above 0", 0),
        ('data.mix=[{source = "a"}, {weight = 1}]', "source 2 of the mix names no corpus", 0),
        ('data.mix=[{source = "a", weigth = 2}]', "weigth of source 1: there is no such key", 0),
        ('data.mix=["a"]', "as source 1 is not a table with a source and a weight", 0),
        ("data.mix=a", '"a" is not a list of sources', 0),
        ('data.mix=[{source = "a"}, {source = "a"}]', "it names a twice", 0),
        ('data.mix=[{source = "data.mix"}]', "a mix cannot be a source of itself", 0),
        ('data.mix=[{source = "a", weight = 0.333333}, {source = "b", weight = 0.666667}]', "the weights add up to", 0),
        ("data.source=data.mix", "there are none", 0),
        ("data.streaming=true", "leave out streaming", 4),
    ],
)
def test_mistakes_in_a_mix_are_named(override, message, line, file):
    layers = [file] if line else ["small"]
    with pytest.raises(PresetError, match=r".") as caught:
        preset_files.load(layers, [override])
    (mistake,) = caught.value.mistakes
    assert message in str(mistake)
    assert mistake.key in ("data.mix", "data.source", "data.streaming")
    if line:
        assert [place.line for _, place in mistake.partners] == [line]


def test_a_source_and_a_mix_in_one_layer_exclude_each_other(file):
    file.write_text(MIX + '\n[data]\nsource = "wikitext-2"\n')
    with pytest.raises(PresetError, match="either a source or a mix") as caught:
        preset_files.check(file)
    assert caught.value.mistakes[0].place.line == 4


# ---- in the form and in the list of keys


def test_the_form_shows_and_takes_a_mix_as_one_line(file):
    (setting,) = (each for each in preset_files.settings() if each.key == "data.mix")
    assert setting.type == "list of sources"
    shown = value_text(flat(preset_files.check(file).preset)["data.mix"])
    assert shown == "3 wikitext-2, 1 python-stdlib"
    assert parse_value(setting, shown) == TWO
    assert parse_value(setting, "~/my books, 0.5 b") == [
        {"source": "~/my books", "weight": 1.0},
        {"source": "b", "weight": 0.5},
    ]
    assert preset_files.load(["small"], [as_override("data.mix", TWO)[len("--set '") : -1]]).preset.data.sources == [
        "wikitext-2",
        "python-stdlib",
    ]


def test_a_mix_that_is_typed_and_deleted_again_leaves_a_valid_preset():
    editing = PresetEditing(flat(preset_files.load(["small"]).preset))
    editing.set("data.mix", TWO)
    assert check_values(editing.values).preset.data.sources == ["wikitext-2", "python-stdlib"]
    editing.set("data.mix", [])
    assert check_values(editing.values).preset.data.source == "python-stdlib"
    assert not check_values(editing.values).mistakes
