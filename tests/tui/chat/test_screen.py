"""The Chat screen, driven by keys: prompts, answers, tokens, and what is kept of them."""

import asyncio
import threading
import time

import pytest
from textual.content import Content
from textual.events import Key, Paste
from textual.screen import Screen

from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import SamplingTable
from gpt2tui.preset.template import Template
from gpt2tui.tui.chat import models as chat_models
from gpt2tui.tui.chat.models import ModelChoice
from gpt2tui.tui.chat.screen import ChatScreen
from gpt2tui.tui.chat.token_text import AlternativesLine
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, ErrorDialog, TextDialog
from tests.tui.chat_story import HOSTILE, SAVED, done, driven, foot, short, text_of
from tests.tui.fake_chat import WORDS, ChatApp, FakeModel
from tests.tui.looking import settled, until


@pytest.fixture(autouse=True)
def saved(monkeypatch):
    monkeypatch.setattr(chat_models, "saved_models", lambda: list(SAVED))


def test_enter_continues_the_prompt_with_the_first_model_and_shows_settings_and_statistics(tmp_path):
    async def story(pilot, screen):
        await pilot.press(*"Once", "enter")
        await done(pilot)
        (answer,) = screen.answers
        assert answer.request.prompt == "Once"
        seed = SamplingTable().seed
        assert answer.written == "".join(WORDS[(seed + n) % len(WORDS)] for n in range(6))
        assert answer.whole == "Once" + answer.written
        assert "small, step 500 (best val loss)" in text_of(answer.query_one(".answer-head"))
        assert f"seed {seed}" in text_of(answer.query_one(".answer-head"))
        for part in ("6 tokens", "tok/s", "mean p", "perplexity", "end of document"):
            assert part in foot(answer)
        assert screen.prompt.text == ""

    driven(tmp_path, story, load=short())


def type_at_once(app, text):
    """Puts keys into the app's queue in one go, as a terminal does with what it reads in one piece; `⏎` is Enter."""
    special = {"⏎": "enter", "↑": "up", "␛": "escape", "⌫": "backspace", "≈": "ctrl+g", "↻": "ctrl+r"}
    for letter in text:
        app.post_message(Key(special[letter], None) if letter in special else Key(letter, letter))


def test_keys_act_in_the_order_in_which_they_are_typed_however_fast(tmp_path):
    gate = threading.Event()

    async def story(pilot, screen):
        type_at_once(pilot.app, "import syx⌫s⏎two⏎three")
        await until(pilot, lambda: screen.prompt.text == "twothree")  # refused while the first is being continued
        (answer,) = screen.answers
        assert answer.request.prompt == "import sys"
        gate.set()
        await done(pilot)
        screen.prompt.text = ""
        type_at_once(pilot.app, "four≈no")
        await until(pilot, lambda: screen.prompt.text == "no")
        await done(pilot)
        assert (screen.answers[1].request.task, screen.answers[1].request.prompt) == ("score", "four")
        type_at_once(pilot.app, "⏎↑t")
        await until(pilot, lambda: screen.prompt.text == "not")
        assert screen.answers[2].request.prompt == "no"
        await done(pilot)

    driven(tmp_path, story, load=short(gate=gate))


def test_what_is_typed_behind_the_key_to_the_prompt_goes_to_the_prompt(tmp_path):
    async def story(pilot, screen):
        screen.set_focus(screen.transcript)
        type_at_once(pilot.app, "ihi")
        await until(pilot, lambda: screen.prompt.text == "hi")
        assert not screen.transcript.heat_map

    driven(tmp_path, story, load=short())


@pytest.mark.slow
def test_what_is_typed_while_the_screen_is_being_made_goes_to_the_prompt(tmp_path):
    app = ChatApp(tmp_path, load=short())
    app.MODES |= dict.fromkeys(("presets", "train", "runs"), Screen)
    app.settings.remember("mode", "train")

    async def drive():
        async with app.run_test() as pilot:
            app.post_message(Key("f4", None))
            type_at_once(app, "hims 14⏎o")
            await until(pilot, lambda: app.current_mode == "chat" and app.screen.query("ChatAnswer"))
            assert app.screen.answers[0].request.prompt == "hims 14"
            assert app.screen.prompt.text == "o"
            await done(pilot)
            app.screen.set_focus(None)  # as a click beside everything does
            for key in ("f3", "f4"):
                app.post_message(Key(key, None))
            type_at_once(app, "c1")
            await until(pilot, lambda: isinstance(app.screen, ChatScreen) and app.screen.prompt.text.endswith("oc1"))
            assert app.current_mode == "chat"
            await pilot.press("escape", "f3", "f4", "c", "2")
            assert app.screen.prompt.text.endswith("oc1c2")

    asyncio.run(drive())


