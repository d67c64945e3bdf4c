import asyncio
import contextlib
import math
import threading
from dataclasses import replace

import pytest
from textual.widgets import Input, OptionList

from gpt2tui.errors import DataError, DivergedError, DoesNotFitError
from gpt2tui.preset import files as preset_files
from gpt2tui.run import events
from gpt2tui.run import folder as runs
from gpt2tui.run.requests import Inbox
from gpt2tui.run.worst_passages import Passage, WorstPassages, write_worst_passages
from gpt2tui.system.numbers import learning_rate as shown_rate
from gpt2tui.training.schedules import learning_rate
from gpt2tui.tui.app import WorkbenchApp
from gpt2tui.tui.figures import Options
from gpt2tui.tui.help import bindings_by_place
from gpt2tui.tui.runs.library import RunListing
from gpt2tui.tui.session import TrainingSession
from gpt2tui.tui.train import feed, numbers, plots
from gpt2tui.tui.train.dialogs import TrainLongerDialog
from gpt2tui.tui.train.log import EventLog
from gpt2tui.tui.train.numbers import NumbersPanel, NumbersStrip
from gpt2tui.tui.train.plots import figure
from gpt2tui.tui.train.samples import SampleTimeline
from gpt2tui.tui.train.screen import TrainScreen
from gpt2tui.tui.train.view import DisplayedRun
from gpt2tui.tui.train.worst import WorstPassagesDialog
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, TextDialog
from gpt2tui.tui.widgets.first_run import FirstRun
from gpt2tui.tui.widgets.line_plot import LinePlot
from tests.tracking import event_samples
from tests.tui.fake_runs import append, write_run
from tests.tui.fake_training import FakeTraining, launch
from tests.tui.looking import screen_text, settled, until
from tests.tui.plain_workbench import first_mode
from tests.tui.train_story import DEVICE_MEMORY, StoryTraining, story


@contextlib.asynccontextmanager
async def workbench(training=None, size=(120, 36), **arguments):
    """The app on the Train screen, a story being trained when there is one."""
    session = TrainingSession(training or StoryTraining())
    app = WorkbenchApp(session=session, launch=launch() if training else None, **arguments)
    try:
        async with app.run_test(size=size) as pilot:
            await first_mode(pilot)
            if training:
                await until(pilot, lambda: session.state == "training" and app.screen.view.history.step is not None)
            yield app, pilot
    finally:
        session.stop()
        session.join(5)


def said(app):
    """The notices so far; tests do not draw them."""
    return "\n".join(notice.message for notice in app._notifications)


def run(test):
    asyncio.run(asyncio.wait_for(test, 120))


def plain(widget):
    return "\n".join("".join(segment.text for segment in widget.render_line(y)) for y in range(widget.size.height))


def test_without_a_run_there_are_two_buttons():
    async def test():
        async with workbench() as (app, pilot):
            assert app.screen.query_one(FirstRun).display
            assert not app.screen.query_one("#workspace").display
            for key in ("x", "k", "space", "y", "c", "slash"):
                await pilot.press(key)
            assert isinstance(app.screen, TrainScreen)
            first, second = app.screen.query_one(FirstRun).query("Button")
            for key, button in (("right", second), ("left", first), ("down", second), ("up", first)):
                await pilot.press(key)
                assert button.has_focus

    run(test())


@pytest.mark.slow
def test_a_run_is_on_show_with_curves_numbers_samples_and_log():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            screen = app.screen
            await until(pilot, lambda: "1.604" in screen_text(app))
            text = screen_text(app)
            guess = f"uniform guess: ln V = {math.log(app.session.loaded.preset.model.vocab_size):.2f}"
            for words in (
                guess,
                "xz 1.51/1.27, ratio ",
                "@400, best",
                "def __init__",
            ):
                assert words in text
            assert [line.name for line in screen.query_one("#main", LinePlot).figure.lines] == [
                "train",
                "smoothed",
                "val",
            ]
            assert not screen.query_one("#memory", LinePlot).display  # on a CPU the number says it all
            assert "eval" in plain(screen.query_one(EventLog).query_one("Static"))

    run(test())


