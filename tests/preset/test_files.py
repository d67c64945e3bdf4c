"""Preset files: names, layers, overrides, saving, and the message for each mistake."""

import datetime
import json
import os
import random
import stat
import tomllib
from typing import get_args

import pytest

from gpt2tui.errors import CheckpointError, Place, PresetError, ResourceError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.layers import key_lines, nesting_depth, parse, setting_values
from gpt2tui.preset.schema import Preset
from gpt2tui.preset.settings import optional_tables


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """An empty configuration folder, and a current folder of the test's own."""
    monkeypatch.setenv("GPT2TUI_CONFIG", str(tmp_path / "config"))
    folder = tmp_path / "current"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def write(tmp_path):
    """Writes a file in the current folder, or, for a bare name, a preset of the user's; returns its path."""

    def write_text(name, text):
        path = tmp_path / ("current" if name.endswith(".toml") else "config/presets") / name
        path = path if name.endswith(".toml") else path.with_suffix(".toml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_text


def mistakes(layers, overrides=()):
    with pytest.raises(PresetError) as caught:
        preset_files.load(layers, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def mistake(layers, overrides=()):
    lines = mistakes(layers, overrides)
    assert len(lines) == 1, lines
    return lines[0]


# ---- finding


def test_shipped_presets_are_found_by_name():
    assert preset_files.find("small") == preset_files.shipped_folder() / "small.toml"


def test_a_preset_of_the_users_hides_the_shipped_one(write):
    path = write("small", "")
    assert preset_files.find("small") == path
    sources = [source for source in preset_files.available() if source.name == "small"]
    assert sources == [preset_files.PresetSource("small", path, shipped=False)]


def test_a_known_name_wins_over_a_file_in_the_current_folder(own_folders):
    (own_folders / "small").write_text("[training]\nseed = 5\n")
    (own_folders / "mine").write_text("[training]\nseed = 5\n")
    assert preset_files.load(["small"]).preset.training.seed != 5
    assert preset_files.load(["mine"]).preset.training.seed == 5


def test_an_unknown_name_gets_the_nearest_and_the_list():
    first, second = mistakes(["smal"])
    assert first == 'no preset is called "smal"; did you mean small?'
    assert all(name in second for name in ("default", "gpt2-124m", "shakespeare-char"))


def test_a_missing_file_gets_the_nearest_name():
    assert mistakes(["smal.toml"])[0] == "smal.toml: there is no such file; did you mean small?"


def test_loading_without_a_layer_is_refused():
    assert "no preset" in mistake([])


# ---- layers


def test_later_layers_win_and_overrides_win_over_all(write):
    write("a.toml", "[training]\nseed = 1\nbatch_size = 1\nnum_iterations = 1\n")
    write("b.toml", "[training]\nseed = 2\nbatch_size = 2\n")
    loaded = preset_files.load(["a.toml", "b.toml"], ["training.seed=3"])
    training = loaded.preset.training
    assert (training.seed, training.batch_size, training.num_iterations) == (3, 2, 1)
    assert loaded.name == "b"
    assert [path.name for path in loaded.layers] == ["a.toml", "b.toml"]


def test_a_setting_in_no_layer_has_the_default_of_the_schema(write):
    write("empty.toml", "")
    assert preset_files.load(["empty.toml"]).preset == Preset()


def test_extends_merges_over_the_other_preset(write):
    write("base", "[optimizer]\nlr = 0.5\nbeta1 = 0.5\n")
    write("top.toml", 'extends = "base"\n[optimizer]\nlr = 0.25\n')
    loaded = preset_files.load(["top.toml"])
    assert (loaded.preset.optimizer.lr, loaded.preset.optimizer.beta1) == (0.25, 0.5)
    assert [path.name for path in loaded.layers] == ["base.toml", "top.toml"]


def test_extends_is_relative_to_the_file_it_is_in(write, own_folders):
    (own_folders / "deep").mkdir()
    (own_folders / "deep" / "base.toml").write_text("[training]\nseed = 9\n")
    (own_folders / "deep" / "top.toml").write_text('extends = "base.toml"\n')
    assert preset_files.load(["deep/top.toml"]).preset.training.seed == 9


def test_the_users_preset_may_extend_the_shipped_one_of_its_name(write):
    write("small", 'extends = "small"\n[training]\nseed = 77\n')
    loaded = preset_files.load(["small"])
    assert loaded.preset.training.seed == 77
    assert loaded.preset.model == preset_files.load([preset_files.shipped_folder() / "small.toml"]).preset.model


def test_a_later_layers_base_wins_over_an_earlier_layer(write):
    write("a.toml", "[training]\nseed = 1\n")
    write("base.toml", "[training]\nseed = 2\n")
    write("b.toml", 'extends = "base.toml"\n')
    assert preset_files.load(["a.toml", "b.toml"]).preset.training.seed == 2


@pytest.mark.parametrize("length", [1, 2, 3])
def test_presets_that_extend_each_other_in_a_circle_are_refused(write, length):
    for i in range(length):
        write(f"p{i}", f'extends = "p{(i + 1) % length}"\n')
    assert "a preset cannot extend itself" in mistake(["p0"])


def test_a_long_chain_of_extends_is_refused(write):
    for i in range(20):
        write(f"p{i}.toml", f'extends = "p{i + 1}.toml"\n')
    assert "more than 8 presets extend one another" in mistake(["p0.toml"])


def test_an_unknown_base_is_reported_at_the_line_that_names_it(write):
    write("top.toml", '\nextends = "smal"\n')
    assert mistakes(["top.toml"])[0] == 'top.toml:2:extends: no preset is called "smal"; did you mean small?'


@pytest.mark.parametrize("value", ["3", '""', '["small"]', "{a = 1}", '"a\\u0000/b"', f'"{"x" * 5000}"'])
def test_extends_must_be_a_name(write, value):
    write("top.toml", f"extends = {value}\n")
    assert mistakes(["top.toml"])[0].startswith("top.toml:1:extends")


def test_a_value_over_a_table_and_a_table_over_a_value(write):
    write("table.toml", "[training]\nseed = 1\n")
    write("value.toml", "training = 3\n")
    assert mistake(["table.toml", "value.toml"]).startswith("value.toml:1:training: 3 is not a table")
    assert preset_files.load(["value.toml", "table.toml"]).preset.training.seed == 1


def test_an_empty_table_changes_nothing(write):
    write("a.toml", "[training]\nseed = 1\n")
    write("b.toml", "[training]\n")
    assert preset_files.load(["a.toml", "b.toml"]).preset.training.seed == 1


# ---- overrides


@pytest.mark.parametrize(
    ("override", "table", "name", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer", "lr", 1e-3),
        ("optimizer.lr=1", "optimizer", "lr", 1.0),
        ("data.source=wikitext-2", "data", "source", "wikitext-2"),
        ('data.source="a b"', "data", "source", "a b"),
        ("data.source=a=b", "data", "source", "a=b"),
        ("data.source=x # y", "data", "source", "x # y"),
        ("data.source=1\nmodel.n_layer=3", "data", "source", "1\nmodel.n_layer=3"),
        ("sampling.prompt=", "sampling", "prompt", ""),
        ("sampling.prompt=def ", "sampling", "prompt", "def "),
        ("data.streaming=true", "data", "streaming", True),
        ('tracking.tags=["a","b"]', "tracking", "tags", ["a", "b"]),
        (" training.seed =7", "training", "seed", 7),
        ("training={seed=8}", "training", "seed", 8),
    ],
)
def test_override_values_are_toml_or_else_strings(override, table, name, value):
    preset = preset_files.load(["default"], [override]).preset
    assert getattr(getattr(preset, table), name) == value


def test_the_last_of_two_overrides_wins():
    assert preset_files.load(["default"], ["training.seed=1", "training.seed=2"]).preset.training.seed == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.seed", '--set training.seed: has no "="; write --set training.seed=VALUE'),
        ("lr=1", "--set lr: 1: there is no such setting; did you mean optimizer.lr?"),
        ("optimizer.lrr=1", "--set optimizer.lrr: 1: there is no such setting; did you mean optimizer.lr?"),
        ("seed=1", "--set seed: 1: there is no such setting; did you mean training.seed or sampling.seed?"),
        (
            "training.eval_iterations=20",
            "--set training.eval_iterations: 20: there is no such setting; did you mean training.eval_tokens?",
        ),
        ("eval_iters=20", "--set eval_iters: 20: there is no such setting; did you mean training.eval_tokens?"),
        (
            "block_size=1",
            "there is no such setting; did you mean model.n_positions and training.sequence_length?",
        ),
        ("training.num_iterations=1e4", "did you mean 10000?"),
        ("data.streaming=True", '"True" is not true or false; write true without quotes'),
        ("data.source=2024", "2024 is not a text"),
        ("training.device=gpu", '"gpu" is not "auto", "cpu", "mps", "cuda" or "cuda:" and a number'),
        (
            "optimizer.name=admw",
            '--set optimizer.name: "admw" is not "adamw" or "muon"; did you mean "adamw"?',
        ),
        ("=1", "there is no such setting"),
        ("model.n_embd=" + "9" * 5000, "--set model.n_embd"),
        ("tracking.tags=" + "[" * 5000, "--set tracking.tags: too long or too deeply nested"),
        (".".join("a" * 5000) + "=1", "too long or too deeply nested"),
        ("sampling.prompt=" + "x" * 40_000, "too long or too deeply nested"),
    ],
)
def test_a_wrong_override_is_reported_in_one_line(override, expected):
    assert expected in mistake(["default"], [override])


