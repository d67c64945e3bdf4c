"""The command line as scripts and people see it: its exit code and its two streams.

Most commands run in this process, which has imported torch already; signals, kills and imports need one of their own.
"""

import io
import json
import os
import re
import subprocess
import sys
import tomllib

import pytest

from gpt2tui.preset import files as preset_files
from gpt2tui.run import folder as runs
from tests import tiny_runs
from tests.commands.command_line import JSONL, clear_message, command, gpt2tui, train_arguments


def test_stdout_in_jsonl_equals_the_file(trained):
    run, result = trained
    lines = result.stdout.splitlines()
    assert lines == (run / "events.jsonl").read_text().splitlines()
    names = [json.loads(line)["event"] for line in lines]
    assert names[0] == "run_started"
    assert names[-1] == "run_finished"
    assert names.count("step") == 12


def test_a_run_folder_holds_what_the_contract_says(trained):
    run, _ = trained
    assert {"preset.toml", "events.jsonl", "run.json", "tokenizer.json", "checkpoints"} <= {
        p.name for p in run.iterdir()
    }
    frozen = preset_files.check(run / "preset.toml").preset
    assert frozen.model.vocab_size == 257
    newest = run / "checkpoints" / "step-00000012"
    state = {"training_state.safetensors", "trainer.json", "preset.toml", "MANIFEST.json"}
    loadable = {"model.safetensors", "config.json", "tokenizer.json"}
    assert state | loadable <= {p.name for p in newest.iterdir()}
    assert not [p for p in run.rglob("*") if p.suffix in (".pt", ".pkl", ".bin")]


def test_the_log_is_text_in_a_pipe_too(tmp_path):
    result = gpt2tui(*(word for word in train_arguments(tmp_path) if word not in JSONL))
    assert result.returncode == 0
    assert "bits/byte" in result.stdout
    assert "\x1b" not in result.stdout


def test_eval_agrees_with_the_runs_last_evaluation(trained):
    run, result = trained
    evaluated = [e for e in map(json.loads, result.stdout.splitlines()) if e["event"] == "evaluated"][-1]
    measured = json.loads(gpt2tui("eval", run / "checkpoints" / "step-00000012", "--json").stdout)
    assert set(measured["splits"]) == {"validation"}
    assert measured["splits"]["validation"]["loss"] == pytest.approx(evaluated["val_loss"], rel=1e-5)
    assert measured["splits"]["validation"]["bits_per_byte"] == pytest.approx(evaluated["bits_per_byte"], rel=1e-5)


def test_runs_are_listed_and_shown(trained, monkeypatch):
    run, _ = trained
    monkeypatch.setenv("GPT2TUI_RUNS", str(run.parent))
    listed = json.loads(gpt2tui("runs", "list", "--json").stdout)
    assert [(r["name"], r["state"], r["step"]) for r in listed] == [("run", "finished", 12)]
    header, row = gpt2tui("runs", "list").stdout.splitlines()
    shown = json.loads(gpt2tui("runs", "show", "run", "--json").stdout)
    assert [c["step"] for c in shown["checkpoints"]] == [4, 8, 12]
    (line,) = [line for line in gpt2tui("runs", "show", run).stdout.splitlines() if line.startswith("bits/byte")]
    bits, xz, after = (shown[f"{key}bits_per_byte"] for key in ("", "xz_", "xz_after_training_"))
    assert (listed[0]["bits_per_byte"], listed[0]["xz_bits_per_byte"]) == (bits, xz)
    assert row.split()[:2] == ["run", "finished"]
    assert row[: header.index("ratio to xz") + len("ratio to xz")].split()[-2:] == [f"{bits:.3f}", f"{bits / xz:.2f}"]
    figures = f"xz {xz:.2f}, ratio {bits / xz:.2f}; after the training text {after:.2f}, ratio {bits / after:.2f}"
    assert line.split() == ["bits/byte", f"{bits:.3f}", *figures.split()]
    assert "did you mean run" in clear_message(gpt2tui("runs", "show", "rum"), 2)


