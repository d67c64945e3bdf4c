"""The collector of the workbench: it waits while someone presses keys, and not for ever."""

import gc
import sys
import weakref
from collections.abc import Iterator

import pytest

from gpt2tui.tui import garbage
from gpt2tui.tui.garbage import DUE, IDLE_SECONDS, OVERDUE, IdleCollector
from tests.tui.plain_workbench import drive

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="Python 3.14 collects in small increments, whatever the third threshold is"
)


class Node:
    """May refer to itself."""

    def __init__(self) -> None:
        self.me = self


class Clock:
    """In place of the module `time`."""

    now = 100.0

    def monotonic(self) -> float:
        """The time that the test sets."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(garbage, "time", clock)
    return clock


@pytest.fixture
def collector(clock: Clock) -> Iterator[IdleCollector]:
    gc.collect()
    collector = IdleCollector()
    collector.begin()
    yield collector
    collector.end()


def old_garbage() -> weakref.ref[Node]:
    """An unreachable cycle that has outlived the young generations."""
    node = Node()
    gc.collect(1)
    return weakref.ref(node)


def collect_middle_generation(times: int) -> None:
    for _ in range(times):
        gc.collect(1)


def test_python_does_not_collect_everything_by_itself(collector: IdleCollector) -> None:
    seen = old_garbage()
    kept = [[] for _ in range(1_000_000)]  # type: ignore[var-annotated]
    assert seen() is not None
    assert gc.get_count()[2] > DUE
    del kept


def test_everything_is_collected_when_nobody_presses_a_key(collector: IdleCollector, clock: Clock) -> None:
    seen = old_garbage()
    collector.used()
    collect_middle_generation(DUE)
    clock.now += IDLE_SECONDS / 2
    collector.check()
    assert seen() is not None
    clock.now += IDLE_SECONDS / 2
    collector.check()
    assert seen() is None


def test_nothing_is_collected_before_it_is_due(collector: IdleCollector, clock: Clock) -> None:
    seen = old_garbage()
    clock.now += 10 * IDLE_SECONDS
    collector.check()
    assert seen() is not None


def test_who_types_for_ever_does_not_fill_the_memory(collector: IdleCollector) -> None:
    seen = old_garbage()
    collector.used()
    collect_middle_generation(OVERDUE)
    collector.check()
    assert seen() is None


def test_keys_hold_it_back_in_the_app_and_python_gets_it_back(clock: Clock) -> None:
    before = gc.get_threshold()

    async def story(app, pilot):
        assert gc.get_threshold()[2] > 1_000_000
        collect_middle_generation(DUE)
        clock.now += IDLE_SECONDS
        await pilot.press("f1")
        seen = old_garbage()
        app._collector.check()
        assert seen() is not None

    drive(story)
    assert gc.get_threshold() == before