# ---- mistakes


def test_all_mistakes_are_reported_at_once_in_order_with_file_line_and_key(write):
    write(
        "bad.toml",
        """
description = 3
[model]
n_embd = 70000
n_heads = 7
[training]
sequence_length = 2048
num_iterations = "many"
[optimizer]
lr = nan
name = "adam"
[modle]
n_layer = 2
""",
    )
    lines = mistakes(["bad.toml"], ["traning.seed=1", "sampling.top_p=0"])
    starts = [
        "--set sampling.top_p: 0 is not a number above 0 and at most 1",
        "--set traning.seed: there is no table [traning]; did you mean [training]?",
        "bad.toml:2:description: 3 is not a text",
        "bad.toml:4:model.n_embd: 70000 is not a whole number from 1 to 65,536",
        "bad.toml:5:model.n_heads: 7: there is no such setting; did you mean model.n_head?",
        "bad.toml:7:training.sequence_length: 2048 is more than model.n_positions = 1024",
        'bad.toml:8:training.num_iterations: "many" is not a whole number from',
        "bad.toml:10:optimizer.lr: nan is not a number above 0 and at most 10",
        'bad.toml:11:optimizer.name: "adam" is not "adamw" or "muon"; did you mean "adamw"?',
        "bad.toml:13:modle.n_layer: there is no table [modle]; did you mean [model]?",
    ]
    assert len(lines) == len(starts)
    for start in starts:
        assert any(line.startswith(start) for line in lines), (start, lines)
    in_file = [int(line.split(":")[1]) for line in lines if line.startswith("bad.toml")]
    assert in_file == sorted(in_file)