@pytest.mark.slow
def test_text_streams_in_while_the_model_writes_and_escape_stops_it(tmp_path):
    gate = threading.Event()

    async def story(pilot, screen):
        await pilot.press("a", "enter")
        await until(pilot, lambda: screen.answers[0].facts is not None)
        gate.set()
        await until(pilot, lambda: screen.answers[0].statistics.tokens > 0)
        assert not screen.answers[0].done
        await pilot.press("enter")  # a second question has to wait
        assert len(screen.answers) == 1
        await pilot.press("escape")
        await done(pilot)
        assert screen.answers[0].ending == "stopped"
        assert 0 < screen.answers[0].statistics.tokens < 2000
        await pilot.press("b", "enter")
        assert len(screen.answers) == 2
        await pilot.press("escape")
        await done(pilot)

    class Slow(FakeModel):
        def stream(self, prompt, sampling, alternatives=0):
            for piece in super().stream(prompt, sampling, alternatives):
                time.sleep(0.05)  # so that a slow machine presses escape in time
                yield piece

    driven(tmp_path, story, load=lambda reference: Slow(reference, gate=gate))


@pytest.mark.slow
def test_the_transcript_begins_at_the_top_and_follows_what_is_written(tmp_path):
    async def story(pilot, screen):
        transcript = screen.query_one("#transcript")
        for number in range(6):
            await pilot.press("a", "enter")
            await done(pilot)
            if number == 0:
                assert transcript.scroll_offset.y == 0
                assert screen.answers[0].region.y == transcript.content_region.y
        assert transcript.scroll_offset.y == transcript.max_scroll_y > 0

    driven(tmp_path, story, size=(80, 24), load=short())


@pytest.mark.slow
def test_leaving_the_program_ends_the_thread_that_writes(tmp_path):
    begun, ended = threading.Event(), threading.Event()

    async def story(pilot, screen):
        await pilot.press("a", "enter")
        await until(pilot, begun.is_set)
        assert not ended.is_set()

    class Endless(FakeModel):
        def stream(self, prompt, sampling, alternatives=0):
            begun.set()
            try:
                while True:
                    time.sleep(0.005)
                    yield self._piece(0, alternatives)
            finally:
                ended.set()

    driven(tmp_path, story, load=lambda reference: Endless(reference))
    assert ended.wait(60)


@pytest.mark.slow
def test_regenerate_takes_the_same_prompt_with_the_next_seed(tmp_path):
    async def story(pilot, screen):
        await pilot.press(*"Once", "enter")
        await done(pilot)
        await pilot.press("ctrl+r")
        await done(pilot)
        first, second = (answer.request for answer in screen.answers)
        assert second.prompt == first.prompt
        assert second.sampling.seed == first.sampling.seed + 1 == screen.panel.seed
        assert screen.answers[0].written != screen.answers[1].written

    driven(tmp_path, story, load=short())


def test_up_recalls_prompts_and_down_comes_back_to_the_draft(tmp_path):
    async def story(pilot, screen):
        for prompt in ("one", "two"):
            await pilot.press(*prompt, "enter")
            await done(pilot)
        await pilot.press(*"dra", "up")
        assert screen.prompt.text == "two"
        await pilot.press("up", "up")
        assert screen.prompt.text == "one"
        await pilot.press("down", "down")
        assert screen.prompt.text == "dra"

    driven(tmp_path, story, load=short())


@pytest.mark.slow
def test_a_backslash_before_enter_makes_a_new_line(tmp_path):
    async def story(pilot, screen):
        await pilot.press("a", "backslash", "enter", "b")
        assert screen.prompt.text == "a\nb"
        assert screen.answers == []

    driven(tmp_path, story)


def test_an_empty_prompt_starts_a_new_document_and_says_so(tmp_path):
    async def story(pilot, screen):
        await pilot.press("enter")
        await done(pilot)
        assert "empty prompt: a new document" in text_of(screen.answers[0].query_one(".answer-note"))
        assert screen.answers[0].written

    driven(tmp_path, story, load=short())


