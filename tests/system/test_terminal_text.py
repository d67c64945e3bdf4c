"""`sanitize` over every code point there is, against Unicode's own categories."""

import sys
import unicodedata

import pytest

from gpt2tui.system.terminal_text import drop_controls, sanitize

JOINERS = "\u200c\u200d"
# Format characters that are visible: Unicode's Prepended_Concatenation_Mark.
VISIBLE_SIGNS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.fixture(scope="module")
def every_character():
    return "".join(map(chr, range(sys.maxunicode + 1)))


@pytest.mark.parametrize("keep_newlines", [True, False])
def test_no_code_point_leaves_a_control_behind(every_character, keep_newlines):
    left = set(sanitize(every_character, keep_newlines))
    allowed = {"\n", "\t"} if keep_newlines else set()
    assert {c for c in left if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}} == allowed


def test_of_format_characters_only_joiners_and_visible_signs_are_left(every_character):
    left = {c for c in sanitize(every_character) if unicodedata.category(c) == "Cf"}
    assert left == set(JOINERS + VISIBLE_SIGNS)


def test_bidirectional_controls_go():
    assert sanitize(f"access{BIDI_CONTROLS}granted") == "accessgranted"


def test_every_other_character_stays_itself(every_character):
    touched = {"Cc", "Cs", "Cf", "Zl", "Zp", "Cn"}  # some code points are reserved for format characters
    for character in every_character:
        if unicodedata.category(character) not in touched and not 0xE0000 <= ord(character) <= 0xE0FFF:
            assert sanitize(character) == character, ascii(character)


def test_dropping_takes_what_sanitize_would_touch_and_nothing_else(every_character):
    untouched = "".join(c for c in every_character if sanitize(c, keep_newlines=False) == c)
    assert drop_controls(every_character) == untouched


def test_sanitizing_twice_changes_nothing_more(every_character):
    for keep_newlines in (True, False):
        once = sanitize(every_character, keep_newlines)
        assert sanitize(once, keep_newlines) == once
        assert len(once) <= len(every_character)


def test_c0_controls_and_delete_become_their_pictures():
    for code in range(0x20):
        assert unicodedata.name(sanitize(chr(code), keep_newlines=False)).startswith("SYMBOL FOR")
    assert sanitize("\x00\x07\x1b\x7f") == "␀␇␛␡"


def test_newlines_and_tabs_stay_only_when_asked():
    assert sanitize("a\n\tb") == "a\n\tb"
    assert sanitize("a\n\tb", keep_newlines=False) == "a␊␉b"
    assert sanitize("a\r\nb\u2028c\u2029d\x85e") == "a␍\nb␤c␤d\ufffde"


def test_one_line_stays_one_line_for_python_too(every_character):
    assert len(sanitize(every_character, keep_newlines=False).splitlines()) == 1


def test_clipboard_and_title_sequences_are_dead():
    assert sanitize("\x1b]52;c;cm0gLXJm\x07\x9d0;title\x9c\x1b[2J") == "␛]52;c;cm0gLXJm␇\ufffd0;title\ufffd␛[2J"


def test_undecodable_file_names_can_be_encoded_again():
    name = b"r\xe9sum\xe9.txt".decode("utf-8", "surrogateescape")
    assert sanitize(name).encode("utf-8") == "r\ufffdsum\ufffd.txt".encode()


def test_emoji_persian_and_hindi_keep_their_spelling():
    for text in ("👩\u200d👩\u200d👧", "می\u200cخواهم", "क्\u200dष", "❤\ufe0f"):
        assert sanitize(text) == text