def test_gpu_memory_is_allocated_and_reserved():
    async def test():
        async with workbench(StoryTraining(**DEVICE_MEMORY)) as (app, pilot):
            plot = app.screen.query_one("#memory", LinePlot)
            await until(pilot, lambda: len(plot.figure.lines) == 2)
            assert [line.name for line in plot.figure.lines] == ["reserved", "allocated"]
            assert plot.border_title == "GPU memory"

    run(test())


def test_every_plot_comes_to_show_all_of_a_run():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            screen = app.screen
            await until(pilot, lambda: screen.view.history.step.step == 412 and not screen.plots.outdated(screen.view))
            screen._tick()  # nothing is behind
            screen.view.version += 1
            screen._tick()  # in the middle of a round ...
            screen.view.add([event_samples.step(413, learning_rate=0.9, host_memory_bytes=2e9)])  # ... there is more
            await until(pilot, lambda: not screen.plots.outdated(screen.view))
            for place in ("main", "lower"):
                points = screen.query_one(f"#{place}", LinePlot).figure.lines[0].points
                assert max(x for x, _ in points) == 413

    run(test())


@pytest.mark.slow
def test_keys_change_the_plots():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            screen = app.screen
            main, lower = screen.query_one("#main", LinePlot), screen.query_one("#lower", LinePlot)
            await until(pilot, lambda: main.figure.log_y)  # from 8.3 to 1.5
            await pilot.press("y")
            assert not main.figure.log_y
            smoothings = []
            for _ in range(4):
                await pilot.press("s")
                smoothings.append(screen.plots.options.smoothing)
            assert smoothings == [5.0, 0.0, 1.0, 2.0]
            names = []
            for key in ("]", "]", "]", "["):
                await pilot.press({"]": "right_square_bracket", "[": "left_square_bracket"}[key])
                names.append(lower.figure.lines[-1].name)
            assert names == ["gradient norm", "tokens/s", "learning rate", "tokens/s"]
            await pilot.click("#lower", offset=(3, 0))
            await until(pilot, lambda: lower.figure.lines[-1].name == "learning rate")

    run(test())


def test_with_room_the_lower_plots_are_side_by_side():
    async def test():
        async with workbench(StoryTraining(), size=(160, 50)) as (app, pilot):
            screen = app.screen
            await until(pilot, lambda: not screen.plots.outdated(screen.view) and screen.view.history.step is not None)
            plots = [screen.query_one(f"#{place}", LinePlot) for place in ("lower", "lower-2", "lower-3")]
            assert [plot.figure.lines[-1].name for plot in plots] == ["learning rate", "gradient norm", "tokens/s"]
            assert len({plot.region.y for plot in plots}) == 1
            assert len({plot.region.x for plot in plots}) == 3

    run(test())


@pytest.mark.slow
def test_the_x_axis_is_steps_tokens_or_time():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            screen = app.screen
            main = screen.query_one("#main", LinePlot)
            await until(pilot, lambda: not screen.plots.outdated(screen.view) and len(main.figure.lines) == 3)
            ends = []
            for _ in range(3):
                await pilot.press("X")
                ends.append((main.figure.x_unit, main.figure.lines[0].points[-1][0]))
            assert ends == [("tokens", 412 * 2048), ("time", pytest.approx(412 * 0.305, abs=0.5)), ("step", 412)]

    run(test())


@pytest.mark.slow
def test_inspecting_shows_values_in_all_plots_and_escape_leaves():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            screen = app.screen
            await until(pilot, lambda: not screen.plots.outdated(screen.view) and screen.view.history.step is not None)
            await pilot.press("i", "home", "plus")
            await until(pilot, lambda: "step 1 " in screen_text(app))
            assert screen.query_one("#lower", LinePlot).view.window.right < 250
            await pilot.press("escape")
            await until(pilot, lambda: "step 1 " not in screen_text(app))
            await pilot.press("question_mark")
            await until(pilot, lambda: "Inspect" in screen_text(app) and "X axis" in screen_text(app))

    run(test())


def test_reference_lines_are_the_uniform_guess_and_xz():
    view = DisplayedRun()
    view.add(story())
    vocab = 4096
    view.history.started = replace(view.history.started, vocab_size=vocab)
    drawn = figure("loss", view, Options())
    assert [reference.text for reference in drawn.references] == ["ln V = 8.32", "xz 1.51 bits/B"]
    last = view.history.evaluation
    expected = 1.512 * last.val_loss / last.bits_per_byte  # the bits per byte of xz, at the run's nats per bit and byte
    assert [reference.y for reference in drawn.references] == [pytest.approx(math.log(vocab)), pytest.approx(expected)]


