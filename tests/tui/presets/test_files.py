"""The preset files of the workbench."""

import os

import pytest

from gpt2tui.errors import PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import PresetSource, shipped_folder
from gpt2tui.tui.presets import library as preset_library
from gpt2tui.tui.presets.document import PresetDocument
from gpt2tui.tui.presets.library import PresetScan
from tests.tui.presets_app import own_preset


def own(name, text=""):
    return PresetSource(name, own_preset(name, text), shipped=False)


def shipped(name):
    return PresetSource(name, shipped_folder() / f"{name}.toml", shipped=True)


def test_a_file_with_mistakes_opens_with_its_values():
    document = PresetDocument(own("bad", '[model]\nn_layer = "three"\nlayers = 3\n[optimizer]\nlr = 0.5\n'))
    assert not document.unreadable
    assert document.editing.values["model.n_layer"] == "three"
    assert document.editing.values["optimizer.lr"] == 0.5
    assert ":3:model.layers" in str(document.file_mistakes[1])
    assert document.unknown == ("model.layers",)
    assert document.check().mistakes.keys() == {"model.n_layer"}


def test_a_file_that_is_not_toml_opens_as_unreadable():
    document = PresetDocument(own("bad", "[model\n"))
    assert "not TOML" in document.unreadable
    assert document.loaded() is None


def test_what_is_saved_is_what_the_command_line_loads():
    document = PresetDocument(own("mine", "[model]\nn_layer = 2\n"))
    document.editing.set("optimizer.lr", 0.25)
    document.save()
    assert not document.changed
    assert not document.changed_on_disk
    assert preset_files.load(["mine"]).preset == document.loaded().preset
    assert preset_files.load(["mine"]).preset.optimizer.lr == 0.25


def test_a_shipped_preset_is_never_written(monkeypatch):
    before = shipped("small").path.read_bytes()
    document = PresetDocument(shipped("small"))
    document.editing.set("model.n_layer", 5)
    with pytest.raises(PresetError):
        document.save()
    for forbidden in (
        lambda: preset_library.rename(shipped("small"), "x"),
        lambda: preset_library.delete(shipped("small")),
    ):
        with pytest.raises(PresetError, match="read-only"):
            forbidden()
    assert shipped("small").path.read_bytes() == before


def test_saving_under_another_name_leaves_the_first_as_it_was():
    first = PresetDocument(own("first", "[model]\nn_layer = 2\n"))
    first.editing.set("model.n_layer", 5)
    second = first.save_as(preset_library.path_of("second"))
    assert not first.changed
    assert first.editing.values["model.n_layer"] == 2
    assert preset_files.load(["second"]).preset.model.n_layer == 5
    assert second.editing.undo()  # the edits went along
    assert preset_files.load(["first"]).preset.model.n_layer == 2


def test_a_copy_keeps_the_comments():
    path = preset_library.duplicate(own("mine", "[model]\nn_layer = 2 # small\n"), "copy")
    assert "# small" in path.read_text()


def test_a_rename_never_writes_over_another_preset(tmp_path):
    own("taken", "[model]\nn_layer = 9\n")
    with pytest.raises(PresetError, match="already"):
        preset_library.rename(own("mine"), "taken")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.toml").touch()
    (elsewhere / "b.toml").write_text("[model]\nn_layer = 9\n")
    with pytest.raises(PresetError, match="already"):
        preset_library.rename(PresetSource("a", elsewhere / "a.toml", shipped=False), "b")
    assert "9" in (elsewhere / "b.toml").read_text()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a.toml", "a b", "\x1b[31m", "-x", "x" * 101])
def test_names_that_could_not_be_found_again_are_refused(name):
    assert preset_library.why_not_a_name(name)


def test_a_free_name_counts_up():
    assert preset_library.free_name("small") == "small-2"
    own("small-2")
    assert preset_library.free_name("small-2") == "small-3"


def test_a_change_on_disk_is_noticed_and_can_be_reloaded_or_ignored():
    document = PresetDocument(own("mine", "[model]\nn_layer = 2\n"))
    document.editing.set("optimizer.lr", 0.5)
    document.source.path.write_text("[model]\nn_layer = 10\n")
    assert document.changed_on_disk
    document.reload()
    assert not document.changed_on_disk
    assert not document.changed
    assert document.editing.values["model.n_layer"] == 10
    document.editing.undo()
    assert document.editing.values["optimizer.lr"] == 0.5
    os.utime(document.source.path, ns=(1, 1))
    assert document.changed_on_disk
    document.ignore_file()
    assert not document.changed_on_disk


def test_the_nearest_shipped_preset_is_the_one_of_the_same_name_else_the_most_similar():
    values = dict(PresetDocument(shipped("small")).editing.values) | {"training.seed": 1}
    assert preset_library.nearest_shipped("test", values)[0] == "test"
    assert preset_library.nearest_shipped("mine", values)[0] == "small"


def test_a_scan_reads_only_what_has_changed(monkeypatch):
    own("mine", "[model]\nn_layer = 1\n")
    own("bad", "[model\n")
    scan = PresetScan()
    found = {preset.source.name: preset for preset in scan.scan()}
    assert found["gpt2-124m"].size == "124M"
    assert found["bad"].broken
    monkeypatch.setattr(preset_files, "check", lambda path: pytest.fail("read again"))
    assert {preset.source.name for preset in scan.scan()} == found.keys()