def test_mistakes_of_several_unreadable_layers_are_reported_together(write):
    write("syntax.toml", "[model\n")
    lines = mistakes(["syntax.toml", "missing.toml"], ["training.seed"])
    assert [line.partition(":")[0] for line in lines[:3]] == [
        "--set training.seed",
        "syntax.toml",
        "missing.toml",
    ]


def test_malformed_unknown_and_wrong_overrides_are_reported_together():
    lines = mistakes(["small"], ["training.lr=1", "foo=1", "bar", "training.seed=-1"])
    keys = {line.partition(": ")[0] for line in lines}
    assert keys == {"--set bar", "--set training.lr", "--set foo", "--set training.seed"}


def test_an_override_that_is_malformed_hides_no_inconsistency(write):
    write("a.toml", "[model]\nn_positions = 128\n")
    lines = mistakes(["a.toml"], ["bar", "training.sequence_length=512"])
    assert [line.partition(": ")[0] for line in lines] == ["--set bar", "--set training.sequence_length"]


def test_an_unknown_preset_does_not_hide_mistakes_elsewhere(write):
    write("a.toml", "[training]\nsed = 1\n")
    lines = mistakes(["smal", "a.toml"], ["foo.bar=2"])
    assert lines[0] == 'no preset is called "smal"; did you mean small?'
    assert lines[2].startswith("--set foo.bar: there is no table [foo]")
    assert lines[3].startswith("a.toml:2:training.sed: 1: there is no such setting")
    assert "--set foo.bar" in mistakes([], ["foo.bar=2"])[1]


