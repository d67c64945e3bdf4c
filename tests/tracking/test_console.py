"""The console output: plain lines, and the live display replayed through a very small terminal emulator."""

import io
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2tui.run.events import (
    LearningRateChanged,
    NumIterationsChanged,
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    Warned,
)
from gpt2tui.system.terminal_text import report_on_stderr
from gpt2tui.tracking.console import Console, is_live_terminal
from gpt2tui.tracking.narration import SAMPLE_LINES
from tests.tracking import event_samples as sample

REPOSITORY = Path(__file__).parents[2]
RUN_FOLDER = Path("runs/20260102-030405-small")
HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x9b2J[bold]not ours[/bold] [/nonsense]\u202e"

WHOLE_RUN = [
    sample.run_started(time=0.0),
    *(sample.step(n, time=n / 10, train_loss=4.0) for n in range(1, 41)),
    sample.evaluated(40, 2.5, time=4.1),
    sample.sampled(40),
    sample.checkpoint_saved(40),
    Warned(message="no C++ compiler: compile is off", time=4.2),
    Paused(step=40, time=4.3),
    LearningRateChanged(step=40, factor=0.5, time=8.9),
    Resumed(step=40, time=9.0),
    NumIterationsChanged(step=40, num_iterations=1900, time=9.1),
    sample.evaluated(1900, 2.0, bits_per_byte=1.131, whole=True),
    RunFinished(step=1900, best_val_loss=2.0, seconds=151.0),
]


def plain(*events, **options):
    file = io.StringIO()
    console = Console(file, live=False, **options)
    for event in events:
        console.handle(event)
    console.close()
    return file.getvalue()


def live(*events, **options):
    file = io.StringIO()
    console = Console(file, live=True, **options)
    for event in events:
        console.handle(event)
    console.close()
    return file.getvalue()


def lasting_lines(output):
    """The lines that stay on the screen: colours taken off, and each redrawing of the status taken back."""
    output = re.sub(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]", "", output)
    lines, row = [""], 0
    for piece in re.findall(r"\x1b\[1A|\x1b\[2K|\r|\n|[^\x1b\r\n]+", output):
        if piece == "\x1b[1A":
            row -= 1
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece == "\n":
            row += 1
            lines.extend([""] * (row + 1 - len(lines)))
        elif piece != "\r":
            lines[row] += piece
    assert "\x1b" not in "".join(lines)
    return lines


def test_a_whole_run_in_plain_lines():
    assert plain(*WHOLE_RUN, vocab_size=4096, run_folder=RUN_FOLDER).splitlines() == [
        "gpt2tui small  20260102-030405-small",
        "3.21M parameters on cpu in bf16, 2,000 steps of 2,048 tokens (4.1M in all)",
        "loss: nats per token, smoothed; a uniform guess has ln 4,096 = 8.32",
        "bits/byte: on the validation text, which xz -9 compresses to 1.51, and to 1.27 after the training text",
        "",
        "step 1       loss 4.000  lr 3.00e-3  grad norm 0.80  20.5k tokens/s  3:20 left",
        "step 11      loss 4.000  lr 3.00e-3  grad norm 0.80  20.5k tokens/s  3:19 left",
        "step 21      loss 4.000  lr 3.00e-3  grad norm 0.80  20.5k tokens/s  3:18 left",
        "step 31      loss 4.000  lr 3.00e-3  grad norm 0.80  20.5k tokens/s  3:17 left",
        "step 40      val loss 2.500  1.250 bits/byte  xz 1.51/1.27, ratio 0.83/0.98",
        "step 40      sample",
        "│ def main():",
        "│     return 0",
        "",
        "step 40      saved checkpoints/step-00000040  48.2 MB in 0.3 s",
        "warning: no C++ compiler: compile is off",
        "step 40      paused",
        "step 40      learning rate 0.5 times the schedule's",
        "step 40      resumed",
        "step 40      1,900 steps in all fit the time budget",
        "step 1,900   val loss 2.000  1.131 bits/byte  xz 1.51/1.27, ratio 0.75/0.89  all text",
        "",
        "finished after step 1,900 of 1,900, 2:31",
        "best val loss 2.000",
        "1.131 bits/byte on all of the validation text  xz 1.51, ratio 0.75; after the training text 1.27, ratio 0.89",
        "sample: gpt2tui sample runs/20260102-030405-small",
    ]


def test_the_evaluation_of_all_text_which_may_take_minutes_is_announced_in_plain_lines():
    events = [sample.run_started(), sample.evaluated(1900), sample.evaluated(2000), sample.evaluated(2000, whole=True)]
    lines = plain(*events).splitlines()
    assert [line for line in lines if "all validation text" in line] == ["step 2,000   evaluating all validation text"]


def test_the_loss_of_a_uniform_guess_is_the_logarithm_of_the_vocabulary():
    assert f"ln 50,257 = {math.log(50257):.2f}" in plain(sample.run_started(), vocab_size=50257)


def test_a_run_says_what_it_started_from_and_how_much_of_it_is_trained():
    text = plain(sample.run_started(init_from="openai-community/gpt2", trained_parameters=294_912))
    assert "3.21M parameters, 295k trained beside them, on cpu in bf16" in " ".join(text.split())
    assert "started from the weights of openai-community/gpt2" in text