def test_space_pauses_and_resumes_and_the_footer_says_so():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            await pilot.press("space")
            await until(pilot, lambda: app.session.state == "paused")
            assert app.screen.active_bindings["space"].binding.description == "Resume"
            await pilot.press("space")
            await until(pilot, lambda: app.session.state == "training")
            assert app.screen.active_bindings["space"].binding.description == "Pause"

    run(test())


@pytest.mark.slow
def test_checkpoint_evaluate_and_write_are_asked_for():
    async def test():
        training = StoryTraining()
        async with workbench(training) as (_, pilot):
            await pilot.press("k", "e", "w")
            await until(pilot, lambda: training.requests == ["checkpoint", "evaluate", "sample"])

    run(test())


@pytest.mark.slow
def test_stop_asks_first():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            await pilot.press("x")
            await until(pilot, lambda: len(app.screen_stack) == 2)
            assert app.session.state == "training"
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1)
            await pilot.press("x")
            await until(pilot, lambda: len(app.screen_stack) == 2)
            await pilot.press("enter")
            await until(pilot, lambda: app.session.state == "stopped")
            await until(pilot, lambda: "■ STOPPED" in screen_text(app))
            await until(pilot, lambda: "stopped after 2:05" in screen_text(app))

    run(test())


@pytest.mark.slow
def test_stop_while_preparing_asks_to_cancel_and_saves_nothing():
    async def test():
        training = FakeTraining(preparation=["tokenizing"] * 100_000)
        app = WorkbenchApp(session=TrainingSession(training), launch=launch())
        async with app.run_test(size=(120, 36)) as pilot:
            await until(pilot, lambda: "tokenizing" in screen_text(app))
            await pilot.press("x")
            await until(pilot, lambda: "Nothing has been trained yet" in screen_text(app))
            assert "Cancel the preparation?" in screen_text(app)
            await pilot.press("enter")
            await until(pilot, lambda: app.session.state == "idle")
            await until(pilot, lambda: "the training did not begin" in screen_text(app))
            assert training.saved == []

    run(test())


@pytest.mark.parametrize(
    ("close", "title", "keys", "launches"),
    [
        (False, "It does not fit", ("enter",), 1),
        (False, "It does not fit", ("right", "enter"), 2),
        (True, "It may not fit", ("enter",), 2),
    ],
)
def test_a_training_that_may_not_fit_is_asked_about_with_the_numbers(close, title, keys, launches):
    async def test():
        launched = []

        def stream(launch, controls):
            launched.append(launch.force)
            if not launch.force:
                raise DoesNotFitError("memory on cpu: needs about 5.68 TB, 23.1 GB are free", close=close)
            yield from FakeTraining()(launch, controls)

        app = WorkbenchApp(session=TrainingSession(stream), launch=launch())
        async with app.run_test(size=(120, 36)) as pilot:
            await until(pilot, lambda: title in screen_text(app))
            assert "needs about 5.68 TB, 23.1 GB are free" in screen_text(app)
            await pilot.press(*keys)
            await until(pilot, lambda: len(app.screen_stack) == 1 and len(launched) == launches)
            assert launched == [False, True][:launches]
            app.session.stop()
            app.session.join(5)

    run(test())


@pytest.mark.parametrize(
    ("failure", "title"),
    [
        (DoesNotFitError("memory on cpu: needs about 5.68 TB", close=True), "It may not fit"),
        (DataError("the corpus is empty"), "Training failed"),
    ],
)
def test_a_question_that_no_key_asked_for_waits_for_the_dialog_in_front(failure, title):
    async def test():
        launched, go_on = [], threading.Event()

        def stream(launch, controls):
            launched.append(launch)
            go_on.wait(10)
            raise failure
            yield

        app = WorkbenchApp(session=TrainingSession(stream), launch=launch())
        async with app.run_test(size=(120, 36)) as pilot:
            await until(pilot, lambda: launched)
            named = []
            app.push_screen(TextDialog("Save as", "A name", "mine"), named.append)
            await until(pilot, lambda: isinstance(app.screen, TextDialog))
            go_on.set()
            await until(pilot, lambda: app.session.failure is not None)
            await pilot.pause(0.6)  # more than two turns of looking at the session
            assert isinstance(app.screen, TextDialog)
            await pilot.press("2", "enter")
            await until(pilot, lambda: title in screen_text(app))
            assert (named, len(launched)) == (["2"], 1)

    run(test())