def test_an_unreadable_base_does_not_hide_the_mistakes_of_what_extends_it(write):
    write("base.toml", "[model\n")
    write("top.toml", 'extends = "base.toml"\n[training]\nsed = 1\n')
    first, second = mistakes(["top.toml"])
    assert first.startswith("base.toml:1: not TOML")
    assert second.startswith("top.toml:3:training.sed")


def test_settings_that_an_unreadable_layer_may_have_set_are_not_reported_missing():
    lines = mistakes(["nothing.toml"], ["training.sequence_length=2048"])  # no longer than n_positions may be there
    assert not any("sequence_length" in line for line in lines)


def test_a_value_that_a_later_layer_overrides_is_not_a_mistake_of_the_earlier(write):
    write("a.toml", '[training]\nseed = "x"\n')
    write("b.toml", "\n\n[training]\nseed = -1\n")
    assert mistake(["a.toml", "b.toml"]).startswith("b.toml:4:training.seed: -1 is not")
    assert preset_files.load(["a.toml"], ["training.seed=1"]).preset.training.seed == 1


def test_without_a_sequence_length_the_model_trains_on_its_whole_context(write):
    path = write("a.toml", "[model]\nn_positions = 256\n")
    preset = preset_files.load([path]).preset
    assert preset.training.sequence_length == 256
    assert preset_files.load([path], ["training.sequence_length=64"]).preset.training.sequence_length == 64
    assert setting_values(parse(path, path.read_text())[0])["training.sequence_length"] == 256


def test_an_inconsistency_names_both_places(write):
    write("a.toml", "[training]\nsequence_length = 512\n")
    line = mistake(["a.toml"], ["model.n_positions=128"])
    assert line.startswith("a.toml:2:training.sequence_length: 512 is more than model.n_positions = 128")
    assert line.endswith("(--set sets model.n_positions)")


def test_an_inconsistency_with_a_default_is_reported_at_the_setting_that_was_written(write):
    write("a.toml", "[model]\nn_head = 7\n")
    assert mistake(["a.toml"]).startswith("a.toml:2:model.n_head: model.n_embd, left at its default: 768 is not div")


@pytest.mark.parametrize(
    "text",
    [
        "[model]\nn_embd = 99\nn_head = 0\n",
        '[model]\nn_positions = "x"\n[training]\nsequence_length = 2000\n',
        '[model]\nvocab_size = 300\n[data]\ntokenizer = "bpee"\n',
        "[schedule]\nwarmup_iterations = 20000\n[training]\nnum_iterations = -1\n",
        "[schedule]\nmin_lr = 0.5\n[optimizer]\nlr = -1\n",
        "[training]\nsequence_length = 2000\n",
    ],
)
def test_the_default_in_place_of_a_wrong_value_causes_no_second_mistake(write, text):
    write("a.toml", text)
    assert mistake(["a.toml"]).startswith("a.toml:")


