"""Which models answer on the Chat screen: saved ones, several at once, and the one that is being trained."""

import pytest
from rich.cells import cell_len

from gpt2tui.errors import CheckpointError
from gpt2tui.tui.chat import models as chat_models
from gpt2tui.tui.chat.model_list import group_lines
from gpt2tui.tui.chat.models import ModelChoice, SelectedModels, live_weights
from gpt2tui.tui.messages import RunsChanged
from gpt2tui.tui.session import TrainingSession
from gpt2tui.tui.widgets.dialogs import ErrorDialog
from gpt2tui.tui.widgets.mode_bar import shorten_middle
from tests.tracking import event_samples
from tests.tui.chat_story import HOSTILE, SAVED, done, driven, foot, text_of
from tests.tui.fake_chat import FakeModel
from tests.tui.looking import until


@pytest.fixture(autouse=True)
def saved(monkeypatch):
    monkeypatch.setattr(chat_models, "saved_models", lambda: list(SAVED))


def test_without_any_model_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(chat_models, "saved_models", list)

    async def story(pilot, screen):
        await pilot.press("a", "enter")
        assert screen.answers == []
        assert screen.prompt.text == "a"
        await until(pilot, lambda: any("no model yet" in toast.message for toast in pilot.app._notifications))

    driven(tmp_path, story)


@pytest.mark.slow
def test_two_models_answer_side_by_side_with_the_same_seed(tmp_path):
    loaded = []

    def load(reference):
        loaded.append(reference)
        return FakeModel(reference, ends_after=5)

    async def story(pilot, screen):
        models = screen.query_one("ModelList")
        models.focus()
        models.highlighted = 2  # under the name of the run and its best
        await pilot.press("space")
        screen.prompt.focus()
        await pilot.press("a", "enter")
        await done(pilot)
        left, right = screen.answers
        assert (left.choice.step, right.choice.step) == (500, 600)
        assert left.request.sampling == right.request.sampling
        assert left.written == right.written != ""
        assert left.region.y == right.region.y
        assert left.region.right <= right.region.x
        models.focus()
        await pilot.press("space")  # no longer
        screen.prompt.focus()
        await pilot.press("a", "enter")
        await done(pilot)
        assert len(screen.answers) == 3

    app = driven(tmp_path, story, load=load)
    assert sorted(set(loaded)) == [choice.reference for choice in SAVED]
    assert len(loaded) == 2  # each once: both stay in memory
    assert len(app.models.references) == 2


@pytest.mark.slow
def test_the_models_can_be_filtered_and_chosen_from_what_is_left(tmp_path):
    async def story(pilot, screen):
        models = screen.query_one("ModelList")
        assert screen.chosen.first == SAVED[0]
        await pilot.press("escape", "slash", *"small 600")
        assert models.border_title == "models · 1 of 2"
        await pilot.press("enter", "enter")
        assert screen.chosen.first == SAVED[1]
        assert screen.prompt.has_focus
        await pilot.press("escape", "slash", "x")
        assert models.get_option_at_index(0).prompt == "none matches"
        assert screen.chosen.first == SAVED[1]  # what is not shown still answers
        await pilot.press("escape")
        assert models.option_count == 3
        assert models.has_focus

    driven(tmp_path, story)


@pytest.mark.parametrize("size", [(120, 20), (24, 12)])
def test_a_model_is_one_line_however_narrow_and_long_the_list(tmp_path, monkeypatch, size):
    choices = [ModelChoice(f"/runs/長い名前-{'x' * 40}/{n}", "長い名前" * 9, n * 1_117, 2.0698) for n in range(1, 30)]
    choices[0] = ModelChoice("/runs/b", choices[0].group, 1_234_567, 0.0698, is_best=True)
    choices[1] = ModelChoice("/runs/n", choices[0].group, 12, 0.0698, is_newest=True)
    monkeypatch.setattr(chat_models, "saved_models", lambda: choices)

    async def story(pilot, screen):
        models = screen.query_one("ModelList")
        if size[0] < 60:
            await pilot.press("escape", "s")
        await until(pilot, lambda: models.virtual_size.height == models.option_count == 30)
        width = models.scrollable_content_region.width
        rows = [models.render_line(y).text.rstrip() for y in range(min(5, models.size.height))]
        assert all(len(row) <= width for row in rows)
        assert rows[1].startswith("✓ ★")
        assert rows[1].endswith(("1,234,567", "0.070"))
        assert rows[2].endswith("12   0.070")

    driven(tmp_path, story, size=size)


