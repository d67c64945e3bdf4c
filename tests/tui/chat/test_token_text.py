"""Tokens on the screen: the layout, the heat, the cursor, and no escape sequences."""

import asyncio
import random

import pytest
from rich.cells import cell_len
from textual.app import App
from textual.containers import VerticalScroll

from gpt2tui.tui.chat.engine import ShownToken
from gpt2tui.tui.chat.token_text import TokenLayout, TokenText, heat


def laid_out(width, *texts):
    layout = TokenLayout(width)
    layout.add(texts)
    return ["".join(segment.text for segment in line) for line in layout.lines]


def test_lines_break_after_spaces_and_keep_white_space():
    assert laid_out(12, "def", " f", "(x):\n", "    re", "turn", " x + ", "1") == [
        "def f(x):",
        "    return x ",
        "+ 1",
    ]


def test_a_word_of_several_tokens_moves_to_the_next_line_as_a_whole():
    assert laid_out(8, "a big", "ger", "er") == ["a ", "biggerer"]


def test_a_word_longer_than_the_line_is_cut():
    assert laid_out(5, "abc", "defgh", "ij") == ["abcde", "fghij"]


def test_the_space_at_a_break_hangs_beyond_the_width():
    assert laid_out(5, "hello", " the", " end") == ["hello ", "the ", "end"]


@pytest.mark.parametrize("width", [1, 2, 3, 5, 10, 40])
def test_every_token_is_there_once_in_order_and_lines_fit_whatever_the_text(width):
    rng = random.Random(width)
    for _ in range(200):
        texts = ["".join(rng.choices("ab  \n日é\t", k=rng.randint(0, 6))) for _ in range(20)]
        whole, grown = TokenLayout(width), TokenLayout(width)
        whole.add(texts)
        for text in texts:
            grown.add([text])
        assert grown.lines == whole.lines
        for number, text in enumerate(texts):
            shown = "".join(segment.text for line in whole.lines for segment in line if segment.token == number)
            assert shown == text.replace("\n", "").replace("\t", "    ")
        for line in whole.lines:
            text = "".join(segment.text for segment in line)
            room = width + text.endswith(" ") + (width == 1)  # a wide character has nowhere to go in one column
            assert cell_len(text) <= room


def test_the_token_under_a_place_and_the_place_of_a_token_agree():
    layout = TokenLayout(6)
    layout.add(["one", " two", " three", "\n", "x"])
    for token in (0, 1, 2, 4):
        y, x = layout.place_of(token)
        assert layout.token_at(x, y) == token
    assert layout.place_of(3) is None
    assert layout.token_at(0, 99) is None


@pytest.mark.parametrize(("probability", "position"), [(1.0, 0.0), (0.5, 1 / 12), (2**-12, 1.0), (0.0, 1.0)])
def test_heat_is_the_surprisal_in_bits_from_0_to_that_of_a_uniform_distribution(probability, position):
    assert heat(probability, 4096) == pytest.approx(position)


class TextApp(App):
    def __init__(self, tokens):
        super().__init__()
        self.text = TokenText(tokens)
        self.pointed = []

    def compose(self):
        with VerticalScroll():
            yield self.text

    def on_token_text_pointed(self, event):
        self.pointed.append(event.token.text)


TOKENS = [ShownToken("Once"), *(ShownToken(f" w{n}", 0.5**n) for n in range(40))]


def driven(keys, heat_map=True, tokens=TOKENS, size=(20, 6)):
    app = TextApp(tokens)

    async def drive():
        async with app.run_test(size=size) as pilot:
            app.text.heat_map = heat_map
            app.text.focus()
            await pilot.press(*keys)
            await pilot.pause()
            app.strips = [app.text.render_line(y) for y in range(app.text.size.height)]
            app.scrolled = app.query_one(VerticalScroll).scroll_offset.y

    asyncio.run(drive())
    return app


def test_the_cursor_goes_over_written_tokens_and_never_onto_the_prompt():
    app = driven(["right", "right", "left", "left", "left", "left"])
    assert app.text.cursor == 1
    assert app.pointed[-1] == " w0"


def test_a_line_down_and_up_leads_back():
    app = driven(["down"])
    assert app.text.cursor > 3
    assert driven(["down", "up"]).text.cursor == 1


def test_the_last_token_is_scrolled_into_view():
    app = driven(["end"])
    assert app.text.cursor == 40
    assert app.scrolled > 0


def test_the_heat_map_colours_each_token_by_its_probability():
    app = driven([], tokens=[ShownToken("sure", 1.0), ShownToken(" odd", 0.001)])
    sure, odd = (segment.style for segment in list(app.strips[0])[:2])
    assert sure.bgcolor != odd.bgcolor
    assert odd.bgcolor.triplet.red > sure.bgcolor.triplet.red


def test_without_the_heat_map_tab_goes_past_and_the_prompt_is_dimmer_than_what_was_written():
    app = driven([], heat_map=False)
    assert not app.text.allow_focus()
    prompt, written = (segment.style for segment in list(app.strips[0])[:2])
    assert prompt.color != written.color


@pytest.mark.parametrize("evil", ["\x1b[31mred", "\x1b]52;c;bHVjaw==\x07", "[/bold] [red]", "\r\x08\u202e", "\x9b2J"])
def test_what_a_model_writes_cannot_reach_the_terminal(evil):
    app = driven(["right"], tokens=[ShownToken(evil), ShownToken(evil, 0.3)])
    drawn = "".join(strip.text for strip in app.strips)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c == "\u202e" for c in drawn)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (20, 5), (200, 60)])
def test_every_size_draws(size):
    assert driven(["end", "home", "down"], size=size).text.cursor is not None


def test_a_long_text_grows_without_laying_out_the_rest_again():
    layout_of = TextApp([])

    async def drive():
        async with layout_of.run_test(size=(40, 10)) as pilot:
            for n in range(300):
                layout_of.text.append([ShownToken(f" word{n}", 0.5)])
            await pilot.pause()
            first = layout_of.text.layout_in(layout_of.text.size.width)
            layout_of.text.append([ShownToken(" last", 0.5)])
            await pilot.pause()
            assert layout_of.text.layout_in(layout_of.text.size.width) is first
            assert layout_of.text.size.height == first.height

    asyncio.run(drive())