def test_a_mistake_has_its_parts(write):
    write("a.toml", '[optimizer]\nname = "adam"\nlr = 20\n[training]\nsed = 1\nsequence_length = 2048\n')
    with pytest.raises(PresetError) as caught:
        preset_files.load(["a.toml"], ["model.n_positions=512", "bar"])
    bar, name, lr, sed, length = sorted(caught.value.mistakes, key=lambda m: m.place.line or 0)
    assert (bar.key, bar.place, bar.suggestion) == ("bar", Place("--set"), "write --set bar=VALUE")
    assert (name.key, name.value, name.place) == ("optimizer.name", "adam", Place("a.toml", 2))
    assert (name.allowed, name.suggestion) == ('"adamw" or "muon"', 'did you mean "adamw"?')
    assert name.message == '"adam" is not "adamw" or "muon"'
    assert (lr.key, lr.value, lr.allowed, lr.suggestion) == (
        "optimizer.lr",
        20,
        "a number above 0 and at most 10",
        "",
    )
    assert (sed.key, sed.suggestion) == ("training.sed", "did you mean training.seed?")
    assert (length.key, length.partners) == ("training.sequence_length", (("model.n_positions", Place("--set")),))
    assert str(caught.value) == "\n".join(map(str, caught.value.mistakes))


@pytest.mark.parametrize(
    ("content", "line", "suggestion"),
    [(b"[model]\nx = \n", 2, ""), (b"\n\xff", 2, "save the file as UTF-8"), (b"a = " + b"[" * 99, None, "")],
)
def test_a_file_that_cannot_be_read_is_a_mistake_with_its_place(write, content, line, suggestion):
    write("a.toml", content)
    with pytest.raises(PresetError) as caught:
        preset_files.load(["a.toml"])
    (found,) = caught.value.mistakes
    assert (found.key, found.place, found.suggestion) == ("", Place("a.toml", line), suggestion)


@pytest.mark.parametrize(
    ("text", "partner"),
    [
        ('[training]\nprecision = "fp16"\ndevice = "cpu"\n', "training.device"),
        ('[model]\nvocab_size = 300\n[data]\ntokenizer = "gpt2"\n', "data.tokenizer"),
        ('[data]\nstreaming = true\ntokenizer = "char"\n', "data.streaming"),
        ("[schedule]\nwarmup_iterations = 9\n[training]\nnum_iterations = 8\n", "training.num_iterations"),
        ("[schedule]\nmin_lr = 1.0\n[optimizer]\nlr = 0.5\n", "optimizer.lr"),
        ("[model]\nn_embd = 10\nn_head = 3\n", "model.n_head"),
    ],
)
def test_every_inconsistency_names_its_partner_and_where_it_was_set(write, text, partner):
    write("a.toml", text)
    line = next(at for at, row in enumerate(text.splitlines(), 1) if row.startswith(partner.rpartition(".")[2]))
    assert mistake(["a.toml"]).endswith(f" (a.toml:{line} sets {partner})")


def test_very_many_mistakes_are_cut_off_with_their_number(write):
    write("a.toml", "".join(f"unknown{i} = 1\n" for i in range(1500)))
    lines = mistakes(["a.toml"])
    assert len(lines) == 101
    assert lines[0].startswith("a.toml:1:unknown0:")
    assert lines[-1] == "... and 1,400 more mistakes"


