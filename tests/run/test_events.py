import json
import math

import pytest

from gpt2tui.run import events
from tests.tracking import event_samples


def test_every_event_has_version_name_and_time_first():
    record = events.Paused(step=3, time=12.5).as_dict()
    assert list(record)[:3] == ["v", "event", "time"]
    assert record == {"v": 1, "event": "paused", "time": 12.5, "step": 3}


def test_numbers_that_are_not_finite_become_null():
    event = events.Evaluated(step=1, val_loss=math.nan, perplexity=math.inf, bits_per_byte=1.0)
    record = json.loads(event.as_json())
    assert record["val_loss"] is None
    assert record["perplexity"] is None


def test_the_contracts_fields_of_a_step_are_all_there():
    record = event_samples.step(4).as_dict()
    assert set(record) == {
        "v", "event", "time", "step", "train_loss", "learning_rate", "grad_norm", "tokens_seen", "tokens_per_second",
        "step_seconds", "device_memory_bytes", "device_memory_reserved_bytes", "host_memory_bytes", "mfu",
    }  # fmt: skip


def test_parse_gives_back_what_was_written():
    event = events.Sampled(step=1, prompt="\x1b[31m", text="a\nb", time=1.0)
    assert "\x1b" not in event.as_json()
    assert events.parse(event.as_json()) == event


@pytest.mark.parametrize(
    "line", ["", "{", "[]", '{"v": 2, "event": "paused", "step": 1}', '{"v": 1, "event": "no"}', "[" * 9999]
)
def test_foreign_lines_are_nothing(line):
    assert events.parse(line) is None
