"""The history of a long run, read by columns, is that of its events one after the other."""

import dataclasses
import math
import random

import numpy as np
import pytest

from gpt2tui.run.events import parse
from gpt2tui.run.events_file import open_events
from gpt2tui.tui import history_file
from gpt2tui.tui.history import RunHistory, Series
from gpt2tui.tui.history_file import history_of, preview_of, read_into
from tests.tracking import event_samples

TAIL_STEPS = 1200  # enough for the share of clipped steps, which is that of the last 1,000


def lines(steps, start=0, seed=0, time=1000.0, device=False):
    """A training from the step after `start`, with all that can come between its steps."""
    chance = random.Random(seed)
    yield event_samples.run_started(step=start, num_iterations=steps, time=time).as_json()
    for step in range(start + 1, steps + 1):
        loss = math.nan if chance.random() < 0.01 else 2 + chance.random()
        memory = {"device_memory_bytes": 5 * step, "device_memory_reserved_bytes": 7 * step} if device else {}
        yield event_samples.step(
            step, time=time + step * 0.1, train_loss=loss, grad_norm=chance.random() * 2, learning_rate=1e-3 / step,
            tokens_per_second=None if step % 7 == 0 else 100.0 + step, host_memory_bytes=1000 + step % 500, **memory,
        ).as_json()  # fmt: skip
        if step % 100 == 0:
            yield event_samples.evaluated(step, 3.0 - step / 1e5, best=True, time=time + step * 0.1).as_json()
            yield event_samples.sampled(step).as_json()


@pytest.fixture
def blocks(monkeypatch):
    """Every file is a long one, in small blocks."""
    monkeypatch.setattr(history_file, "LONG", 0)
    monkeypatch.setattr(history_file, "_BLOCK", 50_000)
    monkeypatch.setattr(history_file, "_TAIL", TAIL_STEPS * 400)


def assert_same(read, expected):
    for one, other in zip(read.curves, expected.curves, strict=True):
        assert one.points() == other.points()
        assert np.array(one.means()) == pytest.approx(np.array(other.means()))
        assert one.last == other.last
    names = ("step", "evaluation", "started", "ending", "samples", "marks", "logged", "peak_memory_bytes", "best")
    for name in (*names, "clipped_fraction"):
        assert repr(getattr(read, name)) == repr(getattr(expected, name)), name
    for field in dataclasses.fields(read.progress):
        one, other = getattr(read.progress, field.name), getattr(expected.progress, field.name)
        if field.name == "train_loss":
            assert one.value == pytest.approx(other.value)
        else:
            assert one == other, field.name


@pytest.mark.slow
@pytest.mark.parametrize("device", [False, True])
def test_by_columns_is_as_one_after_the_other(blocks, tmp_path, device):
    written = [*lines(6000, device=device)]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(written) + "\n")
    assert_same(history_of(path, 1.0), RunHistory.of(filter(None, map(parse, written)), 1.0))


@pytest.mark.slow
def test_resumed_runs_and_damaged_lines_are_read_as_one_after_the_other(blocks, tmp_path):
    """A run that crashed at step 3,000 and was resumed at 2,500, with lines cut off, foreign ones and NUL bytes."""
    first, second = [*lines(3000)], [*lines(6000, start=2500, seed=1, time=2000.0)]
    first[700] = first[700][:40]
    first[701] = "\0" * 30 + first[701]
    second[900:900] = ["", "{}", '{"v": 2, "event": "step", "step": 1}', '{"v": 1, "event": "step", "step": "1"}', "é"]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(first + second) + "\n")
    expected = RunHistory(1.0)
    for event in map(history_file.parse_line, "\n".join(first + second).encode().split(b"\n")):
        if event:
            expected.add(event)
    assert_same(history_of(path, 1.0), expected)

    earlier = RunHistory(1.0)
    read_into(earlier, path, earlier.add, before=2000.0)
    assert earlier.step.step == 3000
    assert not earlier.marks  # nothing of the second training


def test_a_line_that_is_being_written_is_left_for_the_one_who_follows(blocks, tmp_path):
    path = tmp_path / "events.jsonl"
    text = "\n".join(lines(3000))
    path.write_text(text[:-10])
    history = RunHistory()
    offset = read_into(history, path, history.add)
    assert text[offset:].startswith('{"v": 1, "event": "sampled"')


def test_a_preview_has_true_values_over_the_whole_run(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join([*lines(3000), *lines(6000, start=2500, seed=1)]) + "\n")
    preview = preview_of(path)
    points = preview.learning_rate.points()
    assert len(points) > 500
    assert points[-1][0] > 5500
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    assert all(y == pytest.approx(1e-3 / x) for x, y in points)
    assert preview.progress.num_iterations in (3000, 6000)


def test_a_second_preview_reads_nothing_unless_the_file_has_grown_or_is_another(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(lines(3000)) + "\n")
    once, opened = preview_of(path), []
    monkeypatch.setattr(history_file, "open_events", lambda path: opened.append(path) or open_events(path))
    again = preview_of(path, 0.5)
    assert not opened
    assert again.learning_rate.points() == once.learning_rate.points()
    assert (once.grad_clip, again.grad_clip) == (None, 0.5)
    with path.open("a") as file:
        file.write("\n".join(lines(6000, start=3000)) + "\n")
    assert preview_of(path).learning_rate.points()[-1][0] > 5500
    (tmp_path / "other").write_text("\n".join(lines(6000, seed=3)) + "\n")
    (tmp_path / "other").rename(path)
    preview_of(path)
    assert len(opened) == 2


def test_many_points_at_once_are_as_one_after_the_other():
    chance = random.Random(0)
    one, other, x = Series(64), Series(64), 0
    for _ in range(40):
        count = chance.choice([1, 3, 50, 400])
        xs = [x := x + chance.choice([1, 1, 1, 5]) for _ in range(count)]
        ys = [chance.choice([math.nan, chance.random(), 0.5]) for _ in xs]
        one.add_all(np.array(xs), np.array(ys))
        for point in zip(xs, ys, strict=True):
            other.add(*point)
        assert one.points() == other.points()
        assert np.array(one.means()) == pytest.approx(np.array(other.means()))