def test_messages_have_no_control_characters(write):
    write("a.toml", '"\\u001b]52;c;x\\u0007" = 1\n[data]\ntokenizer = "\\u001b[31m\\u202e\\n"\n')
    text = "\n".join(mistakes(["a.toml"], ["\x1b[2J=1", "\x9b1m.x"]))
    assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[model]\nn_embd = \n", "bad.toml:2: not TOML: "),
        (b"[model", "bad.toml:1: not TOML: "),
        (b"[model]\nn_embd = 1\nn_embd = 2\n", "bad.toml:3: not TOML: "),
        (b"[model]\nn_embd = '''\n", "bad.toml:3: not TOML: "),
        (b"\n# \xff\xfe", "bad.toml:2: not UTF-8"),
        ("x = 1".encode("utf-16"), "bad.toml:1: not UTF-8"),
        (b"#" * (32 * 1024 + 1), "bad.toml: larger than 32 KiB"),
        (b"a." * 16_000 + b"a = 1", "bad.toml: nested deeper than 16"),
        (b"[" + b"a." * 10_000 + b"a]", "bad.toml: nested deeper than 16"),
        (b"a = " + b"[" * 5_000, "bad.toml: nested deeper than 16"),
        (b"a = " + b"{a=" * 5_000, "bad.toml: nested deeper than 16"),
        (b"model.n_embd = " + b"9" * 10_000, "bad.toml: holds a number too long"),
        (b"model.n_embd = 0x" + b"f" * 10_000, "bad.toml:1:model.n_embd: an integer of more than 40 digits"),
        (b"optimizer.lr = 1" + b"0" * 400, "bad.toml:1:optimizer.lr: an integer of more than 40 digits"),
        (b"optimizer.lr = 1e999", "bad.toml:1:optimizer.lr: inf is not a number"),
        (b"optimizer.lr = -inf", "bad.toml:1:optimizer.lr: -inf is not a number"),
        (b"training.seed = 2020-01-01", "bad.toml:1:training.seed: 2020-01-01 is not a whole number"),
        (b"training.seed = {a = {b = 1}}", "bad.toml:1:training.seed: a table is not a whole number"),
        (b"tracking.tags = ['a', 1]", "bad.toml:1:tracking.tags: 1 is not a list of texts"),
        (b"[[model]]\nn_embd = 1", "bad.toml:1:model: a list of 1 is not a table"),
        (b"[model]\nextends = 'small'", "bad.toml:2:model.extends: "),
    ],
)
def test_a_bad_file_is_reported_in_one_line(write, content, expected):
    write("bad.toml", content)
    assert mistake(["bad.toml"]).startswith(expected)


def test_a_folder_a_pipe_and_an_unreadable_name_are_refused(own_folders):
    (own_folders / "folder.toml").mkdir()
    assert "this is a folder" in mistake(["folder.toml"])
    assert "cannot be read" in mistake(["x" * 5000 + ".toml"])
    if hasattr(os, "mkfifo"):
        os.mkfifo(own_folders / "pipe.toml")
        assert "not a regular file" in mistake(["pipe.toml"])


def test_a_byte_order_mark_and_crlf_are_read(write):
    write("windows.toml", b"\xef\xbb\xbf[training]\r\nseed = 5\r\nbatch_size = 0\r\n")
    assert mistake(["windows.toml"]).startswith("windows.toml:3:training.batch_size")


def test_random_damage_to_a_preset_is_a_clear_error_or_no_error(write):
    rng = random.Random(0)
    text = (preset_files.shipped_folder() / "small.toml").read_bytes()
    messages = []
    for _ in range(300):
        damaged = bytearray(text)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(damaged))
            damaged[at : at + rng.randint(0, 3)] = rng.choice(
                [b"", b"[", b'"', b"'''", b"=", b"\xff", b"9e99", b".", b"\\"]
            )
        write("damaged.toml", bytes(damaged))
        try:
            preset_files.load(["damaged.toml"])
        except PresetError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(message.startswith("damaged.toml:") for message in messages)


# ---- frozen presets


def frozen_mistake(path):
    with pytest.raises(CheckpointError) as caught:
        preset_files.load_frozen(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def test_a_frozen_preset_is_read_as_it_was_written(tmp_path):
    preset = preset_files.load(["small"]).preset
    preset_files.save(preset, tmp_path / "preset.toml")
    assert preset_files.load_frozen(tmp_path / "preset.toml") == preset


def test_a_frozen_preset_reads_no_other_file(tmp_path):
    (tmp_path / "base.toml").write_text("[model\n")
    path = tmp_path / "preset.toml"
    path.write_text('\nextends = "base.toml"\n')
    message = frozen_mistake(path)
    assert f"{path}:2:extends: a frozen preset is complete and extends nothing" in message
    assert "base.toml:" not in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "is missing"),
        (b"[model\n", "preset.toml:1: not TOML"),
        (b"\xff", "preset.toml:1: not UTF-8"),
        (b"[training]\nseed = -1\nsed = 1\n", "preset.toml:3:training.sed"),
        (b"[model]\nn_head = 7\n", "not divisible"),
        (b"[extends]\na = 1\n", "preset.toml:1:extends"),
    ],
)
def test_a_damaged_frozen_preset_is_a_checkpoint_error_with_all_mistakes(tmp_path, content, expected):
    path = tmp_path / "preset.toml"
    if content is not None:
        path.write_bytes(content)
    assert expected in frozen_mistake(path)


