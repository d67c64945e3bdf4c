"""Optional tables: in files, overrides, messages, saving, and the list of settings."""

import json
import tomllib

import pytest

from gpt2tui.__main__ import main
from gpt2tui.errors import PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.layers import read_file, setting_values
from gpt2tui.preset.settings import defaults, optional_tables, preset_differences, tables, with_table
from gpt2tui.tui.presets.values import PresetEditing, check_values
from tests.preset.optional_table import ExtendedPreset, ExtraTable, extra_table  # noqa: F401

pytestmark = pytest.mark.usefixtures("extra_table")


def extra(*overrides, layers=("default",)):
    return preset_files.load(layers, overrides).preset.extra


def mistake(*overrides):
    with pytest.raises(PresetError) as caught:
        preset_files.load(["default"], overrides)
    (found,) = caught.value.mistakes
    return found


def test_it_is_absent_unless_a_layer_mentions_it():
    assert extra() is None
    assert extra("extra.rank=8") == ExtraTable(rank=8)
    assert extra("extra=true") == extra("extra={}") == ExtraTable()
    assert extra("extra.rank=8", "extra=false") is None
    assert extra("extra=false", "extra.rank=8") == ExtraTable(rank=8)
    assert extra("extra.rank=8", "extra=true") == ExtraTable(rank=8)


def test_a_layer_may_switch_off_a_table_of_its_base(tmp_path):
    base, top = tmp_path / "base.toml", tmp_path / "top.toml"
    base.write_text("[extra]\nrank = 8\n")
    top.write_text('extends = "base.toml"\nextra = false\n')
    assert extra(layers=[base]) == ExtraTable(rank=8)
    assert extra(layers=[top]) is None
    top.write_text('extends = "base.toml"\n[extra]\nmode = "y"\n')
    assert extra(layers=[top]) == ExtraTable(rank=8, mode="y")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("extra.rank=0", "--set extra.rank: 0 is not a whole number from 1 to 64"),
        ("extra.rnk=1", "--set extra.rnk: 1: there is no such setting; did you mean extra.rank?"),
        ("exta.rank=1", "--set exta.rank: there is no table [exta]; did you mean [extra]?"),
        ("extra=3", "--set extra: 3 is not a table, or true or false"),
        ("training=true", "--set training: true is not a table: its settings go under [training]"),
    ],
)
def test_mistakes_in_it_are_reported_like_all_others(override, line):
    assert str(mistake(override)) == line


def test_it_is_a_switch_before_its_settings():
    keys = [setting.key for setting in preset_files.settings()]
    assert keys[-4:] == ["extra", "extra.rank", "extra.target", "extra.mode"]
    switch = preset_files.settings()[-4]
    assert (switch.is_table, switch.default, switch.table) == (True, False, "extra")
    assert switch.help == "A table that a preset may leave out."
    assert optional_tables() == {"distributed", "evaluation", "extra", "lora"}
    assert tables()[-1] == "extra"
    assert "training" in tables()


def test_the_schema_for_editors_knows_the_table_and_the_switch():
    described = preset_files.json_schema()["properties"]["extra"]
    assert described["anyOf"] == [{"$ref": "#/$defs/ExtraTable"}, {"type": "boolean"}]
    assert "null" not in json.dumps(preset_files.json_schema())


def test_presets_keys_lists_it(capsys):
    assert main(["presets", "keys", "--json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["extra"]["is_table"]
    assert rows["extra.rank"]["default"] == 4


def test_it_is_written_only_while_it_is_on():
    assert "extra" not in preset_files.dumps(ExtendedPreset())
    written = tomllib.loads(preset_files.dumps(ExtendedPreset(extra=ExtraTable(rank=8))))
    assert written["extra"] == {"rank": 8, "mode": "x"}


def test_its_settings_have_no_value_while_it_is_absent():
    absent = defaults()
    assert {key: value for key, value in absent.items() if key.startswith("extra")} == {
        "extra": False,
        "extra.rank": None,
        "extra.target": None,
        "extra.mode": None,
    }
    assert preset_files.flat(ExtendedPreset(extra=ExtraTable())) == with_table(absent, "extra", is_there=True)


def test_the_difference_names_the_table_and_its_settings():
    found = preset_differences(ExtendedPreset(), ExtendedPreset(extra=ExtraTable(rank=8)))
    assert [(d.key, d.left, d.right) for d in found] == [
        ("extra", False, True),
        ("extra.rank", None, 8),
        ("extra.mode", None, "x"),
    ]


def test_switching_it_is_one_step_of_undo():
    editing = PresetEditing(defaults())
    editing.set("extra", True)
    editing.set("extra.rank", 8)
    assert check_values(editing.values).preset.extra == ExtraTable(rank=8)
    editing.set("extra", False)
    assert not editing.changed
    assert check_values(editing.values).preset.extra is None
    editing.undo()
    assert editing.values["extra.rank"] == 8
    editing.undo()
    editing.undo()
    assert editing.values == defaults()


def test_a_mistake_in_it_stands_at_its_field():
    checked = check_values(with_table(defaults(), "extra", is_there=True) | {"extra.rank": 0})
    assert checked.mistakes == {"extra.rank": "0 is not a whole number from 1 to 64"}


@pytest.mark.parametrize("text", ["", "[extra]\n", "[extra]\nrank = 8 # why\n", "extra = true\n", "extra = false\n"])
@pytest.mark.parametrize("base", ["", "[extra]\nrank = 2\n", "extra = true\n"])
@pytest.mark.parametrize("wanted", [None, ExtraTable(), ExtraTable(rank=8), ExtraTable(rank=9, target=3)])
def test_a_file_over_a_base_can_say_each_of_them(tmp_path, text, base, wanted):
    (tmp_path / "base.toml").write_text(base)
    path = tmp_path / "mine.toml"
    path.write_text(f'# mine\nextends = "base.toml"\n{text}')
    assert not preset_files.update(ExtendedPreset(extra=wanted), path)
    assert preset_files.check(path).preset == ExtendedPreset(extra=wanted)
    assert path.read_text().startswith('# mine\nextends = "base.toml"\n')
    if wanted is not None and wanted.rank == 8 and "why" in text:
        assert "rank = 8 # why" in path.read_text()


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("", False),
        ("extra = false\n", False),
        ("extra = true\n", True),
        ("[extra]\n", True),
        ("extra.rank = 0\n", True),
    ],
)
def test_a_file_valid_or_not_is_read_into_values(tmp_path, text, there):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert setting_values(read_file(path)[1])["extra"] is there
