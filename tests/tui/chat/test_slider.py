"""The slider: bounds, keys, typed digits, the mouse."""

import asyncio

import pytest
from textual.app import App

from gpt2tui.tui.chat.slider import Slider


class SliderApp(App):
    def __init__(self, *slider, **settings):
        super().__init__()
        self.slider = Slider(*slider, **settings)
        self.changes = []

    def compose(self):
        yield self.slider

    def on_slider_changed(self, event):
        self.changes.append(event.value)


def driven(keys, *slider, **settings):
    """The app after keys were pressed on the focused slider."""
    app = SliderApp(*(slider or ("temperature", 0, 2, 0.01, 0.8)), **settings)

    async def drive():
        async with app.run_test(size=(40, 5)) as pilot:
            app.slider.focus()
            await pilot.press(*keys)
            await pilot.pause()

    asyncio.run(drive())
    return app


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["right"], 0.81),
        (["left", "left"], 0.78),
        (["pageup"], 0.9),
        (["pagedown"], 0.7),
        (["home"], 0),
        (["end"], 2),
        (["end", "right"], 2),
        (["home", "left"], 0),
        ([*"1.25", "enter"], 1.25),
        ([*"99", "enter"], 0.8),
        ([*"1.2", "backspace", "5", "enter"], 1.5),
        ([*"1,5", "enter"], 1.5),
        ([*"1.5", "escape"], 0.8),
        ([*"1.2.3", "enter"], 0.8),
    ],
)
def test_keys_and_typed_digits_choose_a_value_between_the_bounds(keys, value):
    assert driven(keys).slider.value == value


def test_typed_digits_are_taken_when_the_focus_goes_on():
    app = SliderApp("top-k", 0, 200, 1, 50)

    async def drive():
        async with app.run_test() as pilot:
            app.slider.focus()
            await pilot.press("7")
            app.set_focus(None)
            await pilot.pause()

    asyncio.run(drive())
    assert app.slider.value == 7


@pytest.mark.parametrize(
    ("slider", "typed", "said"),
    [
        (("top-k", 0, 200, 1, 50), "0.8", "top-k is a whole number from 0 to 200, not 0.8"),
        (("top-p", 0.01, 1, 0.01, 0.9), "99", "top-p is a number from 0.01 to 1, not 99"),
        (("top-p", 0.01, 1, 0.01, 0.9), "1.2.3", "top-p is a number from 0.01 to 1, not 1.2.3"),
    ],
)
def test_a_number_that_the_setting_cannot_have_is_refused_with_a_word(slider, typed, said):
    app = driven([*typed, "enter"], *slider)
    assert app.slider.value == slider[-1]
    assert [notification.message for notification in app._notifications] == [said]


def test_no_float_drifts_over_a_hundred_steps():
    assert driven(["home", *["right"] * 70]).slider.value == 0.7


def test_only_the_user_s_changes_are_posted_and_only_once_each():
    app = driven(["right", "end", "end"])
    assert app.changes == [0.81, 2]
    app.slider.value = 1.0
    assert app.slider.value == 1.0
    assert app.changes == [0.81, 2]


@pytest.mark.parametrize(("column", "value"), [(0, 0), (12, 0), (23, 100), (40, 200)])
def test_a_click_on_the_track_jumps_there(column, value):
    app = SliderApp("top-k", 0, 200, 1, 50)  # the track is columns 12 to 34

    async def drive():
        async with app.run_test(size=(41, 3)) as pilot:
            await pilot.click(Slider, offset=(column, 0))

    asyncio.run(drive())
    assert app.slider.value == pytest.approx(value, abs=1)


@pytest.mark.parametrize("width", [1, 3, 12, 18, 19, 20, 60])
def test_every_width_draws_exactly_that_wide(width):
    app = SliderApp("temperature", 0, 2, 0.01, 0.8)

    async def drive():
        async with app.run_test(size=(width, 3)):
            assert app.slider.render_line(0).cell_length == width

    asyncio.run(drive())


def test_shows_label_track_and_value_in_the_words_of_its_kind():
    app = SliderApp("top-k", 0, 200, 1, 0, show=lambda value: "all" if value == 0 else f"{value:g}")

    async def drive():
        async with app.run_test(size=(40, 3)):
            text = app.slider.render_line(0).text
            assert text.startswith("top-k")
            assert text.endswith("   all")
            assert "●─" in text

    asyncio.run(drive())
