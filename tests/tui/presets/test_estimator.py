"""The estimator: its numbers, and what it shows where a number is not known."""

from types import SimpleNamespace

import pytest

from gpt2tui.preset import files as preset_files
from gpt2tui.system.device_speed import DeviceSpeed
from gpt2tui.tui.presets.costs import Found, corpus_key, costs, device_key
from gpt2tui.tui.presets.estimator import _column, _strip, is_strip

SHAPE = (
    "model.vocab_size=4096",
    "model.n_positions=256",
    "model.n_embd=256",
    "model.n_layer=3",
    "model.n_head=4",
    "data.tokenizer=bpe",
    "training.num_iterations=1000",
    "training.batch_size=8",
    "training.sequence_length=256",
)
SMALL = preset_files.load(["default"], SHAPE).preset
FAST = Found(DeviceSpeed("a GPU", "bf16", 1e14, None, 80_000_000_000, None))
CORPUS = Found(SimpleNamespace(source="x", state="prepared", train_tokens=1_024_000, vocab_size=4096))


def text(preset=SMALL, device=FAST, corpus=CORPUS, width=30):
    return "\n".join(line.plain for line in _column(preset, costs(preset, device, corpus), width, True, True))


def test_numbers_are_those_of_the_estimate():
    shown = text()
    assert "3,483,904" in shown
    assert "tokens/step              2,048" in shown
    assert "2 epochs" in shown  # 1000 steps of 2,048 tokens in 1,024,000
    assert "0.588" in shown  # tokens per parameter: 2,048,000 / 3,483,904
    assert "of 80 GB" in shown


def test_what_is_not_known_is_not_a_number():
    shown = text(device=None, corpus=None)
    assert "time                 not known" in shown
    assert "size not known" in shown
    assert "measuring" in shown
    assert " of " not in shown


def test_a_missing_device_is_reported():
    shown = text(device=Found(None, "torch sees 0 CUDA devices"))
    assert "torch sees 0 CUDA devices" in shown.replace("\n", " ")


def test_a_vocabulary_that_depends_on_the_corpus_makes_the_count_approximate():
    preset = preset_files.load(["shakespeare-char"]).preset
    assert "about" in text(preset, corpus=Found(None, "no such file: shakespeare.txt"))
    assert "no such file" in text(preset, corpus=Found(None, "no such file: shakespeare.txt"))


def test_too_little_memory_is_shown_with_advice():
    for free, advice in (
        (150_000_000, "choose training.batch_size = 4 and"),
        (1_000_000, "lower model.n_embd, model.n_layer"),
    ):
        small = Found(DeviceSpeed("a GPU", "bf16", 1e14, None, free, None))
        assert advice in text(device=small).replace("\n", " ")


def test_a_time_budget_limits_the_estimated_time():
    preset = preset_files.load(
        ["default"], [*SHAPE, "training.time_budget=60", "training.num_iterations=1000000000"]
    ).preset
    assert "at most 60 s" in text(preset)


def test_every_number_of_a_time_budget_is_a_bound_while_the_speed_is_not_known():
    preset = preset_files.load(["default"], [*SHAPE, "training.time_budget=60"]).preset
    rows = {line.split("  ")[0]: line for line in text(preset, device=None).splitlines()}
    for name in ("total tokens", "per parameter", "compute", "time"):
        assert "at most" in rows[name]
        assert len(rows[name]) <= 30
    assert rows["data"].endswith("at most 2 epochs")
    assert "at most" not in text(preset)  # the speed is known, and the steps take less than the budget
    strip = _strip(preset, costs(preset, None, CORPUS), 78)
    assert sum(line.plain.count("at most") for line in strip) == 5


@pytest.mark.parametrize("width", [24, 30, 60])
def test_rows_end_at_the_edge(width):
    for line in _column(SMALL, costs(SMALL, FAST, CORPUS), max(width, 30), True, True):
        assert line.cell_length <= max(width, 30)


def test_the_strip_has_four_lines_that_fit():
    lines = _strip(SMALL, costs(SMALL, FAST, CORPUS), 64)
    assert len(lines) == 4
    assert all(line.cell_length <= 64 for line in lines)
    assert is_strip(78, 5)
    assert not is_strip(34, 30)


def test_a_corpus_name_cannot_put_control_codes_into_the_terminal():
    preset = preset_files.load(["default"], [*SHAPE, r'data.source="\u001b]52;c;x[/b]"']).preset
    assert "\x1b" not in text(preset, corpus=Found(None, "\x1b[2J"))


def test_keys_change_only_with_the_settings_that_are_looked_up():
    other = preset_files.load(["default"], [*SHAPE, "optimizer.lr=0.5", "model.n_layer=9", "model.n_embd=512"]).preset
    assert device_key(SMALL) == device_key(other)
    assert corpus_key(SMALL) == corpus_key(other)
    assert corpus_key(SMALL) != corpus_key(preset_files.load(["default"], [*SHAPE, "data.source=x"]).preset)
    assert hash(corpus_key(SMALL))


def test_with_little_height_the_strip_is_one_line_of_what_decides():
    (line,) = _strip(SMALL, costs(SMALL, FAST, CORPUS), 60, 2)
    assert line.plain == "3.48M parameters  " + line.plain.partition("  ")[2]
    assert "190 MB of 80 GB" in line.plain
    assert "time about 1 s" in line.plain
