import io
import sys

import pytest

from gpt2tui.system.terminal_text import report_on_stderr
from gpt2tui.tracking.subscriber import Subscribers
from tests.tracking import event_samples as sample


class Recorder:
    def __init__(self, fail_at=None, fail_on_close=False):
        self.steps, self.closed, self.fail_at, self.fail_on_close = [], 0, fail_at, fail_on_close

    def handle(self, event):
        if event.step == self.fail_at:
            raise RuntimeError("no more\x1b[2J paper")
        self.steps.append(event.step)

    def close(self):
        self.closed += 1
        if self.fail_on_close:
            raise OSError("stuck")


def test_every_subscriber_gets_every_event_in_order():
    first, second = Recorder(), Recorder()
    subscribers = Subscribers([first, second])
    for number in (1, 2, 3):
        subscribers.handle(sample.step(number))
    assert first.steps == second.steps == [1, 2, 3]


def test_a_subscriber_that_raises_is_removed_with_one_line_and_the_others_continue(capsys):
    bad, good = Recorder(fail_at=2), Recorder()
    subscribers = Subscribers([bad, good])
    for number in (1, 2, 3):
        subscribers.handle(sample.step(number))
    subscribers.close()
    assert bad.steps == [1]
    assert good.steps == [1, 2, 3]
    assert bad.closed == good.closed == 1
    assert capsys.readouterr().err == (
        "gpt2tui: Recorder failed (RuntimeError: no more␛[2J paper); the run continues without it\n"
    )


def test_one_that_cannot_close_does_not_keep_the_others_open(capsys):
    bad, good = Recorder(fail_on_close=True), Recorder()
    Subscribers([bad, good]).close()
    assert good.closed == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_closing_twice_closes_once():
    recorder = Recorder()
    subscribers = Subscribers([recorder])
    subscribers.close()
    subscribers.close()
    assert recorder.closed == 1


def test_an_interrupt_is_not_a_failure_of_the_subscriber():
    class Interrupted(Recorder):
        def handle(self, event):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Subscribers([Interrupted()]).handle(sample.step(1))


@pytest.mark.parametrize("stderr", [None, io.StringIO()])
def test_a_stderr_that_is_gone_is_no_reason_to_stop(monkeypatch, stderr):
    if stderr is not None:
        stderr.close()
    monkeypatch.setattr(sys, "stderr", stderr)
    report_on_stderr("stderr is closed")