def test_a_prompt_beyond_the_context_says_what_the_model_sees(tmp_path):
    async def story(pilot, screen):
        screen.prompt.text = "word " * 20
        await pilot.press("enter")
        await done(pilot)
        note = text_of(screen.answers[0].query_one(".answer-note"))
        assert "20 tokens" in note
        assert "last 16" in note

    driven(tmp_path, story, load=short())


def test_a_loss_near_that_of_a_uniform_distribution_is_noted(tmp_path):
    async def story(pilot, screen):
        await pilot.press("a", "enter")
        await done(pilot)
        assert "loss near ln 4,096" in foot(screen.answers[0])

    driven(tmp_path, story, load=lambda reference: FakeModel(reference, ends_after=20, odds=1 / 4096))


@pytest.mark.slow
def test_the_heat_map_shows_five_alternatives_under_the_cursor(tmp_path):
    async def story(pilot, screen):
        await pilot.press("a", "enter")
        await done(pilot)
        await pilot.press("escape", "h", "right")
        await pilot.pause()
        text = screen.answers[0].token_text
        assert text.heat_map
        alternatives = screen.query_one(AlternativesLine)
        assert alternatives.display
        assert alternatives.token == text.tokens[2]
        shown = str(alternatives.render())
        assert shown.count("%") == 6  # the token itself and five alternatives
        await pilot.press("h")
        assert not text.heat_map
        assert not alternatives.display

    driven(tmp_path, story, load=short())


@pytest.mark.slow
def test_heat_acts_from_the_prompt_and_the_palette_has_what_letters_do_elsewhere(tmp_path):
    async def story(pilot, screen):
        await pilot.press("a", "enter")
        await done(pilot)
        shown = {a.binding.description: a.binding.key for a in screen.active_bindings.values() if a.binding.show}
        assert shown["Heat"] == "ctrl+t"
        await pilot.press("ctrl+t")
        assert screen.answers[0].token_text.heat_map
        screen.prompt.focus()
        await pilot.press("ctrl+t")
        assert not screen.answers[0].token_text.heat_map
        assert screen.prompt.has_focus
        await pilot.press("ctrl+p", *"heat")
        await until(pilot, lambda: pilot.app.screen.query("CommandList").first().option_count == 1)
        await pilot.press("enter", "enter")
        await until(pilot, lambda: screen.answers[0].token_text.heat_map)

    driven(tmp_path, story, load=short())


def test_the_surprisal_of_a_typed_text_is_shown_token_by_token(tmp_path):
    async def story(pilot, screen):
        screen.prompt.text = "four words of text"
        await pilot.press("ctrl+g")
        await done(pilot)
        (answer,) = screen.answers
        assert answer.request.task == "score"
        assert [token.text for token in answer.token_text.tokens] == ["four", " words", " of", " text"]
        assert [token.probability for token in answer.token_text.tokens] == [1, 0.5, 0.25, 0.125]
        # (0 + 1 + 2 + 3) bits over 18 bytes; e to the mean of as many nats
        assert "0.33 bits/byte of this passage" in foot(answer)
        assert "perplexity 2.83" in foot(answer)
        assert answer.token_text.heat_map

    driven(tmp_path, story)


def test_a_pasted_text_keeps_its_lines_and_loses_escape_sequences(tmp_path):
    async def story(pilot, screen):
        pilot.app.post_message(Paste(f"two\r\nor\rthree\nlines{HOSTILE}"))
        await pilot.pause()
        assert screen.prompt.text.startswith("two\nor\nthree\nlines")
        assert "\x1b" not in screen.prompt.text

    driven(tmp_path, story)


def test_copy_takes_the_last_text_without_terminal_escape_sequences(tmp_path):
    async def story(pilot, screen):
        await pilot.press("a", "enter")
        await done(pilot)
        await pilot.press("escape", "c")

    app = driven(tmp_path, story, load=short(words=(HOSTILE, "x")))
    (copied,) = app.copied
    assert copied.startswith("a")
    assert "\x1b" not in copied