def test_a_terminal_keeps_the_same_lines_but_for_the_steps():
    expected = plain(*WHOLE_RUN, vocab_size=4096, run_folder=RUN_FOLDER).splitlines()
    expected = [line for line in expected if not re.match(r"step \d+ +loss", line)]
    shown = [
        line.rstrip() for line in lasting_lines(live(*WHOLE_RUN, vocab_size=4096, run_folder=RUN_FOLDER, width=110))
    ]
    assert [line for line in shown if line] == [line for line in expected if line]


def test_plain_lines_have_no_control_characters_whatever_the_environment(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = plain(*WHOLE_RUN)
    assert not [character for character in text if character < " " and character != "\n"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width):
    output = live(*WHOLE_RUN, vocab_size=4096, width=width)
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)
    assert max(len(line) for line in re.split(r"[\r\n]", drawn)) <= width


def test_the_status_line_shows_steps_loss_bits_speed_time_left_and_memory():
    output = live(
        sample.run_started(),
        sample.step(500, train_loss=3.0),
        sample.evaluated(500, bits_per_byte=1.25),
        sample.step(501, train_loss=2.0),
        width=80,
    )
    for piece in ("501", " of 2,000", "25%", "2:30 left", "2.487", "1.250", "20.5k", "1.21 GB"):
        assert piece in output, piece  # the smoothed loss: (0.95 * 0.05 * 3 + 0.05 * 2) / 0.0975 = 2.487


def test_no_color_is_honoured(monkeypatch):
    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])(?:;\d+)*m")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert colour.search(live(*WHOLE_RUN, width=80))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(live(*WHOLE_RUN, width=80))


@pytest.mark.parametrize("show", [plain, live])
def test_text_that_is_not_ours_neither_styles_nor_controls(show):
    events = [
        sample.run_started(run=HOSTILE, preset=HOSTILE, device=HOSTILE, precision=HOSTILE),
        sample.sampled(1, prompt=HOSTILE, text=HOSTILE),
        Warned(message=HOSTILE),
        RunFailed(message="printed on stderr", step=1),
    ]
    output = show(*events, width=300)
    # Replaying the display leaves no escape: every one was a colour, a cursor movement or an erasure of ours.
    text = "".join(lasting_lines(output))
    assert "\x1b]" not in output
    assert not set("\x07\x9b\u202e") & set(output)
    assert text.count("␛]52;c;ZXZpbA==␇") == 7
    assert "printed on stderr" not in text
    assert text.count("[bold]not ours[/bold] [/nonsense]") == 7


def test_the_cursor_comes_back_even_when_the_run_never_ends():
    output = live(sample.run_started(), sample.step(1))
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")


def test_a_very_long_sample_is_cut():
    for text in ("line\n" * 100_000, "x" * 1_000_000):
        for output in (plain(sample.sampled(1, text=text)), live(sample.sampled(1, text=text), width=80)):
            assert "the rest is in events.jsonl" in output
            assert output.count("│") <= SAMPLE_LINES + 1


def test_a_sample_of_nothing_is_a_rail_without_words():
    assert plain(sample.sampled(1, prompt="", text="")).splitlines() == [
        "step 1       sample",
        "│",
        "",
    ]


def test_a_stopped_run_says_how_to_resume_it():
    text = plain(
        sample.run_started(),
        RunFinished(step=7, best_val_loss=None, seconds=3.0, reason="stopped"),
        run_folder=Path("my runs/a"),
    )
    assert text.endswith("stopped after step 7 of 2,000, 0:03\nresume: gpt2tui --headless --resume 'my runs/a'\n")


def test_a_resumed_run_says_at_which_step():
    text = plain(sample.run_started(step=500))
    assert "1,500 steps of 2,048 tokens" in text
    assert "resumed at step 500\n" in text


def test_what_is_not_known_is_left_out():
    text = plain(sample.run_started(xz_bits_per_byte=None), sample.evaluated(1))
    assert "xz" not in text
    assert "nan" not in text


def test_step_lines_grow_with_the_logarithm_of_the_time():
    day = [sample.step(n, time=float(n)) for n in range(1, 20_001)]
    lines = plain(*day).splitlines()
    # One a second for the first 100 s, then each 1 % later than the one before: 100 ln 200 = 530.
    assert 550 <= len(lines) <= 640


def test_a_terminal_that_calls_itself_dumb_gets_plain_lines(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert is_live_terminal(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not is_live_terminal(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert not is_live_terminal(io.StringIO())


def test_an_encoding_without_our_signs_prints_others():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file, live=False)
    for event in [*WHOLE_RUN, sample.sampled(3, prompt="é", text="☃")]:
        console.handle(event)
    assert b"| def main():\n" in file.buffer.getvalue()
    assert file.buffer.getvalue().endswith(b"| ??\n\n")


def test_a_closed_pipe_does_not_end_the_run():
    code = (
        "import sys; from tests.tracking import event_samples as sample\n"
        "from gpt2tui.tracking.console import Console\n"
        "console = Console()\n"
        "for n in range(1, 5001): console.handle(sample.step(n, time=10.0 * n))\n"
        "console.close(); sys.stderr.write('trained to the end')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"trained to the end"
    assert process.wait(30) == 0


def test_a_report_from_another_subscriber_does_not_tear_the_status_line(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    console = Console(live=True, width=80)
    console.handle(sample.run_started())
    console.handle(sample.step(1))
    report_on_stderr("W&B is out of reach")
    console.handle(RunFinished(step=1, best_val_loss=None, seconds=1.0))
    assert "gpt2tui: W&B is out of reach" in [line.rstrip() for line in lasting_lines(terminal.getvalue())]
