"""What is answered to words and options that are not quite those of the command line, with the corrected command."""

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from gpt2tui.cli import build_parser, parse
from gpt2tui.errors import CheckpointError, PresetError, UsageError
from gpt2tui.evaluation.request import chosen_tasks
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import settings


def refused(*words):
    """The usage and the message of a refused command line."""
    errors = io.StringIO()
    with pytest.raises(SystemExit) as caught, contextlib.redirect_stderr(errors):
        parse(list(words))
    assert caught.value.code == 2
    return errors.getvalue()


def answers(text):
    return refused(*shlex.split(text))


@pytest.mark.parametrize(
    ("words", "corrected"),
    [
        ("--lr 1e-3", "gpt2tui train PRESET optimizer.lr=1e-3"),
        ("--lr=1e-3", "gpt2tui train PRESET optimizer.lr=1e-3"),
        ("train small --lr 1e-3 --seed 3", "gpt2tui train small optimizer.lr=1e-3 --seed 3"),
        ("train small --batch_size 8", "gpt2tui train small training.batch_size=8"),
        ("--headless --preset small --lr 1e-3", "gpt2tui --headless --preset small --set optimizer.lr=1e-3"),
        ("--headless --preset small --optimizer.lr 1", "gpt2tui --headless --preset small --set optimizer.lr=1"),
        ("train small --learning-rate 1", "gpt2tui train small optimizer.lr=1"),
        ("train small --max_iters 9", "gpt2tui train small training.num_iterations=9"),
        ("train small --n_layers 3", "gpt2tui train small model.n_layer=3"),
        ("train small --block_size 64", "gpt2tui train small model.n_positions=64 training.sequence_length=64"),
        ("train small --streaming", "gpt2tui train small data.streaming=VALUE"),
        ("bench --lr 1", "gpt2tui bench --set optimizer.lr=1"),
        ("small", "gpt2tui train small"),
        ("small", "gpt2tui --preset small"),
        ("small --dry-run", "gpt2tui train small --dry-run"),
        ("--headless small", "gpt2tui train small"),
        ("list", "gpt2tui runs list"),
        ("list", "gpt2tui presets list"),
        ("show small", "gpt2tui presets show small"),
        ("rename a b", "gpt2tui runs rename a b"),
        ("preset list", "gpt2tui presets list"),
        ("run list", "gpt2tui runs list"),
        ("runs lst", "gpt2tui runs list"),
        ("runs rm a", "gpt2tui runs delete a"),
        ("presets validate x.toml", "gpt2tui presets check x.toml"),
        ("generate latest", "gpt2tui sample latest"),
        ("chat", "gpt2tui sample latest"),
        ("evaluate latest --json", "gpt2tui eval latest --json"),
        ("smaple latest", "gpt2tui sample latest"),
        ("optimizer.lr=1", "gpt2tui train PRESET optimizer.lr=1"),
        ("optimizer.lr=1 train small", "gpt2tui train small optimizer.lr=1"),
        ("--preset small --headless optimizer.lr=1", "gpt2tui --preset small --headless --set optimizer.lr=1"),
        ("--headless --preset small --set k = v", "gpt2tui --headless --preset small --set k=v"),
        ("train small optimizer.lr = 3 --seed 1", "gpt2tui train small optimizer.lr=3 --seed 1"),
        ("train small optimizer.lr= 3", None),
        ("sample latest --length 5", "gpt2tui sample latest --max-length 5"),
        ("sample latest --top_q 5", "gpt2tui sample latest --top-p 5"),
        ("sample latest --temp 1", "gpt2tui sample latest --temperature 1"),
        ("sample latest --max_new_tokens 5", "gpt2tui sample latest --max-length 5"),
        ("export latest --onnx --to x", "gpt2tui export latest --format onnx --to x"),
        ("train test --steps 10", "gpt2tui train test training.num_iterations=10"),
        ("runs list --reverse", "--sort -KEY"),
        ("runs export latest --pdf", "--png FILE or --svg FILE"),
        ("runs", "name an action: list, show, "),
        ("presets --jso", "no option --jso"),
        ("sample latest --temperature 0,8", '"0,8" is not a number; write 0.8'),
        ("runs list --sorted val", "gpt2tui runs list --sort val"),
        ("--devices 2", "training.device=cuda:1"),
        ("train small --gpus 8", "training.device=cuda:1"),
        ("--resume latest --lr 3", "gpt2tui --resume latest --set optimizer.lr=3"),
        ("resume latest", "gpt2tui train --resume RUN"),
    ],
)
def test_the_corrected_command_is_named(words, corrected):
    if corrected is None:
        assert parse(shlex.split(words)).overrides == ["optimizer.lr="]
        return
    assert corrected in answers(words)