# ---- positions


def test_keys_are_found_on_their_lines():
    text = """a = 1 # [x]
b.c = "=" # d = 2

[t]
'x.y' = '''
[no]
n = 1
'''
list = [ # ]
  "]",
  {k = 1},
]
[[many]]
q = {r = 1, s.t = 2}
"""
    assert key_lines(text) == {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 2,
        ("t",): 4,
        ("t", "x.y"): 5,
        ("t", "list"): 9,
        ("many",): 13,
        ("many", "q"): 14,
        ("many", "q", "r"): 14,
        ("many", "q", "s"): 14,
        ("many", "q", "s", "t"): 14,
    }


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("a = 1.5", 1),
        ("a.b.c = 1", 2),
        ("a = [[1], [2]]", 2),
        ("a = '[[['", 0),
        ("# [[[", 0),
        ("a = {b = [1]}", 2),
    ],
)
def test_nesting_counts_structure_and_not_text(text, depth):
    assert nesting_depth(text) == depth


@pytest.mark.parametrize("source", preset_files.available(), ids=lambda source: source.name)
def test_every_setting_of_a_shipped_preset_is_found_on_its_line(source):
    text = source.path.read_text(encoding="utf-8")
    lines = text.splitlines()
    located = key_lines(text)
    for table, values in tomllib.loads(text).items():
        for key in values if isinstance(values, dict) else [table]:
            path = (table, key) if isinstance(values, dict) else (table,)
            assert lines[located[path] - 1].startswith(f"{key} = ")


# ---- writing


@pytest.mark.parametrize("source", preset_files.available(), ids=lambda source: source.name)
def test_a_preset_survives_being_written_and_read(source, tmp_path):
    preset = preset_files.load([source.path]).preset
    path = tmp_path / "again.toml"
    preset_files.save(preset, path)
    assert preset_files.check(path).preset == preset
    assert path.read_text(encoding="utf-8") == preset_files.dumps(preset)


def test_texts_of_any_characters_survive(tmp_path):
    texts = {"prompt": 'def "\'\\\n\t\x00\x7f\r\n"""é漢\u202e🙂'}
    preset = Preset.model_validate({"description": "'''", "sampling": texts})
    preset_files.save(preset, tmp_path / "p.toml")
    assert preset_files.check(tmp_path / "p.toml").preset == preset


def test_dumps_starts_with_the_description_and_leaves_out_none():
    text = preset_files.dumps(Preset(description="what for"))
    assert text.startswith('description = "what for"\n\n[model]\n')
    assert "vocab_size" not in text
    assert "sample_frequency" not in text


