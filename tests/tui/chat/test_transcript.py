"""The transcript as Markdown: nothing in it breaks out, and everything that makes it repeatable is there."""

from datetime import datetime

import pytest

from gpt2tui.preset.schema import SamplingTable
from gpt2tui.tui.chat.engine import TokenStatistics, conversation, cut_at_turn_end
from gpt2tui.tui.chat.record import AnswerRecord, numbers_line, prompt_notes, settings_line, transcript_markdown

WHEN = datetime(2026, 1, 31, 14, 2)
SAMPLING = SamplingTable(temperature=0.7, top_k=0, top_p=0.9, seed=5)


def document(**changes):
    values = {"model": "small, step 500", "task": "continue", "prompt": "def ", "text": "f(x)", "sampling": SAMPLING}
    return transcript_markdown([AnswerRecord(**{**values, "numbers": "4 tokens", **changes})], WHEN)


def test_a_transcript_has_model_settings_prompt_continuation_and_numbers():
    assert document().splitlines() == [
        "# A chat with GPT-2, 2026-01-31 14:02",
        "",
        "## small, step 500",
        "",
        "T 0.7 · p 0.9 · seed 5",
        "",
        "Prompt:",
        "",
        "```text",
        "def ",
        "```",
        "",
        "Continuation:",
        "",
        "```text",
        "f(x)",
        "```",
        "",
        "4 tokens",
    ]


def test_a_text_with_fences_stays_inside_a_longer_one():
    text = document(text="```\n````python\n# not a heading")
    assert text.count("\n`````text\n") == 1
    assert text.count("\n`````\n") == 1


def test_no_text_in_a_transcript_acts_as_an_escape_sequence_or_as_markdown():
    text = document(model="evil_*[x](y)\x1b[2J", prompt="\x1b]52;c;eA==\x07", failure="`boom`\n# no")
    assert "\x1b" not in text
    assert "\x07" not in text
    assert r"evil\_\*\[x\](y)" in text
    assert "\n# no" not in text


def test_an_empty_prompt_is_named():
    assert "Prompt: (empty, a new document)" in document(prompt="")


def test_settings_that_do_nothing_are_left_out():
    assert settings_line(SAMPLING) == "T 0.7 · p 0.9 · seed 5"
    assert settings_line(SamplingTable(top_k=50, seed=1)) == "T 0.8 · k 50 · seed 1"


def test_the_numbers_count_the_time_of_the_answer_alone():
    statistics = TokenStatistics()
    for _ in range(10):
        statistics.add(0.25)
    line = numbers_line(statistics, 0.5, "stopped", "continue", 0, 4096)
    assert line == "10 tokens · 20 tok/s · mean p 0.25 · perplexity 4 · stopped"


@pytest.mark.parametrize(
    ("task", "tokens", "said"),
    [
        ("continue", 0, "empty prompt: a new document"),
        ("continue", 16, ""),
        ("continue", 17, "the prompt is 17 tokens: the model sees only the last 16"),
        ("score", 17, "17 tokens, scored in windows of 16"),
        ("score", 3, ""),
    ],
)
def test_what_is_unusual_about_a_prompt_is_said(task, tokens, said):
    assert prompt_notes(task, tokens, 16) == said


def test_a_conversation_is_one_text_that_ends_where_the_model_speaks():
    assert conversation([], "hi") == "User: hi\nAssistant:"
    assert conversation([("hi", " hello\nUser: what")], "so") == "User: hi\nAssistant: hello\nUser: so\nAssistant:"
    assert cut_at_turn_end(" a\nb \nUser: c") == " a\nb"