@pytest.mark.slow
def test_every_setting_written_as_an_option_is_answered_with_its_key():
    options = build_parser().commands["train"].options
    for setting in settings():
        name = f"--{setting.key.rpartition('.')[2]}"
        if setting.is_table or name in options or name.replace("_", "-") in options or setting.key == "description":
            continue
        assert f"{setting.key}=7" in answers(f"train small {name} 7"), setting.key


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("finetune notes", "gpt2tui tune FOLDER_OR_FILE"),
        ("fine-tune notes", "did you mean gpt2tui tune notes?"),
        ("merge latest", "gpt2tui export RUN --merge --to FOLDER"),
        ("tune notes --epochs 3", "counted in steps, training.num_iterations"),
        ("tune --data notes", "the first word of gpt2tui tune"),
        ("train small --data notes", "data.source=FOLDER_OR_FILE"),
        ("tune notes --output-dir x", "--run-dir DIR"),
        ("tune notes --lora", "gpt2tui tune notes --set lora=true"),
        ("tune notes --init-from latest", "model.init_from=latest"),
    ],
)
def test_the_words_of_other_programs_for_fine_tuning_are_answered(words, answer, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(shlex.split(words))
    assert caught.value.code == 2
    assert answer in capsys.readouterr().err


def test_a_text_in_place_of_a_preset_is_answered_with_the_setting(tmp_path):
    for name, content in (("mine.txt", "The quick brown fox.\n"), ("long.txt", "a" * 40_000), ("latin.csv", "caf\xe9")):
        path = tmp_path / name
        path.write_text(content, encoding="latin-1")
        with pytest.raises(PresetError, match=rf"data\.source=.*{name}"):
            preset_files.load(["small", str(path)])


def test_a_text_or_a_table_in_place_of_a_task_or_run_is_answered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("x")
    with pytest.raises(UsageError, match=r"--text mine\.txt"):
        chosen_tasks(["mine.txt"])
    options = parse(["runs", "export", "latest", "--csv", "c.csv"])
    with pytest.raises(UsageError, match=r"--csv --to c\.csv"):
        options.command(options)


@pytest.mark.parametrize("words", [["sample"], ["eval"], ["export", "--to", "x"]])
def test_a_name_that_means_no_model_is_refused_before_torch_is_imported(words, monkeypatch):
    for name in ("generation", "export.writing", "export.onnx_runtime"):
        monkeypatch.setitem(sys.modules, f"gpt2tui.{name}", None)  # importing it is an error
    options = parse([*words[:1], "smal", *words[1:]])
    with pytest.raises(CheckpointError, match="there is no run smal"):
        options.command(options)


def test_presets_are_layers_in_the_order_in_which_they_are_typed():
    for words, presets in (
        ("train test --preset small", ["test", "small"]),
        ("train --preset=small test", ["small", "test"]),
        ("train a.toml --preset small b.toml --preset c.toml", ["a.toml", "small", "b.toml", "c.toml"]),
    ):
        assert parse(words.split()).preset == presets


def test_a_folder_in_place_of_a_preset_is_a_text():
    with pytest.raises(PresetError, match=r"a text to train on is a setting, data\.source="):
        preset_files.load(["small", str(Path(__file__).parent)])


def test_the_model_of_tune_and_the_prompt_of_sample_may_be_written_as_elsewhere():
    assert parse(["tune", "notes", "--model", "small"]).base == "small"
    options = parse(["sample", "latest", "def"])
    assert (options.checkpoint, options.text, options.prompt) == ("latest", "def", None)
    options = parse(["sample", "latest", "def", "--prompt", "x"])
    with pytest.raises(UsageError, match="either TEXT or --prompt TEXT"):
        options.command(options)


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("sample x --nope 5", "usage: gpt2tui sample "),
        ("sample x --top-k five", "usage: gpt2tui sample "),
        ("sample x --top-k", "usage: gpt2tui sample "),
        ("runs list --nope", "usage: gpt2tui runs list "),
        ("presets check", "usage: gpt2tui presets check "),
        ("train --nope", "usage: gpt2tui train "),
        ("runs nope", "usage: gpt2tui runs "),
        ("nope", "usage: gpt2tui ["),
    ],
)
def test_an_error_has_the_usage_of_its_own_command(words, usage):
    assert answers(words).startswith(usage)