def test_save_replaces_in_one_step_and_leaves_no_other_file(tmp_path):
    folder = tmp_path / "new" / "presets"
    preset_files.save(Preset(), folder / "mine.toml")
    preset_files.save(Preset(description="second"), folder / "mine.toml")
    assert [path.name for path in folder.iterdir()] == ["mine.toml"]
    assert preset_files.check(folder / "mine.toml").preset.description == "second"


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "mine.toml"
    preset_files.save(Preset(description="first"), path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        preset_files.save(Preset(description="second"), path)
    assert preset_files.check(path).preset.description == "first"
    assert not list(tmp_path.glob(".*.tmp"))


def test_shipped_presets_are_never_written(tmp_path):
    path = preset_files.shipped_folder() / "small.toml"
    before = path.read_bytes()
    (tmp_path / "link.toml").symlink_to(path)
    for target in (path, tmp_path / "link.toml", path.parent / "new.toml"):
        with pytest.raises(PresetError, match="shipped"):
            preset_files.save(Preset(), target)
    assert path.read_bytes() == before
    assert not (path.parent / "new.toml").exists()


def test_saving_to_a_folder_is_a_clear_error(tmp_path):
    with pytest.raises(ResourceError, match="cannot be written"):
        preset_files.save(Preset(), tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_saved_preset_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "other").touch()
    preset_files.save(Preset(), tmp_path / "mine.toml")
    assert stat.S_IMODE((tmp_path / "mine.toml").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_preset_too_large_to_be_read_again_is_neither_loaded_nor_saved(write, tmp_path):
    preset = Preset.model_validate({"sampling": {"prompt": "x" * 40_000}})
    with pytest.raises(PresetError, match=r"would have 4\d,\d{3} bytes"):
        preset_files.save(preset, tmp_path / "large.toml")
    write("a.toml", f'[sampling]\nprompt = "{"p" * 30_000}"\n')
    write("b.toml", f'description = "{"d" * 9_000}"\n')
    assert "at most 32,768 are allowed" in mistake(["a.toml", "b.toml"])


# ---- settings and the JSON schema


def test_settings_describe_every_field():
    keys = [setting.key for setting in preset_files.settings()]
    kinds = {table: (field.annotation, *get_args(field.annotation)) for table, field in Preset.model_fields.items()}
    fields = {"description", *optional_tables()} | {
        f"{table}.{name}"
        for table, alternatives in kinds.items()
        for kind in alternatives
        if hasattr(kind, "model_fields")
        for name in kind.model_fields
    }
    assert set(keys) == fields
    assert len(keys) == len(fields)
    assert all(setting.help.endswith((".", "…")) and "\n" not in setting.help for setting in preset_files.settings())


@pytest.mark.parametrize(
    ("key", "allowed", "default"),
    [
        ("model.vocab_size", "a whole number from 2 to 1,000,000 (tokens)", None),
        ("optimizer.lr", "a number above 0 and at most 10", 3e-4),
        ("optimizer.beta1", "a number of at least 0 and below 1", 0.9),
        ("optimizer.name", '"adamw" or "muon"', "adamw"),
        ("data.streaming", "true or false", False),
        ("data.source", "a text of at least 1 and at most 4,096 characters", "python-stdlib"),
        ("tracking.tags", "a list of texts of at most 64 entries", []),
    ],
)
def test_settings_say_what_is_allowed(key, allowed, default):
    (setting,) = [setting for setting in preset_files.settings() if setting.key == key]
    assert setting.allowed == allowed
    assert setting.default == default


def test_the_json_schema_is_json_and_knows_units_bounds_and_extends():
    schema = json.loads(json.dumps(preset_files.json_schema()))
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["properties"]["extends"]["type"] == "string"
    vocab_size = schema["$defs"]["ModelTable"]["properties"]["vocab_size"]
    assert vocab_size["anyOf"][1] == {"const": "auto"}
    vocab_size = {**vocab_size, **vocab_size["anyOf"][0]}
    assert (vocab_size["type"], vocab_size["maximum"], vocab_size["unit"]) == ("integer", 1_000_000, "tokens")
    assert "null" not in json.dumps(schema)
    assert schema["additionalProperties"] is False


def test_toml_dates_and_times_are_shown_as_written(write):
    write("a.toml", "training.seed = 07:32:00\n")
    assert str(datetime.time(7, 32)) in mistake(["a.toml"])


@pytest.mark.parametrize(
    ("project", "tags"), [(f"a{character}b", []) for character in "/\\#?%:"] + [("a", [""]), ("a", ["ok", "x" * 65])]
)
def test_names_that_wandb_refuses_are_mistakes_of_a_preset_that_uses_it(project, tags):
    """W&B's own settings say which names these are."""
    wandb = pytest.importorskip("wandb")
    with pytest.raises(Exception, match=r"project name|Tags must be"):
        wandb.Settings(project=project, run_tags=tags)
    overrides = [f"tracking.project='{project}'", f"tracking.tags={tags}"]
    preset_files.load(["test"], overrides)
    with pytest.raises(PresetError) as caught:
        preset_files.load(["test"], [*overrides, "tracking.wandb=offline"])
    (mistake,) = caught.value.mistakes
    assert mistake.key == ("tracking.tags" if tags else "tracking.project")
    assert "W&B" in mistake.message