@pytest.mark.slow
def test_after_the_end_no_key_is_shown_that_controls_a_training():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            controls = {"pause", "resume", "stop", "request('checkpoint')", "request('evaluate')"}

            def shown():
                return controls & {active.binding.action for active in app.screen.active_bindings.values()}

            assert {"pause", "stop", "request('checkpoint')"} <= shown()
            app.session.stop()
            await until(pilot, lambda: app.session.state == "stopped")
            assert shown() == set()
            assert "now" not in screen_text(app)
            await pilot.press("k")
            await until(pilot, lambda: "this run is not being trained" in said(app))
            await pilot.press("space")
            await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))  # it asks
            await pilot.press("escape")

    run(test())


@pytest.mark.slow
def test_the_learning_rate_changes_while_paused_and_is_marked():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            screen = app.screen
            await pilot.press("l")
            assert app.screen is screen  # not while it runs
            await until(pilot, lambda: "press space first" in said(app))
            await pilot.press("space")
            await until(pilot, lambda: app.session.state == "paused")
            await pilot.press("l")
            await until(pilot, lambda: app.screen is not screen)
            await pilot.press(*"nan", "enter")
            await pilot.pause()
            assert app.screen is not screen  # refused
            rate = learning_rate(screen.view.preset, 412)
            for text, factor in (("0.5", 0.5), ("x0.01", 0.01), (f"{rate / 4:.9f}", 0.25), (f"={rate * 50}", 50)):
                app.screen.query_one(Input).value = text
                before_after = f"{shown_rate(rate)} → {shown_rate(rate * factor)}"
                await until(pilot, lambda words=before_after: words in screen_text(app))
            app.screen.query_one(Input).value = f"{rate / 2:.12f}"
            await pilot.press("enter")
            await until(pilot, lambda: screen.view.history.marks)
            assert screen.view.history.marks[0].text == "lr × 0.5"
            row = screen.query_one(NumbersPanel).query(".number")[3]
            await until(pilot, lambda: "× 0.5" in plain(row))
            assert f"→ {shown_rate(rate / 2)}" in plain(row)  # what the next step uses

    run(test())


def test_samples_travel_in_time():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            samples = app.screen.query_one(SampleTimeline)
            assert samples.sample.step == 400
            await pilot.press("left", "left", "left", "left", "left")
            assert samples.sample.step == 100
            assert "def self the" in screen_text(app)
            samples.show([*app.screen.view.history.samples, event_samples.sampled(500)])
            assert samples.sample.step == 100  # one who looks back is not pulled away
            await pilot.press("right", "right", "right", "right")
            samples.show([*app.screen.view.history.samples, event_samples.sampled(500), event_samples.sampled(600)])
            assert samples.sample.step == 600  # one at the newest follows
            await pilot.click("#steps", offset=(4, 0))
            await until(pilot, lambda: samples.sample.step == 100)

    run(test())


@pytest.mark.slow
def test_on_a_wide_screen_two_samples_are_beside_each_other():
    async def test():
        async with workbench(StoryTraining(), size=(160, 50)) as (app, pilot):
            samples = app.screen.query_one(SampleTimeline)
            await until(pilot, lambda: samples.sample is not None and samples.sample.step == 400)

            def steps():
                return samples.earlier and samples.earlier.step, samples.sample.step

            assert steps() == (300, 400)
            await pilot.press("left", "left")
            assert steps() == (100, 200)
            rows = [row for row in screen_text(app).splitlines() if "def self the" in row and "def __init__" in row]
            assert len(rows) == 1  # in one row: beside each other
            await pilot.press("left", "K", "right", "right", "right")
            assert steps() == (100, 400)
            await until(pilot, lambda: "step 100 (kept) │ step 400" in screen_text(app))
            await pilot.press("K")
            assert steps() == (300, 400)
            await pilot.resize_terminal(120, 36)
            await until(pilot, lambda: steps() == (None, 400))

    run(test())


