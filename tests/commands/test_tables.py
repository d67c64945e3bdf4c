"""Tables on terminals of any width and encoding."""

import io
import json
import sys

import pytest

from gpt2tui.__main__ import main
from gpt2tui.commands.tables import Column, plain, print_table
from gpt2tui.preset import files as preset_files
from gpt2tui.system.files import config_folder, runs_folder


def terminal(width, something, encoding="utf-8"):
    """The lines that something prints on a terminal of this width, without styles and trailing blanks."""
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    output.isatty = lambda: True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        for name, value in {"COLUMNS": str(width), "TERM": "xterm", "NO_COLOR": "1"}.items():
            patch.setenv(name, value)
        something()
        output.flush()
    text = output.buffer.getvalue().decode(encoding)
    return [line.rstrip() for line in text.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()]


def first_words(lines):
    return {line.split()[0] for line in lines if line and line[0] != " "}


@pytest.mark.parametrize("width", [200, 80, 40, 10])
def test_names_of_presets_are_never_cut(width):
    path = config_folder() / "presets" / f"{'a-long-name-' * 4}of-mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text("training = 3\n")
    names = {source.name for source in preset_files.available()}
    lines = terminal(width, lambda: main(["presets", "list"]))
    assert names <= first_words(lines)
    assert "…" not in "\n".join(lines)


@pytest.mark.parametrize("width", [200, 80, 40, 10])
def test_names_of_runs_are_never_cut(width):
    names = {f"2026-01-31-12000{i}-a-preset-of-mine" for i in range(3)}
    for name in names:
        (runs_folder() / name).mkdir(parents=True)
        (runs_folder() / name / "run.json").write_text(json.dumps({"preset": "mine"}))
    lines = terminal(width, lambda: main(["runs", "list"]))
    assert names <= first_words(lines)
    assert len(lines) == 1 + len(names)
    assert max(map(len, lines)) <= max(width, max(map(len, names)))
    assert ("disk" in lines[0]) == (width == 200)
    assert ("state" in lines[0]) == (width >= 80)


def test_columns_at_the_right_go_first_and_folding_ones_fold_before():
    columns = [Column("name"), Column("count", right=True), Column("text", folds=True), Column("size", right=True)]
    rows = [("abc", 12, "one two three four five", "1 kB")]
    assert terminal(50, lambda: print_table(columns, rows)) == [
        "name  count  text                     size",
        "abc      12  one two three four five  1 kB",
    ]
    assert terminal(30, lambda: print_table(columns, rows)) == [
        "name  count  text         size",
        "abc      12  one two      1 kB",
        "             three four",
        "             five",
    ]
    assert terminal(25, lambda: print_table(columns, rows))[0] == "name  count  text"
    assert terminal(15, lambda: print_table(columns, rows)) == ["name  count", "abc      12"]


def test_what_stdout_cannot_encode_becomes_a_question_mark():
    lines = terminal(80, lambda: print_table([Column("name")], [["déjà vu 語"]]), encoding="ascii")
    assert lines == ["name", "d?j? vu ?"]


def test_text_in_tables_is_neither_markup_nor_control_codes():
    assert plain("[red]x[/] \\ \x1b[2J\u202e").plain == "[red]x[/] \\ ␛[2J"
    assert plain("a\nb", keep_newlines=False).plain == "a␊b"


@pytest.mark.parametrize("command", ["presets list", "presets show", "presets keys", "runs list", "runs show"])
def test_options_are_not_abbreviated(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), *(["small"] if "show" in command else []), "--js"])
    assert caught.value.code == 2
    assert "--js" in capsys.readouterr().err