@pytest.mark.slow
def test_the_transcript_is_saved_as_markdown_and_never_over_a_file_unasked(tmp_path):
    path = tmp_path / "chat.md"

    async def story(pilot, screen):
        await pilot.press(*"Once", "enter")
        await done(pilot)
        for answer in ("created", "kept"):
            await pilot.press("ctrl+s")
            await until(pilot, lambda: isinstance(pilot.app.screen, TextDialog))
            pilot.app.screen.query_one("Input").value = str(path)
            await pilot.press("enter")
            await pilot.pause()
            if answer == "kept":
                await until(pilot, lambda: isinstance(pilot.app.screen, ConfirmDialog))
                await pilot.press("enter")
            else:
                assert "Once" in path.read_text()
                path.write_text("mine")

    driven(tmp_path, story, load=short())
    assert path.read_text() == "mine"


@pytest.mark.slow
def test_no_escape_sequence_reaches_the_screen_from_names_texts_alternatives_or_failures(tmp_path, monkeypatch):
    evil = ModelChoice(f"/runs/{HOSTILE}", HOSTILE, 5, 1.0, is_best=True)
    monkeypatch.setattr(chat_models, "saved_models", lambda: [evil])

    async def story(pilot, screen):
        screen.prompt.text = "a"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ErrorDialog))
        shown = drawn(pilot.app)
        await pilot.press("enter", "escape", "h", "right")
        await settled(pilot)
        shown += drawn(pilot.app)
        assert "[/bold]" in shown  # it is there as text, so the test sees what is drawn
        assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown)

    def drawn(app):
        return "".join(s.text for line in app.screen._compositor.render_strips() for s in line)

    driven(tmp_path, story, load=lambda reference: FakeModel(HOSTILE, words=(HOSTILE, HOSTILE), fails_at=3))


def test_more_continues_prompt_and_continuation(tmp_path):
    async def story(pilot, screen):
        await pilot.press(*"Once", "enter")
        await done(pilot)
        await pilot.press("escape", "m")
        await done(pilot)
        first, second = screen.answers
        assert second.request.prompt == "Once" + first.written

    driven(tmp_path, story, load=short())


def test_the_chat_template_makes_a_conversation_and_ends_with_the_turn(tmp_path):
    async def story(pilot, screen):
        screen.query_one("#template").value = True
        for prompt in ("hi", "and"):
            await pilot.press(*prompt, "enter")
            await done(pilot)
        first, second = screen.answers
        assert first.request.prompt == "User: hi\nAssistant:"
        assert first.ending == "turn"
        assert first.written == " hello\nUser:"
        assert second.request.prompt == "User: hi\nAssistant: hello\nUser: and\nAssistant:"
        assert second.whole.startswith("User: and\nAssistant:")

    model = {"words": (" hello", "\nUs", "er:", " what"), "sampling": SamplingTable(seed=0)}

    async def seeded(pilot, screen):
        screen.panel.seed = 0
        await story(pilot, screen)

    driven(tmp_path, seeded, load=lambda reference: FakeModel(reference, **model))


@pytest.mark.slow
def test_a_model_with_a_template_of_its_own_answers_in_it_by_itself(tmp_path):
    model = FakeModel(words=(" yes.",), ends_after=1, template=Template("Q: {prompt} A: {completion}."))

    async def story(pilot, screen):
        for prompt in ("hi", "and"):
            await pilot.press(*prompt, "enter")
            await done(pilot)
        assert screen.query_one("#template").value  # shown as soon as the model is known
        first, second = screen.answers
        assert first.whole == "Q: hi A: yes."
        assert first.ending == "turn"
        assert second.whole.startswith("Q: and A:")
        assert model.asked == [("hi", ()), ("and", (("hi", "yes"),))]
        await pilot.press("ctrl+r")  # the same conversation with the next seed
        await done(pilot)
        assert model.asked[2] == model.asked[1]
        screen.query_one("#template").value = False  # by hand, which the next model does not change
        await pilot.pause()
        screen.panel.suggest_template(True)
        assert screen.panel.template == "off"
        await pilot.press(*"raw", "enter")
        await done(pilot)
        assert screen.answers[-1].whole == "raw yes."

    driven(tmp_path, story, load=lambda reference: model)