def test_on_a_low_screen_the_plot_the_samples_and_the_log_take_turns():
    async def test():
        async with workbench(StoryTraining(), size=(60, 16)) as (app, pilot):
            screen = app.screen
            panes = {
                "plot": screen.query_one("#main"),
                "samples": screen.query_one(SampleTimeline),
                "log": screen.query_one(EventLog),
            }

            def shown():
                return [name for name, pane in panes.items() if pane.region.height > 0 and pane.region.bottom < 16]

            await until(pilot, lambda: shown() == ["plot"])
            await until(pilot, lambda: screen.query_one("#main", LinePlot).size.height >= 8)
            for key, pane in [("t", "samples"), ("t", "log"), ("t", "plot"), ("left", "samples"), ("escape", "plot")]:
                await pilot.press(key)
                await until(pilot, lambda pane=pane: shown() == [pane])
            assert screen.query_one(SampleTimeline).sample.step == 400  # the first press only shows them
            await pilot.press("slash")
            await until(pilot, lambda: shown() == ["log"])

    run(test())


@pytest.mark.slow
def test_a_run_that_nothing_trains_is_not_logged_as_trained_elsewhere():
    async def test():
        ended = write_run("2026-01-01-000000-ended")
        async with workbench() as (app, pilot):
            app.attach_run(ended)
            await until(pilot, lambda: "not training" in screen_text(app) and "finished after" in screen_text(app))
            assert "trained by another process" not in screen_text(app)
            await pilot.press("2")
        running = write_run("2026-01-02-000000-running", steps=40, ending="crashed")
        with runs.locked(running):
            async with workbench() as (app, pilot):
                app.attach_run(running)
                await until(pilot, lambda: "watch trained by another process" in screen_text(app))

    run(test())


@pytest.mark.slow
def test_the_log_can_be_filtered():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            log = app.screen.query_one(EventLog).query_one("Static")
            await pilot.press("slash", *"ckpt 30")
            await pilot.pause()
            assert [line.split()[1:3] for line in plain(log).splitlines() if line.strip()] == [["ckpt", "300"]]
            await pilot.press("escape")
            await pilot.pause()
            assert "eval" in plain(log)
            assert app.focused is None
            app.screen.action_filter()
            assert isinstance(app.focused, Input)  # before the next key is read

    run(test())


@pytest.mark.slow
def test_the_worst_passages_of_the_run_are_a_page():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            screen = app.screen
            await pilot.press("W")
            await until(pilot, lambda: "has no worst passages yet" in said(app))
            passage = Passage(2.5, [1, 2], ["two", " [red]words\x1b"], [None, 2.5], [None, " things"])
            write_worst_passages(screen.view.run, WorstPassages(4, False, [passage]))
            await pilot.press("W")
            await until(pilot, lambda: isinstance(app.screen, WorstPassagesDialog))
            await until(pilot, lambda: "1. loss 2.500 nats per token" in screen_text(app))
            shown = screen_text(app)
            assert "two [red]words␛" in shown
            assert "where the model would have written ' things'" in shown
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is screen)

    run(test())


@pytest.mark.slow
def test_a_run_compares_with_another():
    async def test():
        write_run("2026-01-01-000000-other", steps=50)
        async with workbench(StoryTraining()) as (app, pilot):
            screen = app.screen
            main = screen.query_one("#main", LinePlot)
            await pilot.press("c")
            await until(pilot, lambda: app.screen is not screen)
            await pilot.press("down", "enter")
            await until(pilot, lambda: main.figure.lines[0].name == "2026-01-01-000000-other")
            assert main.figure.lines[0].points[-1][0] == 50
            await pilot.press("c")
            await until(pilot, lambda: app.screen is not screen)
            app.screen.query_one(Input).value = "nothing of the kind"
            await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 0)
            app.screen.query_one(Input).value = "OTH 2026"
            await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 1)
            app.screen.query_one(Input).value = ""
            await pilot.pause()
            await pilot.press("enter")  # the first line: no run
            await until(pilot, lambda: main.figure.lines[0].name == "train")

    run(test())


