"""Names and texts from elsewhere, full of what a terminal obeys: no command prints any of it as it is."""

import contextlib
import json
import shutil
import sys

import pytest

from gpt2tui.__main__ import main
from gpt2tui.preset import files as preset_files
from gpt2tui.system.styled_output import StyledConsole
from gpt2tui.system.terminal_text import GuardedStream, sanitize
from tests import tiny_runs

HOSTILE = "x\x1b]0;own\x07\x1b[31m\x9b1m\u202ey\u2066z\u200b"


@pytest.fixture
def hostile(tmp_path, monkeypatch, capsys):
    """A folder with a run, presets and a corpus whose names and fields are hostile; the current folder."""
    folder = tmp_path / HOSTILE
    folder.mkdir()
    (folder / f"{HOSTILE}.txt").write_text("the quick brown fox\n" * 500)
    settings = ("training.num_iterations=2", "training.checkpoint_frequency=1", "schedule.warmup_iterations=0")
    preset = tiny_runs.preset(tmp_path, *settings)
    preset = preset.model_copy(
        update={
            "description": HOSTILE,
            "data": preset.data.model_copy(update={"source": str(folder)}),
            "sampling": preset.sampling.model_copy(update={"prompt": HOSTILE, "max_length": 3}),
        }
    )
    file = tmp_path / "config" / "presets" / f"{HOSTILE}.toml"
    preset_files.save(preset, file)
    run = tmp_path / "runs" / f"run-{HOSTILE}"
    assert main(["--headless", "--preset", str(file), "--run-dir", str(run), "--log-format", "text"]) == 0
    (run / "run.json").write_text(json.dumps({**json.loads((run / "run.json").read_text()), "preset": HOSTILE}))
    broken = tmp_path / "runs" / f"broken-{HOSTILE}"
    shutil.copytree(run, broken)
    for manifest in broken.glob("checkpoints/*/MANIFEST.json"):
        manifest.write_text(json.dumps({"format_version": HOSTILE}))
    (tmp_path / "config" / "presets" / f"bad-{HOSTILE}.toml").write_text(f'"{"k" * 9}\u202e" = 1\n')
    monkeypatch.chdir(tmp_path)
    return {"RUN": str(run), "BROKEN": str(broken), "PRESET": str(file), "FOLDER": str(folder), "HOSTILE": HOSTILE}


COMMANDS = [
    "runs list",
    "runs list --json",
    "runs show RUN",
    "runs show RUN --json",
    "runs show BROKEN",
    "runs show HOSTILE",
    "presets list",
    "presets show PRESET",
    "presets show HOSTILE",
    "presets check PRESET HOSTILE",
    "presets check FOLDER",
    "sample RUN",
    "sample RUN --json",
    "sample BROKEN",
    "sample HOSTILE",
    "sample RUN --device HOSTILE",
    "eval RUN",
    "eval RUN --source HOSTILE",
    "eval BROKEN",
    "attach HOSTILE",
    "attach RUN",
    "--headless --dry-run --preset PRESET",
    "--headless --dry-run --preset PRESET --json",
    "--headless --preset HOSTILE",
    "--headless --preset PRESET --set HOSTILE=1",
    "--headless --preset PRESET --set data.source=HOSTILE",
    "--headless --resume RUN",
    "--headless --resume BROKEN",
    "--headless --resume HOSTILE",
    "--headless --preset PRESET --run-dir RUN",
    "serve --host HOSTILE",
    "serve --public-url HOSTILE",
    "HOSTILE",
    "--HOSTILE",
]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_command_prints_what_a_terminal_obeys(hostile, capsys):
    def check(command):
        captured = capsys.readouterr()
        for stream in captured:
            assert stream == sanitize(stream), f"{command}: {stream!r}"
        return captured

    assert "finished after step 2" in "".join(check("training"))  # the negative control: something was printed
    for command in COMMANDS:
        words = command.split(" ")
        for name, value in hostile.items():
            words = [word.replace(name, value) for word in words]
        with contextlib.suppress(SystemExit):
            main(words)
        assert any(check(command)), command


def test_our_own_colours_pass_and_those_in_a_text_do_not(capsys):
    stream = GuardedStream(sys.stdout)
    print(HOSTILE, file=stream)
    StyledConsole(stream, force_terminal=True, color_system="standard", highlight=False).print(HOSTILE, style="red")
    first, second = capsys.readouterr().out.splitlines()
    assert first == sanitize(HOSTILE)
    without_bell = sanitize(HOSTILE).replace("\N{SYMBOL FOR BELL}", "")  # rich drops it
    assert second == f"\x1b[31m{without_bell}\x1b[0m"