def test_a_model_that_cannot_be_loaded_is_a_dialog_and_the_chat_continues(tmp_path):
    calls = []

    def load(reference):
        calls.append(reference)
        if len(calls) == 1:
            raise CheckpointError(f"{reference} is damaged {HOSTILE}")
        return FakeModel(reference, ends_after=3)

    async def story(pilot, screen):
        await pilot.press("a", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ErrorDialog))
        await pilot.press("enter")
        assert "is damaged" in foot(screen.answers[0])
        await pilot.press("a", "enter")
        await done(pilot)
        assert screen.answers[1].ending == "document"

    driven(tmp_path, story, load=load)


@pytest.mark.slow
def test_a_model_that_fails_while_it_writes_keeps_what_it_wrote(tmp_path):
    async def story(pilot, screen):
        await pilot.press("a", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ErrorDialog))
        await pilot.press("enter")
        assert screen.answers[0].statistics.tokens == 4
        assert "out of" in foot(screen.answers[0])
        assert screen.answers[0].record().failure

    driven(tmp_path, story, load=lambda reference: FakeModel(reference, fails_at=4))


class LiveSession(TrainingSession):
    """A training that is always at step 412; its weights come when `release` is called."""

    def __init__(self):
        super().__init__()
        from pathlib import Path

        from gpt2tui.run.folder import Run
        from gpt2tui.tracking.run_progress import RunProgress

        self.state = "training"
        self.run = Run(Path("live-run"))
        self.progress = RunProgress(step=412)
        self.copies = []

    def copy_weights(self):
        from concurrent.futures import Future

        self.copies.append(Future())
        return self.copies[-1]

    def stop(self):
        self.state = "finished"


def test_live_weights_come_first_and_are_copied_anew_for_each_answer(tmp_path):
    session = LiveSession()

    async def story(pilot, screen):
        await until(pilot, lambda: screen.chosen.first is not None)
        assert screen.chosen.first.reference is None
        assert screen.query_one("ModelList").get_option_at_index(1).prompt.plain.startswith("✓ ● live")
        for n in (1, 2):
            await pilot.press("a", "enter")
            await until(pilot, lambda n=n: len(session.copies) == n)
            session.copies[-1].set_result(FakeModel(f"live-run, live at step {411 + n}", ends_after=4))
            await done(pilot)
        assert "live at step 413" in text_of(screen.answers[1].query_one(".answer-head"))

    driven(tmp_path, story, session=session)


@pytest.mark.slow
def test_live_weights_answer_while_nothing_is_chosen_by_hand(tmp_path, monkeypatch):
    session = LiveSession()
    session.state, session.run, run = "idle", None, session.run
    own = ModelChoice("/runs/live-run/step-400", "live-run", 400, 3.5, is_best=True)
    monkeypatch.setattr(chat_models, "saved_models", lambda: [*SAVED, own])

    async def story(pilot, screen):
        async def at(state):
            session.state = state
            screen._refresh_models()
            await until(pilot, lambda: not screen._listing)
            return screen.chosen.first, str(screen.transcript.border_title)

        assert (await at("idle"))[0] == SAVED[0]
        session.run = run
        for state in ("training", "paused"):
            first, title = await at(state)
            assert first.reference is None
            assert title.startswith("● live-run, live weights")
        assert await at("finished") == (own, "live-run, step 400 (best val loss)")
        screen.query_one("ModelList").focus()
        screen.query_one("ModelList").highlighted = 2
        await pilot.press("enter")
        first, title = await at("training")
        assert first == SAVED[1]
        assert title.startswith("small, step 600 (newest)")

    driven(tmp_path, story, session=session)


@pytest.mark.slow
def test_live_weights_that_never_come_can_be_stopped_or_end_with_the_training(tmp_path):
    session = LiveSession()

    async def story(pilot, screen):
        await until(pilot, lambda: screen.chosen.first is not None)
        await pilot.press("a", "enter")
        await until(pilot, lambda: screen._stop is not None)
        await pilot.press("escape")
        await done(pilot)
        assert screen.answers[0].ending == "stopped"
        await pilot.press("a", "enter")
        await until(pilot, lambda: len(session.copies) == 2)
        session.copies[-1].cancel()
        await until(pilot, lambda: isinstance(pilot.app.screen, ErrorDialog))
        await pilot.press("enter")
        assert "the training has ended" in foot(screen.answers[1])

    driven(tmp_path, story, session=session)