def test_a_resumed_run_shows_what_was_before_and_marks_the_place():
    async def test():
        old = write_run("2026-01-01-000000-old", steps=100, ending="crashed", checkpoints=(50,))
        emitted = [event_samples.run_started(run=old.name, step=50), event_samples.step(51, train_loss=1.0)]
        app = WorkbenchApp(session=TrainingSession(StoryTraining(*emitted)))
        async with app.run_test(size=(120, 36)) as pilot:
            app.start_training(preset_files.check(old.preset_file), resume=old)
            await until(pilot, lambda: isinstance(app.screen, TrainScreen))
            await until(pilot, lambda: len(app.screen.view.history.train_loss) == 51)
            history = app.screen.view.history
            assert history.train_loss.last == (51, 1.0)
            assert [mark.step for mark in history.marks] == [50]
            assert app.screen.query_one(SampleTimeline).sample.step == 50
            app.session.stop()
            app.session.join(5)

    run(test())


@pytest.mark.slow
def test_an_attached_run_is_followed_and_its_process_gets_what_the_keys_ask():
    async def test():
        other = write_run("2026-01-01-000000-other", steps=20, ending="crashed")
        async with workbench() as (app, pilot):
            with runs.locked(other):
                inbox, taken = Inbox(other), []

                async def asked(key, *requests):
                    await pilot.press(key)
                    await until(pilot, lambda: taken.extend(inbox.take()) or taken == [*requests])
                    taken.clear()

                app.attach_run(other)
                await until(pilot, lambda: app.screen.view.history.progress.step == 20)
                await until(pilot, lambda: "trained by another process" in screen_text(app))
                append(other, event_samples.step(21, train_loss=1.25))
                await until(pilot, lambda: app.screen.view.history.progress.step == 21)
                await until(pilot, lambda: "◉ TRAINING ELSEWHERE  21/100" in screen_text(app))
                await asked("k", "checkpoint")
                await asked("e", "evaluate")
                await asked("w", "sample")
                await asked("space", "pause")
                append(other, events.Paused(step=21))
                await until(pilot, lambda: app.screen.check_action("resume", ()))
                await asked("space", "continue")
                append(other, events.Resumed(step=21))
                await until(pilot, lambda: not app.screen.check_action("resume", ()))
                await pilot.press("l")  # no request: the rate is changed where the run is trained
                await until(pilot, lambda: "another process trains this run" in said(app))
                await pilot.press("x")
                await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
                await asked("enter", "stop")
                append(other, event_samples.step(100, train_loss=1.25))
                await until(pilot, lambda: "EVALUATING" in screen_text(app))
            append(other, events.RunFinished(step=100, best_val_loss=1.0, seconds=1.0))
            await until(pilot, lambda: app.training_status.state == "finished")
            await until(pilot, lambda: not app.screen.check_action("stop", ()))

    run(test())


@pytest.mark.slow
def test_escape_goes_back_from_an_attached_run_to_the_training_of_this_process():
    async def test():
        other = write_run("2026-01-01-000000-other", steps=20)
        async with workbench(StoryTraining()) as (app, pilot):
            live = app.screen.view
            app.attach_run(other)
            await until(pilot, lambda: app.screen.view.history.progress.step == 20)
            await pilot.press("escape")
            await until(pilot, lambda: app.screen.view is live)

    run(test())


@pytest.mark.slow
def test_the_run_shown_last_comes_back_at_the_next_start():
    async def test():
        other = write_run("2026-01-01-000000-other", steps=20, ending="stopped", checkpoints=(20,))
        app = WorkbenchApp()
        app.settings.remember("run", other.name)
        append(other, events.CheckpointSaved(step=20, path="checkpoints/step-00000020", seconds=0.1, bytes=5))
        async with app.run_test(size=(120, 36)) as pilot:
            await until(pilot, lambda: isinstance(app.screen, TrainScreen) and app.screen.view.history.step is not None)
            await until(pilot, lambda: app.screen.active_bindings["space"].binding.action == "resume_run")

    run(test())


def test_a_damaged_run_can_be_shown():
    async def test():
        other = write_run("2026-01-01-000000-other", steps=5, ending="crashed")
        other.preset_file.write_text("[model\x1b")
        other.info_file.write_text("{")
        with other.events_file.open("a") as file:
            file.write('{"v": 1, "event": "step", "st')
        async with workbench() as (app, pilot):
            app.attach_run(other)
            await until(pilot, lambda: app.screen.view.history.progress.step == 5)
            await settled(pilot)
            assert isinstance(app.screen, TrainScreen)

    run(test())


