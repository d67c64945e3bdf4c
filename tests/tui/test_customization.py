"""The user's keys and colours, from the configuration folder."""

from gpt2tui.system.files import config_folder
from gpt2tui.tui.customization import load_keymap, load_themes
from tests.tui.looking import until
from tests.tui.plain_workbench import drive


def write(name, text):
    path = config_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_without_files_nothing_changes():
    assert load_keymap() == ({}, [])
    assert load_themes() == ([], [])


def test_what_is_wrong_in_a_file_is_named_and_the_rest_is_used():
    write("keys.toml", '"app.help" = "f12, h"\n"app.quit" = 3\n')
    write("themes/good.toml", 'primary = "#0178d4"\ndark = false\n[variables]\nblock-cursor-text-style = "bold"\n')
    write("themes/bad.toml", 'primary = "no colour"\nshape = "round"\ndark = 1\n')
    write("themes/broken.toml", "[oh\n")
    keymap, problems = load_keymap()
    assert keymap == {"app.help": "f12,h"}
    assert problems == ['keys.toml: app.quit needs keys in quotes, such as "app.quit" = "ctrl+w"']
    (theme,), problems = load_themes()
    assert (theme.name, theme.primary, theme.dark) == ("good", "#0178d4", False)
    assert problems[:3] == [
        "bad.toml: primary is no colour; write one such as #0178d4",
        "bad.toml: shape is no part of a theme",
        "bad.toml: dark is true or false",
    ]
    assert problems[3].startswith("broken.toml: cannot be read: ")


def test_the_workbench_takes_the_users_keys_and_themes_and_names_what_is_wrong():
    write("keys.toml", '"app.go.runs" = "f12"\n"app.go.chat" = []\n')
    write("themes/mine.toml", 'primary = "#123456"\n')

    async def story(app, pilot):
        assert "mine" in app.available_themes
        await pilot.press("f12")
        await until(pilot, lambda: app.current_mode == "runs")
        await pilot.press("f4")  # as before
        await until(pilot, lambda: app.current_mode == "chat")
        assert [n.message for n in app._notifications if n.title == "Left out"] == [
            'keys.toml: app.go.chat needs keys in quotes, such as "app.go.chat" = "ctrl+w"'
        ]

    drive(story)
