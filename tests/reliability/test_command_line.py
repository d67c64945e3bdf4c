"""Random command lines: whatever the arguments are, there is a result or a message, and no exception leaves `main`."""

import contextlib
import io
import os

import pytest

from gpt2tui.__main__ import main

hypothesis = pytest.importorskip("hypothesis")
strategies = hypothesis.strategies

EXAMPLES = int(os.environ.get("GPT2TUI_EXAMPLES", "60"))

COMMANDS = (
    *(["presets", action] for action in ("list", "show", "check", "keys", "schema")),
    *(["runs", action] for action in ("list", "show")),
    *(["sample"], ["eval"], ["attach"], ["--dry-run"], ["--headless", "--dry-run"], ["--headless"], []),
)
OPTIONS = (
    *("--json", "--preset", "--set", "--resume", "--run-dir", "--prompt", "--max-length", "--temperature", "--top-k"),
    *("--seed", "--device", "--split", "--source", "--log-format", "--help", "--version", "--precision", "--"),
)
VALUES = (
    *("test", "default", "latest", "odd.toml", "a-folder", "/dev/null", ".", "", "..", "-1", "0", "1e400", "nan"),
    *("training.batch_size=0", "model.n_embd=", "=1", "a.b.c=1", "data.source=/dev/null", "optimizer.lr=nan"),
    *("training.device=cuda:200", "model.n_layer=[]", "data.source=odd.toml", "model.n_embd=99999999999999999999"),
)
# No zero bytes, which arguments cannot have; surrogates are what Python makes of bytes that are not UTF-8.
texts = strategies.text(
    strategies.characters(min_codepoint=1, max_codepoint=0x1F600, exclude_categories=()), max_size=8
)
raw = strategies.binary(max_size=6).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
words = strategies.one_of(strategies.sampled_from(OPTIONS), strategies.sampled_from(VALUES), texts, raw)


def outcome(arguments):
    """The exit code of a command whose streams are pipes."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict") for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            return main(arguments)
        except SystemExit as end:  # argparse
            return end.code


def test_no_command_line_ends_in_a_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "odd.toml").write_bytes(b"[model]\nn_embd = \xff\n")

    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @hypothesis.given(strategies.sampled_from(COMMANDS), strategies.lists(words, max_size=4))
    def try_one(command, rest):
        # A training would take minutes: only those that fail before it are tried.
        hypothesis.assume(command != ["--headless"] or not {"test", "default"} & {*rest})
        assert outcome([*command, *rest]) in (0, 2, 3, 4, 6, 75)

    try_one()


def test_the_property_sees_a_bug(monkeypatch):
    from gpt2tui.commands import presets

    def failing(options):
        raise KeyError("a bug")

    monkeypatch.setattr(presets, "list_presets", failing)
    with pytest.raises(KeyError):
        outcome(["presets", "list"])
