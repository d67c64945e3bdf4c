"""The command that repeats a run: exact, and harmless when pasted."""

import shlex
import subprocess

import pytest

from gpt2tui.cli import build_parser
from gpt2tui.preset.files import check, load
from gpt2tui.run.folder import Run
from gpt2tui.system.shell import shell_line
from gpt2tui.tui.runs.library import repeat_command, resume_command
from tests.tui.fake_runs import write_run


def test_the_repeated_run_has_the_same_preset_in_another_folder():
    run = write_run("2026-01-01-000000-a", overrides=["training.seed=7", "optimizer.lr=0.003"])
    words = shlex.split(repeat_command(run))
    options = build_parser().parse_args(words[1:])
    assert options.headless
    assert load(options.preset).preset == check(run.preset_file).preset
    assert options.run_dir == f"{run.folder}-repeat"


def test_a_second_repetition_has_a_folder_of_its_own():
    run = write_run("2026-01-01-000000-a")
    write_run("2026-01-01-000000-a-repeat")
    assert repeat_command(run).endswith("-a-repeat3")


def test_the_resume_command_names_the_run():
    run = write_run("2026-01-01-000000-a")
    assert build_parser().parse_args(shlex.split(resume_command(run))[1:]).resume == str(run.folder)


HOSTILE = ["plain", "with space", "a'b", 'a"b', "$(touch pwned)", "`id`", "a\nrm -rf b", "\x1b[31mred", "é\\", "\udcff"]


@pytest.mark.parametrize("name", [*HOSTILE, "\x1b]52;c;eA==\x07"])
def test_a_pasted_line_is_one_harmless_line_with_the_same_words(name, tmp_path):
    line = shell_line(["printf", "%s", name])
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout == name.encode("utf-8", "surrogateescape")
    assert list(tmp_path.glob("pwned")) == []


def test_a_hostile_run_folder_is_quoted():
    assert repeat_command(Run(write_run("ok").folder.with_name("a b\x07"))).isprintable()
