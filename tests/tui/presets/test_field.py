"""Values from typed texts, and texts of values."""

import shlex

import pytest

from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import flat, settings
from gpt2tui.tui.presets.field import (
    as_override,
    choices_in_view,
    complete_path,
    field_kind,
    parse_value,
    short_bounds,
    value_text,
)

BY_KEY = {setting.key: setting for setting in settings()}


def test_every_kind_of_setting_has_its_editor():
    kinds = {key: field_kind(setting) for key, setting in BY_KEY.items()}
    assert set(kinds.values()) == {"number", "choice", "switch", "text", "long text", "path", "list"}
    assert kinds["data.source"] == "path"
    assert kinds["sampling.prompt"] == "long text"


@pytest.mark.parametrize("key", BY_KEY)
def test_a_shown_default_reads_as_itself(key):
    setting = BY_KEY[key]
    if field_kind(setting) != "switch":
        assert parse_value(setting, value_text(setting.default)) == setting.default


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("optimizer.lr", "6e-3", 0.006),
        ("optimizer.lr", "1", 1),
        ("optimizer.lr", "fast", "fast"),
        ("optimizer.lr", "", ""),
        ("model.vocab_size", " ", None),
        ("model.n_embd", "1_024", 1024),
        ("tracking.tags", "a, b,,", ["a", "b"]),
        ("sampling.prompt", " def ", " def "),
    ],
)
def test_what_is_typed_becomes_a_value(key, text, value):
    assert parse_value(BY_KEY[key], text) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.lr", 0.0001),
        ("model.bias", False),
        ("schedule.name", "cosine"),
        ("data.source", "my texts/*.txt"),
        ("tracking.run_name", "123"),
        ("tracking.run_name", ""),
        ("tracking.tags", ['a "b"', "ü"]),
        ("sampling.prompt", "ROMEO:\n\t'"),
    ],
)
def test_the_command_line_reads_the_shown_override_as_the_same_value(key, value):
    flag, override = shlex.split(as_override(key, value))
    assert flag == "--set"
    assert flat(preset_files.load(["default"], [override]).preset)[key] == value


def test_bounds_are_short():
    assert short_bounds(BY_KEY["model.n_embd"]) == "1 to 65,536"
    assert short_bounds(BY_KEY["optimizer.beta1"]) == "0 to <1"
    assert short_bounds(BY_KEY["optimizer.lr"]) == ">0 to 10"
    assert short_bounds(BY_KEY["training.seed"]) == "≥ 0"
    assert short_bounds(BY_KEY["data.source"]) == ""


def test_paths_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    (tmp_path / "texts" / "\x1b]52").touch()
    assert complete_path("te") == "texts/"
    assert complete_path("texts/a") == "texts/a.txt"
    assert complete_path("texts/\x1b") is None
    assert complete_path("nowhere/a") is None
    assert complete_path("texts/*") is None


@pytest.mark.parametrize(
    ("value", "width", "shown"),
    [
        ("constant", 40, ["constant", "linear", "cosine", "wsd"]),
        ("constant", 31, ["constant", "linear", "cosine", "wsd"]),
        ("constant", 22, ["constant", "linear"]),
        ("cosine", 22, ["linear", "cosine", "wsd"]),
        ("cosine", 21, ["cosine", "wsd"]),
        ("wsd", 22, ["linear", "cosine", "wsd"]),
        ("wsd", 2, ["wsd"]),
        ("unknown", 12, ["constant"]),
    ],
)
def test_of_choices_that_do_not_fit_those_around_the_chosen_one_are_drawn(value, width, shown):
    choices = ("constant", "linear", "cosine", "wsd")
    first, last = choices_in_view(choices, value, width)
    assert list(choices[first:last]) == shown