def test_hostile_text_is_shown_and_obeyed_by_nobody():
    async def test():
        hostile = "\x1b]52;c;eA==\x07[/foo] [red]\x1b[2J\x00"
        emitted = [
            event_samples.run_started(preset=hostile, device=hostile),
            event_samples.step(1),
            events.Sampled(step=1, prompt=hostile, text=hostile),
            events.Warned(message=hostile),
        ]
        async with workbench(StoryTraining(*emitted)) as (app, pilot):
            await until(pilot, lambda: "[/foo]" in screen_text(app))
            assert not any(sign in screen_text(app) for sign in "\x1b\x07\x00")

    run(test())


def test_a_divergence_offers_half_the_learning_rate():
    async def test():
        training = StoryTraining(
            fails=DivergedError("training diverged at step 413: the loss is nan", last_good_step=400)
        )
        app = WorkbenchApp(session=TrainingSession(training), launch=launch())
        async with app.run_test(size=(120, 36)) as pilot:
            await until(pilot, lambda: "Resume at half" in screen_text(app))
            await pilot.press("enter")
            await until(pilot, lambda: app.session.state == "training")
            assert [launched.learning_rate_factor for launched in training.launches] == [None, 0.5]
            app.session.stop()
            app.session.join(5)

    run(test())


SIZES = [(120, 36), (100, 30), (99, 29), (80, 24), (60, 16), (59, 15), (40, 10), (20, 5), (5, 2), (1, 1), (200, 60)]


@pytest.mark.slow
def test_every_size_can_be_shown_and_resized_to():
    async def test():
        async with workbench(StoryTraining(), size=(1, 1)) as (app, pilot):
            for width, height in SIZES:
                await pilot.resize_terminal(width, height)
                await pilot.press("right_square_bracket", "left", "t")
            assert isinstance(app.screen, TrainScreen)

    run(test())


def test_a_narrow_screen_has_a_strip_tabs_and_one_pane():
    async def test():
        async with workbench(StoryTraining(), size=(80, 24)) as (app, pilot):
            screen = app.screen
            assert screen.query_one(NumbersStrip).size.height == 2
            assert not screen.query_one("#side").display
            assert not screen.query_one(EventLog).display
            await pilot.press("t")
            assert screen.query_one(EventLog).display
            assert not screen.query_one(SampleTimeline).display
            for name in ("lr", "grad", "tok/s", "loss"):
                await pilot.press("right_square_bracket")
                assert screen.plots.main == name
            await until(pilot, lambda: "1.604" in screen_text(app))
            assert len(screen.query("FooterKey")) <= 7
            assert {"^q", "?"} <= {key.key_display for key in screen.query("FooterKey")}

    run(test())


@pytest.mark.slow
def test_a_hundred_thousand_steps_of_a_live_run_are_taken_in_bounded_memory():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            view = app.screen.view
            view.add(story(5000, start=412, num_iterations=100_000))
            assert sum(len(curve.points()) for curve in view.history.curves) < 20 * 2049
            assert len(view.log) <= view.log.maxlen
            await pilot.press("y")

    run(test())


