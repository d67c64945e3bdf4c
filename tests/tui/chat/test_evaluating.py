"""The Evaluate page over the Chat screen shows what `gpt2tui eval` prints, with a model that transformers saved."""

import re
import threading
from dataclasses import asdict

import pytest
from rich.console import Console

from gpt2tui.cli import parse
from gpt2tui.commands.evaluate import request_of
from gpt2tui.errors import ResourceError, UsageError
from gpt2tui.evaluation.measuring import measure
from gpt2tui.evaluation.report import Heading, Report, Watcher
from gpt2tui.tui.chat import models as chat_models
from gpt2tui.tui.chat.evaluating import EvaluateScreen, MessageWatcher, rendered
from gpt2tui.tui.chat.measures import FIELDS, MEASURES
from gpt2tui.tui.chat.models import ModelChoice
from gpt2tui.tui.chat.screen import ChatScreen
from tests.evaluation.random_gpt2 import random_gpt2
from tests.tui.chat_story import driven, short
from tests.tui.looking import screen_text, until

BY_NAME = {measure.name: measure for measure in MEASURES}
VALUES = {
    "text": "it's.txt",
    "data": "rows.csv",
    "context": "16",
    "stride": "8",
    "prompt_column": "q",
    "reference_column": "a",
    "max_length": "9",
    "limit": "3",
}


@pytest.mark.parametrize("name", BY_NAME)
def test_the_copied_command_line_asks_for_the_same(name):
    request = BY_NAME[name].request("runs/small@600", VALUES)
    words = request.words()
    assert words[:3] == ["gpt2tui", "eval", "runs/small@600"]
    assert request_of(parse(words[1:])) == request
    request.check()
    assert {field for field in FIELDS if asdict(request)[field] is not None} == set(BY_NAME[name].fields)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("text file", {}, "the file is missing"),
        ("validation text", {"stride": "-1"}, "stride, tokens: -1 is not a whole number"),
        ("lambada", {"limit": "ten"}, "first rows only: ten is not a whole number"),
    ],
)
def test_a_field_that_cannot_be_is_named(name, values, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        BY_NAME[name].request("small", values)


def lines_of(renderable):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(renderable)
    return [" ".join(line.split()) for line in capture.get().splitlines() if line.strip()]


@pytest.mark.slow
def test_the_page_shows_what_the_command_measures_and_keeps_it(tmp_path, monkeypatch):
    model, text = random_gpt2(tmp_path / "random"), tmp_path / "text.txt"
    text.write_text("the lazy dog and the quick fox\n" * 3)
    monkeypatch.setattr(chat_models, "saved_models", lambda: [ModelChoice(str(model), "random")])
    request = BY_NAME["text file"].request(str(model), {"text": str(text), "stride": "5"})
    expected = measure(request, Watcher())
    assert dict(expected.rows)["stride, tokens"] == "5"

    async def story(pilot, screen):
        await pilot.press("escape", "e")
        await until(pilot, lambda: isinstance(pilot.app.screen, EvaluateScreen) and pilot.app.focused is not None)
        page = pilot.app.screen
        await pilot.press("j", "enter")
        assert "the file is missing" in screen_text(pilot.app)
        page.query_one("#input-text").value = str(text)
        page.query_one("#input-stride").value = "5"
        for _ in range(2):
            await pilot.press("enter")
            await until(pilot, lambda: page._watcher is None)
        newest, _earlier = page.query(".report")
        (warning,) = {line for line in lines_of(newest.content) if "is not compared" in line} or {""}
        assert [line for line in lines_of(newest.content) if line != warning] == lines_of(rendered(expected))
        await pilot.press("c")
        assert pilot.app.copied == [" ".join(["gpt2tui", "eval", str(model), "--text", str(text), "--stride", "5"])]
        await pilot.press("f7", "f4")  # to the runs and back
        await until(pilot, lambda: pilot.app.screen is page)
        assert len(page.query(".report")) == 2
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, ChatScreen)

    driven(tmp_path, story, load=short())


@pytest.mark.slow
def test_escape_cancels_first_and_closes_then(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_models, "saved_models", lambda: [ModelChoice("x", "x")])
    measuring = threading.Event()

    def endless(request, watcher, gpu):
        watcher.say("measuring")
        for _ in watcher.over(iter(int, 1), "windows", 12):
            measuring.set()

    monkeypatch.setattr("gpt2tui.evaluation.measuring.measure", endless)

    async def story(pilot, screen):
        await pilot.press("escape", "e")
        await until(pilot, lambda: isinstance(pilot.app.screen, EvaluateScreen) and pilot.app.focused is not None)
        page = pilot.app.screen
        await pilot.press("enter")
        await until(pilot, measuring.is_set)
        await until(pilot, lambda: "of 12 windows" in screen_text(pilot.app))
        await pilot.press("escape")
        await until(pilot, lambda: page._watcher is None)
        assert pilot.app.screen is page
        assert "cancelled" in screen_text(pilot.app)
        assert not page.query(".report")
        await pilot.press("escape")
        assert pilot.app.screen is screen

    driven(tmp_path, story, load=short())


@pytest.mark.slow
def test_live_weights_are_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_models, "saved_models", list)

    async def story(pilot, screen):
        screen.chosen.update(chat_models.live_weights("a-run", 7), [])
        await pilot.press("escape", "e")
        assert pilot.app.screen is screen
        said = " ".join(notification.message for notification in pilot.app._notifications)
        assert "live weights are saved as a checkpoint first" in said

    driven(tmp_path, story, load=short())


def test_a_training_that_starts_ends_what_is_measured_on_the_gpu_alone():
    for on_gpu in (True, False):
        watcher = MessageWatcher(lambda message: None, lambda: "none")
        watcher._on_gpu = on_gpu
        if on_gpu:
            with pytest.raises(ResourceError, match="a training starts"):
                list(watcher.over([1], "windows"))
        else:
            assert list(watcher.over([1], "windows")) == [1]


def test_nothing_in_a_report_controls_the_terminal():
    hostile = "\x1b]52;c;bHVjaw==\x07[bold]"
    report = Report(None, (hostile,), (Heading("a"),), ((hostile,),), (hostile,))
    shown = "\n".join(lines_of(rendered(report, [hostile])))
    assert shown.count("[bold]") == 4
    assert "\x1b" not in shown
    assert "\x07" not in shown