def test_a_folder_of_the_user_survives_a_run_that_fails_before_it_begins(tmp_path):
    (tmp_path / "mine").mkdir()
    arguments = ["--headless", "--preset", "test", "--set", "data.source=/nope.txt", "--run-dir", tmp_path / "mine"]
    clear_message(gpt2tui(*arguments), 3)
    assert (tmp_path / "mine").is_dir()


@pytest.mark.slow
def test_output_that_cannot_be_written_is_no_traceback():
    full = subprocess.run(
        ["sh", "-c", 'exec "$@" > /dev/full', "sh", *command("presets", "show", "small")],
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in full.stderr
    assert full.returncode == 6
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command("presets", "list")], capture_output=True, text=True
    )
    assert "Traceback" not in closed.stderr
    ascii_only = subprocess.run(
        command("presets", "show", "é"), capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert ascii_only.returncode == 2
    assert b"Traceback" not in ascii_only.stderr


def test_an_unknown_device_is_a_usage_error(trained):
    assert "not a device" in clear_message(gpt2tui("sample", trained[0], "--device", "foo"), 2)


def test_a_run_without_a_valid_checkpoint_says_why(trained, tmp_path):
    import shutil

    run, _ = trained
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for path in copy.glob("checkpoints/*/model.safetensors"):
        os.truncate(path, 50)
    message = clear_message(gpt2tui("--headless", "--resume", copy), 4)
    assert "model.safetensors has 50 bytes" in message
    assert "no valid checkpoint" in clear_message(gpt2tui("sample", copy), 4)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--headless", "--preset", "smal"], 2, "did you mean small"),
        (["train", "smal"], 2, "did you mean small"),
        (["train"], 2, "gpt2tui train PRESET"),
        (["train", "small", "lr=1"], 2, "did you mean optimizer.lr"),
        (["--dry-run"], 2, "no preset is named"),
        (["train", "small", "--name", "a/b"], 2, "cannot be the name of a run"),
        (["--headless"], 2, "--preset"),
        (["--headless", "--preset", "test", "--set", "training.batchsize=2"], 2, "training.batch_size"),
        (["--headless", "--preset", "test", "--set", "training.sequence_length=4096"], 2, "n_positions"),
        (["--headless", "--preset", "test", "--set", "data.source=/no/such/folder"], 3, "/no/such/folder"),
        (["--headless", "--preset", "test", "--set", "training.device=cuda:9"], 6, "CUDA"),
        (["--headless", "--resume", "nothing"], 2, "no run nothing"),
        (["sample", "./nothing"], 4, "no checkpoint"),
        (["presets", "show", "smal"], 2, "did you mean small"),
        (["runs", "show", "nothing"], 2, "no run nothing"),
    ],
)
def test_bad_input_is_one_clear_message_and_its_exit_code(tmp_path, arguments, code, words):
    assert words in clear_message(gpt2tui(*arguments, cwd=tmp_path), code)
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--preset small sample RUN", "--preset small has no effect before the command sample"),
        ("--preset=small --headless runs list", "--preset=small --headless has no effect before the command runs"),
        ("--seed 3 runs list", "see gpt2tui runs --help"),
        ("--set x=1 presets show small", "write options after their command: gpt2tui presets show small --set x=1"),
        ("--resume runs attach r", "see gpt2tui attach --help"),
        ("--dry-run serve", "see gpt2tui serve --help"),
        ("--json runs list", "write options after their command: gpt2tui runs list --json"),
        ("--seed 3 sample RUN", "write options after their command: gpt2tui sample RUN --seed 3"),
        ("--preset small bench", "write options after their command: gpt2tui bench --preset small"),
        ("--device cpu eval RUN", "write options after their command: gpt2tui eval RUN --device cpu"),
    ],
)
def test_options_before_a_command_are_refused_with_the_corrected_command(words, hint):
    assert hint in clear_message(gpt2tui(*words.split()), 2)


@pytest.mark.parametrize("command", ["sample", "eval", "presets", "runs", "attach", "serve", "bench"])
@pytest.mark.parametrize("option", ["headless", "preset=x", "set=a=b", "run-dir=d", "resume=r", "dry-run", "json"])
def test_no_training_option_is_ignored_before_a_command(option, command):
    assert f"no effect before the command {command}" in clear_message(gpt2tui(f"--{option}", command), 2)