@pytest.mark.slow
def test_sliders_take_a_models_own_settings_until_the_user_moves_one(tmp_path):
    async def story(pilot, screen):
        models = screen.query_one("ModelList")
        models.focus()
        await pilot.press("enter")
        await until(pilot, lambda: screen.panel.sampling.temperature == 0.7)
        assert screen.panel.sampling.top_k == 40
        screen.query_one("#temperature").focus()
        await pilot.press("right", "1", ".", "2", "enter")
        assert pilot.app.current_mode == "chat"  # digits on a slider are no modes
        models.focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: len(pilot.app.models.references) == 2)
        assert screen.panel.sampling.temperature == 1.2

    driven(tmp_path, story)


def test_the_first_models_settings_are_there_before_it_is_loaded(tmp_path, monkeypatch):
    small = preset_files.load(["small"]).preset
    (tmp_path / "preset.toml").write_text(preset_files.dumps(small))
    choice = ModelChoice(str(tmp_path), "small", 500, 2.9, is_best=True)
    monkeypatch.setattr(chat_models, "saved_models", lambda: [choice])

    async def story(pilot, screen):
        await until(pilot, lambda: screen.panel.sampling.temperature == small.sampling.temperature == 1.0)
        assert (screen.panel.sampling.top_k, screen.panel.sampling.top_p) == (0, 0.95)
        assert not pilot.app.models.references

    driven(tmp_path, story)


@pytest.mark.slow
def test_every_size_works_and_can_change_at_any_time(tmp_path):
    async def story(pilot, screen):
        for number, size in enumerate([(10, 3), (120, 36), (80, 24), (40, 12), (20, 5)]):
            await pilot.press(*"Once", "enter")
            await pilot.resize_terminal(*size)
            await until(pilot, lambda number=number: len(screen.answers) == number + 1)
            await done(pilot)
            await pilot.press("escape", "h", "right", "down", "h", "s")
            await pilot.resize_terminal(100, 30)
            await pilot.resize_terminal(*size)
            await pilot.press("s")
            await pilot.pause()
            assert screen.answers[-1].written
            await pilot.press("i")  # back to the prompt

    driven(tmp_path, story, size=(10, 3), load=short())


@pytest.mark.slow
def test_escape_is_one_step_back_and_never_forward(tmp_path):
    async def story(pilot, screen):
        await pilot.press("escape")
        assert screen.transcript.has_focus
        await pilot.press("escape", "escape")
        assert screen.transcript.has_focus
        screen.query_one("#temperature").focus()
        await pilot.press("escape")
        assert screen.transcript.has_focus
        assert {active.binding.description for key, active in screen.active_bindings.items() if key == "escape"} == {
            "Back"
        }
        await pilot.press("i")
        assert screen.prompt.has_focus

    driven(tmp_path, story)


@pytest.mark.parametrize("keys", [("ctrl+t", "a", "enter"), ("a", "enter", "ctrl+t")])
def test_arrow_keys_move_in_the_heat_map_after_one_escape(tmp_path, keys):
    async def story(pilot, screen):
        await pilot.press(*keys)
        await until(pilot, lambda: screen.answers)
        await done(pilot)
        screen.prompt.focus()
        await pilot.press("escape")
        text = screen.answers[0].token_text
        assert text.has_focus
        before = text.cursor
        await pilot.press("right")
        assert text.cursor == before + 1
        await until(pilot, lambda: screen.query_one(AlternativesLine).token is text.tokens[text.cursor])

    driven(tmp_path, story)


def test_the_scale_of_the_heat_map_ends_at_log2_of_the_models_vocabulary_also_for_a_scored_text(tmp_path):
    async def story(pilot, screen):
        assert not screen.transcript.border_subtitle
        await pilot.press(*"a lazy dog", "ctrl+g")
        await until(pilot, lambda: screen.answers)
        await done(pilot)
        assert "0  6.0  12.0 bits = log2 4,096" in Content.from_markup(screen.transcript.border_subtitle).plain
        assert screen.answers[0].token_text.vocab_size == 4096

    driven(tmp_path, story)


@pytest.mark.slow
def test_letters_typed_at_the_seed_act_or_are_refused_with_a_word(tmp_path, monkeypatch):
    said = []

    async def story(pilot, screen):
        seed = screen.query_one("#seed")
        monkeypatch.setattr(seed, "notify", lambda message, **options: said.append(message))
        seed.focus()
        await pilot.press("end", "7", "z")
        assert seed.value == "13377"
        assert said == ["the seed is a whole number; i: write a prompt"]
        await pilot.press("i", "x")
        assert screen.prompt.has_focus
        assert screen.prompt.text == "x"

    driven(tmp_path, story)