def test_a_finished_run_offers_more_steps_and_a_chat():
    async def test():
        run_folder = write_run("2026-01-01-000000-done", steps=100, checkpoints=(50, 100))
        append(run_folder, events.CheckpointSaved(step=100, path="checkpoints/step-00000100", seconds=1.0, bytes=1))
        append(run_folder, events.RunFinished(step=100, best_val_loss=1.0, seconds=1.0))
        training = FakeTraining()
        async with workbench() as (app, pilot):
            app.session._stream = training
            chats = []
            app.open_chat = chats.append
            app.attach_run(run_folder)
            await until(pilot, lambda: "Train longer" in screen_text(app))
            await pilot.press("o")
            assert chats == [str(run_folder.folder)]
            await pilot.press("space")
            await until(pilot, lambda: isinstance(app.screen, TrainLongerDialog))
            assert app.screen.query_one(Input).value == "200"
            await pilot.press(*"100", "enter")
            assert "more than 100" in screen_text(app)
            await pilot.press("backspace", "backspace", "backspace", *"1,500", "enter")
            await until(pilot, lambda: app.session.state == "training")
            (launched,) = training.launches
            assert launched.resume == run_folder
            assert launched.overrides == ("training.num_iterations=1500",)
            assert launched.loaded.preset.training.num_iterations == 1500
            assert not app.screen.check_action("train_longer", ())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "word"),
    [("finished", "✓ FINISHED"), ("stopped", "■ STOPPED"), ("failed", "✗ FAILED"), ("crashed", "! CRASHED")],
)
def test_a_run_is_loading_until_its_state_is_known_and_then_has_that_of_the_runs_screen(ending, word, monkeypatch):
    async def test():
        other = write_run("2026-01-01-000000-other", steps=20, ending=ending)
        may, real = threading.Event(), feed.read_lock
        monkeypatch.setattr(feed, "read_lock", lambda run: may.wait(60) and real(run))
        async with workbench() as (app, pilot):
            app.attach_run(other)
            await until(pilot, lambda: app.screen.view.history.progress.step == 20)
            await until(pilot, lambda: "LOADING" in screen_text(app))
            assert not any(state in screen_text(app) for state in ("TRAINING", "FAILED", "CRASHED", "FINISHED"))
            may.set()
            await until(pilot, lambda: word in screen_text(app))
            assert RunListing().read()[0].state.upper() == word[2:]

    run(test())


def test_a_run_that_a_rule_has_ended_is_trained_longer_without_the_rule():
    async def test():
        ended = write_run("2026-01-01-000000-done", steps=20, overrides=["training.patience=3"], ending="crashed")
        append(ended, events.CheckpointSaved(step=20, path="checkpoints/step-00000020", seconds=1.0, bytes=1))
        append(ended, events.RunFinished(step=20, best_val_loss=1.0, seconds=1.0, reason="patience"))
        training = FakeTraining()
        async with workbench() as (app, pilot):
            app.session._stream = training
            app.attach_run(ended)
            await until(pilot, lambda: app.screen.check_action("train_longer", ()))
            assert "patience" in screen_text(app)
            await pilot.press("space")
            await until(pilot, lambda: isinstance(app.screen, TrainLongerDialog))
            await pilot.press("enter")
            await until(pilot, lambda: app.session.state == "training")
            (launched,) = training.launches
            assert launched.overrides == ("training.num_iterations=40", "training.patience=auto")
            assert launched.loaded.preset.training.patience is None


def test_the_header_names_the_training_of_this_process_beside_another_run():
    async def test():
        other = write_run("2026-01-01-000000-small", steps=20, ending="crashed")
        async with workbench(StoryTraining()) as (app, pilot):
            app.attach_run(other)
            await until(pilot, lambda: "training here: small" in screen_text(app).splitlines()[0])
            await pilot.press("escape")
            await until(pilot, lambda: "training here" not in screen_text(app))

    run(test())


def test_the_evaluation_after_the_last_step_is_evaluating():
    async def test():
        async with workbench(StoryTraining(num_iterations=412)) as (app, pilot):
            await until(pilot, lambda: "◆ EVALUATING" in screen_text(app))

    run(test())


def test_help_has_the_definitions_and_dims_the_keys_that_do_nothing_now():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            keys = {what.partition(" (")[0]: acts for _, what, acts in bindings_by_place(app.screen)["This screen"]}
            assert keys["Stop"]
            assert not keys["lr"]  # while it trains
            app.session.stop()
            await until(pilot, lambda: app.session.state == "stopped")
            keys = {what.partition(" (")[0]: acts for _, what, acts in bindings_by_place(app.screen)["This screen"]}
            assert not any(keys[name] for name in ("Stop", "Pause", "Checkpoint", "Evaluate", "Sample", "lr"))
            assert keys["Compare"]
            for definition in (*numbers.DEFINITIONS.values(), *plots.DEFINITIONS.values()):
                assert definition in app.screen.HELP

    run(test())


def test_ctrl_z_says_that_it_does_not_suspend():
    async def test():
        async with workbench(StoryTraining()) as (app, pilot):
            await pilot.press("ctrl+z")
            await until(pilot, lambda: "leaves the workbench" in said(app))

    run(test())