@pytest.mark.slow
def test_another_mode_opens_the_chat_with_a_checkpoint(tmp_path):
    async def story(pilot, screen):
        screen.select_model("/runs/small/step-600")
        await until(pilot, lambda: pilot.app.models.references == ["/runs/small/step-600"])
        assert screen.chosen.first.step == 600
        screen.select_model("openai-community/gpt2")
        await until(pilot, lambda: screen.chosen.first.reference == "openai-community/gpt2")
        assert screen.chosen.first in screen.chosen.all

    driven(tmp_path, story)


@pytest.mark.slow
def test_a_checkpoint_beside_a_training_on_the_gpu_answers_from_the_cpu_and_says_so(tmp_path):
    session, loads = LiveSession(), []
    session.state = "idle"

    def load(reference, gpu):
        loads.append(gpu)
        on_gpu = gpu == "all"
        note = None if on_gpu else "on the CPU: a training needs the GPU's memory"
        return FakeModel(reference, ends_after=3, device_type="cuda" if on_gpu else "cpu", placement_note=note)

    async def story(pilot, screen):
        screen.select_model(SAVED[0].reference)
        await until(pilot, lambda: pilot.app.models.references)
        assert "on the CPU" not in str(screen.transcript.border_title)
        session.state = "preparing"
        screen.post_message(RunsChanged())
        await until(pilot, lambda: not pilot.app.models.references)  # it was on the GPU
        await pilot.press("a", "enter")
        await done(pilot)
        assert "on the CPU: a training needs" in str(screen.transcript.border_title)
        assert "on the CPU: a training needs" in text_of(screen.answers[0].query_one(".answer-note"))
        session.progress = session.progress.after(event_samples.step(1))
        await pilot.press("a", "enter")
        await done(pilot)
        session.state = "finished"
        await pilot.press("a", "enter")
        await done(pilot)
        assert loads == ["all", "none", "spare", "all"]
        assert "on the CPU" not in str(screen.transcript.border_title)

    driven(tmp_path, story, session=session, load=load, takes_gpu_use=True)


def test_names_of_runs_are_told_apart_at_every_width():
    names = [
        "2026-10-05-181900-no-bias-long-name-for-a-preset",
        "2026-10-05-181901-no-bias-long-name-for-a-preset",
        "2026-10-06-181900-no-bias-long-name-for-a-preset",
        "2026-10-05-181900-no-bias-long-name-for-a-sweep",
        "my-own-folder-with-a-name-that-is-long",
    ]
    for width in (28, 31, 48, 60):
        lines = group_lines(names, width)
        assert len(set(lines.values())) == len(names)
        assert all(cell_len(line) <= width for line in lines.values())
        assert all(lines[name].startswith("no-bia") for name in names[:4])
    (line,) = group_lines(["2026-10-05-181900-small"], 31).values()
    assert line == f"small{' ' * 15}10-05 18:19"
    assert shorten_middle("abcdefghij", 7) == "abc…hij"
    assert [shorten_middle("abcdefghij", width) for width in (0, 1, 2)] == ["…", "…", "a…"]


def test_a_live_run_is_under_one_heading_although_a_newer_run_exists():
    own = ModelChoice("/runs/a/step-1", "a", 1)
    newer = ModelChoice("/runs/b/step-1", "b", 1)
    chosen = SelectedModels()
    chosen.update(live_weights("a", 3), [newer, own])
    assert [choice.group for choice in chosen.all] == ["a", "a", "b"]


def test_a_second_model_that_is_gone_is_named(tmp_path):
    said = []

    async def story(pilot, screen):
        screen._say = lambda text, severity="information": said.append(text)
        second = screen.chosen.all[1]
        screen.chosen.choose_second(second)
        screen._update_chosen([choice for choice in SAVED if choice != second])
        assert said == [f"{second.label} is no longer there and does not answer beside the other"]

    driven(tmp_path, story)
