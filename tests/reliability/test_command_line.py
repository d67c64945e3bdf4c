"""Random command lines: whatever the arguments are, there is a result or a message, and no exception leaves `main`."""

import contextlib
import io
import os

import pytest

from gpt2tui.__main__ import main

hypothesis = pytest.importorskip("hypothesis")
strategies = hypothesis.strategies

EXAMPLES = int(os.environ.get("GPT2TUI_EXAMPLES", "40"))

# Each command with the options that it has; every one is also given options that it has not.
COMMANDS = (
    *((["presets", action], ["--json"]) for action in ("list", "show", "check", "keys", "schema")),
    *((["runs", action], ["--json"]) for action in ("list", "show")),
    (["runs", "list"], ["--sort", "--filter", "--columns"]),
    *((["runs", action], ["--yes"]) for action in ("rename", "delete", "stop")),
    (["sample"], ["--prompt", "--max-length", "--temperature", "--top-k", "--seed", "--device", "--precision"]),
    (["eval"], ["--source", "--split", "--device"]),
    (["--dry-run"], ["--preset", "--set", "--set", "--set", "--resume", "--json"]),
    (["train", "--dry-run"], ["--preset", "--set", "--seed", "--toml", "--json"]),
    (["--headless"], ["--preset", "--set", "--run-dir", "--resume", "--log-format"]),
    ([], ["--preset", "--set", "--headless"]),
)
ANY = ("--help", "--version", "--no-such", "--json", "--")
VALUES = (
    *("test", "default", "latest", "odd.toml", "a-folder", "/dev/null", ".", "", "..", "-1", "0", "1e400", "nan"),
    *("training.batch_size=0", "model.n_embd=", "=1", "a.b.c=1", "data.source=/dev/null", "optimizer.lr=nan"),
    *("training.device=cuda:200", "model.n_layer=[]", "data.source=odd.toml", "model.n_embd=99999999999999999999"),
)
# No zero bytes, which arguments cannot have; surrogates are what Python makes of bytes that are not UTF-8.
characters = strategies.characters(min_codepoint=1, max_codepoint=0x1F600, exclude_categories=())
raw = strategies.binary(max_size=6).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
values = strategies.one_of(strategies.sampled_from(VALUES), strategies.text(characters, max_size=8), raw)
settings = strategies.tuples(strategies.sampled_from(["data.source", "x", "model.n_embd"]), values).map("=".join)


@strategies.composite
def command_lines(draw):
    """A command, perhaps its argument, and up to three options with values."""
    command, options = draw(strategies.sampled_from(COMMANDS))
    words = [*command, *draw(strategies.lists(values, max_size=1))]
    for option in draw(strategies.lists(strategies.sampled_from([*options, *ANY]), max_size=3)):
        words.append(option)
        if option not in ANY:
            words.append(draw(settings if option == "--set" else values))
    return words


def outcome(arguments):
    """The exit code of a command whose streams are pipes."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict") for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            return main(arguments)
        except SystemExit as end:  # argparse
            return end.code


@pytest.mark.slow
def test_no_command_line_ends_in_a_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "odd.toml").write_bytes(b"[model]\nn_embd = \xff\n")

    # Its health checks fail where a machine is slow.
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(command_lines())
    def try_one(words):
        # A training would take minutes: only those that fail before it are tried.
        hypothesis.assume("--headless" not in words or not {"test", "default"} & {*words})
        assert outcome(words) in (0, 2, 3, 4, 6, 75)

    try_one()


def test_the_property_sees_a_bug(monkeypatch):
    from gpt2tui.commands import presets

    def failing(options):
        raise KeyError("a bug")

    monkeypatch.setattr(presets, "list_presets", failing)
    with pytest.raises(KeyError):
        outcome(["presets", "list"])