def test_options_may_be_written_with_hyphens_or_underscores(tmp_path):
    words = ["--headless", "--dry_run", "--preset", "test", "--set", "training.batch_size=3", "--set=training.seed=4"]
    document = json.loads(gpt2tui(*words, "--json", cwd=tmp_path).stdout)
    assert document["resolved"]["training"]["batch_size"] == 3
    assert "--num_samples" not in clear_message(gpt2tui("sample", "nothing", "--num_samples=2"), 4)
    assert "training.batch__size" in clear_message(
        gpt2tui("--headless", "--preset=test", "--set=training.batch__size=3"), 2
    )


def test_a_value_with_the_name_of_a_command_is_a_value(tmp_path):
    assert "there is no run runs" in clear_message(gpt2tui("--resume", "runs", "--headless", cwd=tmp_path), 2)


@pytest.mark.parametrize("words", [["--json"], ["--headless", "--json"], ["--log-format", "jsonl"]])
def test_an_option_that_would_have_no_effect_without_a_command_is_refused(words):
    assert "needs --" in clear_message(gpt2tui("--preset", "test", *words), 2)


def test_a_pickle_is_refused_as_a_checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80\x04.")
    assert "can run code" in clear_message(gpt2tui("sample", path), 4)


def test_dry_run_reports_the_cost_and_writes_no_files(tmp_path):
    result = gpt2tui(*train_arguments(tmp_path), "--dry-run", "--json")
    document = json.loads(result.stdout)
    assert document["estimate"]["parameters"]["total"] == 257 * 16 + 16 * 16 + 2 * (12 * 256 + 13 * 16) + 2 * 16
    assert document["resolved"]["training"]["batch_size"] == 2
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", [source.name for source in preset_files.available() if source.shipped])
def test_every_shipped_preset_dry_runs_without_a_network(name, tmp_path):
    result = gpt2tui("--headless", "--dry-run", "--preset", name, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "parameters" in result.stdout
    assert "Traceback" not in result.stderr


def test_presets_are_listed_shown_checked_and_described(tmp_path):
    names = {row["name"] for row in json.loads(gpt2tui("presets", "list", "--json").stdout)}
    assert {
        "test",
        "small",
        "default",
        "bigger_default",
        "shakespeare-char",
        "gpt2-124m",
        "gpt2-1558m",
    } <= names
    shown = tmp_path / "shown.toml"
    shown.write_text(gpt2tui("presets", "show", "small").stdout)
    assert gpt2tui("presets", "check", shown).returncode == 0
    by_name = gpt2tui("presets", "check", "gpt2-124m")
    assert by_name.returncode == 0
    assert "valid preset: 124,439,808 parameters" in by_name.stderr
    assert json.loads(gpt2tui("presets", "schema").stdout)["title"] == "gpt2tui preset"
    shown.write_text("[training]\nbatch_size = 0\nsed = 1\n")
    message = clear_message(gpt2tui("presets", "check", shown), 2)
    assert "shown.toml:2:" in message
    assert "shown.toml:3:" in message


def test_checking_several_presets_reports_all_mistakes_also_in_parts(tmp_path):
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text("[training]\nbatch_size = 0\nstarted = 2020-01-01\n")
    second.write_text("[model]\nn_embd = 10\nn_head = 3\n")
    result = gpt2tui("presets", "check", first, "small", second, "--json")
    message = clear_message(result, 2)
    assert all(f"{name}.toml:2:" in message for name in ("first", "second"))
    rows = json.loads(result.stdout)
    assert [row["valid"] for row in rows] == [False, True, False]
    assert rows[0]["mistakes"][0] == {
        "key": "training.batch_size",
        "value": "0",
        "allowed": "a whole number from 1 to 65,536 (sequences)",
        "message": "0 is not a whole number from 1 to 65,536 (sequences)",
        "suggestion": None,
        "file": str(first),
        "line": 2,
        "partners": [],
    }
    assert rows[0]["mistakes"][1]["value"] == "2020-01-01"
    assert rows[2]["mistakes"][0]["partners"] == [{"key": "model.n_head", "file": str(second), "line": 3}]


def test_help_and_version_need_nothing_heavy():
    code = """
import sys
from gpt2tui.__main__ import main
try:
    main(["--help"])
except SystemExit:
    pass
heavy = {"torch", "datasets", "transformers", "wandb", "textual", "numpy", "rich", "pydantic"}
print(heavy & set(sys.modules), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--headless" in result.stdout
    assert result.stderr.strip() == "set()"
    assert gpt2tui("--version").stdout.startswith("gpt2tui ")


def test_the_tab_key_offers_preset_names(tmp_path):
    line, answer = "gpt2tui --headless --preset sm", tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
    }
    subprocess.run(command(), env={**os.environ, **asked}, check=True)
    assert "small" in answer.read_text()


@pytest.mark.slow
def test_wandb_offline_writes_beside_the_run(tmp_path):
    run = tmp_path / "run"
    result = gpt2tui(*train_arguments(tmp_path, "tracking.wandb=offline"), "--run-dir", run)
    assert result.returncode == 0, result.stderr
    assert list(run.glob("wandb/offline-run-*/run-*.wandb"))


def test_a_run_is_trained_named_and_sampled_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "default", *tiny_runs.options(tmp_path), "--name", "lr=1e-2", "--seed", "7"]
    result = gpt2tui(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "bits/byte" in result.stdout
    (name,) = [run.name for run in runs.all_runs()]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}-lr=1e-2", name)
    shown = json.loads(gpt2tui("runs", "show", "lr=1e-2", "--json").stdout)
    assert shown["settings"]["training"]["seed"] == 7
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the quick")))
    sampled = gpt2tui("sample", "latest", "--prompt", "-", "--max-length", 3, "--json")
    assert json.loads(sampled.stdout)[0]["prompt"] == "the quick"


def test_eval_reads_the_column_that_is_named(trained, tmp_path):
    run, _ = trained
    rows = tmp_path / "rows.csv"
    rows.write_text("id,tweet\n" + "".join(f"{i},the quick brown fox\n" for i in range(200)))
    assert "did you mean" in clear_message(gpt2tui("eval", run, "--source", rows, "--text-column", "tweat"), 3)
    assert "--text-column" in clear_message(gpt2tui("eval", run, "--source", rows, "--text-column", "zzz"), 3)
    result = gpt2tui("eval", run, "--source", rows, "--text-column", "tweet", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["splits"]["validation"]["tokens"] > 0


def test_presets_are_checked_as_layers_with_settings(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text("[optimizer]\nlr = 0.01\n")
    alone = gpt2tui("presets", "check", mine)
    assert alone.returncode == 0
    assert "is a valid partial preset: it has no [model] and no extends" in alone.stderr
    assert "124,439,808 parameters" in alone.stderr
    size = f"{preset_files.load(['small']).preset.known_parameters:,} parameters"
    layered = gpt2tui("presets", "check", "small", mine)
    assert f"small + {mine} is a valid preset: {size}" in layered.stderr
    assert json.loads(gpt2tui("presets", "check", "small", mine, "--json").stdout)[0]["partial"] is False
    message = clear_message(
        gpt2tui("presets", "check", "small", mine, "training.seed=-1", "--set", "model.n_head=3"), 2
    )
    assert "training.seed" in message
    assert "model.n_head" in message
    shown = tomllib.loads(gpt2tui("presets", "show", "small", mine, "training.seed=5").stdout)
    assert (shown["optimizer"]["lr"], shown["training"]["seed"]) == (0.01, 5)


def test_presets_keys_lists_extends_and_what_may_be_left_out():
    lines = gpt2tui("presets", "keys").stdout
    assert re.search(r"^extends ", lines, re.MULTILINE)
    assert '"auto"' in lines


def test_a_text_without_quotes_in_a_preset_is_answered(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[data]\nsource = ~/books\n")
    assert "mine.toml:2: not TOML: Invalid value; write texts in quotes" in clear_message(
        gpt2tui("presets", "check", path), 2
    )