def test_no_word_is_taken_for_the_value_of_an_option():
    """The message about an unknown option names it, and not the word after it."""
    for words in ("--nope 1e-3", "--nope small", "train small --nope 3", "sample x --nope 3"):
        assert "there is no option --nope" in answers(words)


def test_words_and_options_of_train_come_in_any_order():
    wanted = parse(["--headless", "--preset", "small", "--preset", "a.toml", "--set", "optimizer.lr=1", "--dry-run"])
    for words in (
        "train small a.toml optimizer.lr=1 --dry-run",
        "train --dry-run optimizer.lr=1 small a.toml",
        "train small --dry_run a.toml optimizer.lr=1",
        "train --preset small a.toml --set optimizer.lr=1 --dry-run",
    ):
        options = parse(shlex.split(words))
        for name in ("headless", "preset", "overrides", "dry_run", "resume", "run_dir"):
            assert getattr(options, name) == getattr(wanted, name), (words, name)


def test_the_seed_is_a_setting_and_a_file_with_an_equals_sign_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1.toml").touch()
    options = parse(["train", "lr=1.toml", "--seed", "3"])
    assert (options.preset, options.overrides) == (["lr=1.toml"], ["training.seed=3"])


def test_a_value_may_begin_with_a_hyphen():
    assert parse(["sample", "x", "--temperature", "-1"]).temperature == -1
    assert parse(["runs", "list", "--sort", "-val_loss"]).sort == "-val_loss"
    assert parse(["sample", "--", "-x"]).checkpoint == "-x"


@pytest.mark.parametrize("words", ["help", "help sample", "help runs list", "version", "-V", "sample x --help"])
def test_help_and_version_are_words_too(words, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(shlex.split(words))
    assert caught.value.code == 0
    output = capsys.readouterr().out
    named = words.replace("help", "").replace("--", "").replace(" x", "").split()
    assert output.startswith("gpt2tui " if words in ("version", "-V") else f"usage: {' '.join(['gpt2tui', *named])} ")


def test_the_defaults_in_the_help_are_those_of_the_schema(capsys):
    with pytest.raises(SystemExit):
        parse(["sample", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for setting in settings():
        if setting.key.startswith("sampling.") and setting.key != "sampling.prompt":
            option = f"--{setting.key.partition('.')[2].replace('_', '-')}"
            shown = re.search(
                rf"{option} [A-Z] .*?\(default: the run's own, else ([^)]*)\)", text.partition("options:")[2]
            )
            assert float(shown[1]) == setting.default, option


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train small --name a --run-dir b", "--name and --run-dir exclude each other"),
        ("train --resume a --name b", "--name and --resume exclude each other"),
        ("--name a", "--name needs --headless or the command train"),
        ("train small --toml", "--toml needs --dry-run"),
        ("train small --json", "--json without a command needs --dry-run"),
    ],
)
def test_options_without_an_effect_together_are_refused(words, message):
    assert message in answers(words)
