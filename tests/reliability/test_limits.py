"""What the system refuses or the environment lacks is one message with an exit code, or is done another way."""

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from gpt2tui.__main__ import main
from gpt2tui.data.corpus import stable_hash
from gpt2tui.device import choose_device
from gpt2tui.errors import ResourceError
from gpt2tui.run.events import CheckpointSaved
from gpt2tui.system import files, numbers
from tests import tiny_runs


def message_of(arguments, capsys):
    """The exit code of a command in this process, and its lines on stderr."""
    code = main(arguments)
    return code, capsys.readouterr().err.splitlines()


def no_more_threads(self):
    raise RuntimeError("can't start new thread")


def test_without_another_thread_checkpoints_are_written_by_the_training_itself(tmp_path, monkeypatch):
    trainer = tiny_runs.trainer(tmp_path)
    monkeypatch.setattr(threading.Thread, "start", no_more_threads)
    assert [e.step for e in trainer.train() if isinstance(e, CheckpointSaved)] == [4, 8, 12]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("can't start new thread"), "no more threads"),
        (RuntimeError("can't create new thread at interpreter shutdown"), "no more threads"),
        (MemoryError(), "out of memory"),
        (OSError(24, "Too many open files", "a.toml"), "a.toml: Too many open files"),
    ],
)
def test_a_resource_that_is_used_up_is_one_message(monkeypatch, capsys, error, said):
    from gpt2tui.commands import presets

    def failing(options):
        raise error

    monkeypatch.setattr(presets, "list_presets", failing)
    code, lines = message_of(["presets", "list"], capsys)
    assert code == 6
    assert len(lines) == 1
    assert said in lines[0]


def test_a_bug_stays_a_bug(monkeypatch):
    from gpt2tui.commands import presets

    def failing(options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(presets, "list_presets", failing)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["presets", "list"])


def test_a_setting_whose_name_is_not_utf8_is_a_mistake_of_the_preset(capsys):
    code, lines = message_of(["--headless", "--preset", "test", "--set", os.fsdecode(b"\xff=1")], capsys)
    assert code == 2
    assert "--set" in lines[0]


@pytest.mark.parametrize("index", [128, 200, 255, 256, 999])
def test_the_index_of_a_device_is_checked_before_torch_keeps_8_bits_of_it(monkeypatch, index):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ResourceError, match=f"cuda:{index}"):
        choose_device(f"cuda:{index}")


def test_a_file_name_that_is_not_utf8_has_a_stable_hash_of_its_own():
    names = [os.fsdecode(name) for name in (b"a.txt", b"\xff.txt", b"\xfe.txt")]
    assert len({stable_hash(name) for name in names}) == 3


def test_numbers_that_json_does_not_have_are_null():
    def refuse(constant):
        raise ValueError(constant)

    text = numbers.as_json({"a": math.nan, "b": [math.inf, {"c": (-math.inf, 1.5)}]})
    assert json.loads(text, parse_constant=refuse) == {"a": None, "b": [None, {"c": [None, 1.5]}]}


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def no_home(*arguments, **named):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(files, "user_config_path", no_home)
    monkeypatch.delenv("GPT2TUI_CONFIG")
    with pytest.raises(ResourceError, match="set HOME, or GPT2TUI_CONFIG"):
        files.config_folder()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="limits on descriptors are tried on Linux")
@pytest.mark.parametrize("descriptors", range(3, 9))
def test_with_few_descriptors_there_is_one_message_or_the_result(descriptors):
    limit = "import resource, sys; from gpt2tui.__main__ import main; import gpt2tui.commands.presets; "
    limit += f"resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors},) * 2); sys.exit(main(['presets', 'list']))"
    done = subprocess.run([sys.executable, "-c", limit], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 6)
