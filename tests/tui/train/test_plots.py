"""Which plots the Train screen offers: the metrics of the run on show beside its own."""

import pytest

from gpt2tui.run.events import METRICS
from gpt2tui.tui.train.plots import DEFINITIONS, LOWER_PLOTS, TrainPlots


def plots(room, *measured):
    found = TrainPlots(lambda place: None)
    found.room = room
    found.forget_unmeasured(measured)
    return found


@pytest.mark.parametrize(
    ("room", "place", "shown"),
    [
        ("one", "main", ["lr", "grad", "tok/s", "accuracy", "bleu", "loss"]),
        ("all", "lower", ["grad", "tok/s", "accuracy", "bleu", "lr"]),
        ("grid", "last", ["accuracy", "bleu", "tok/s"]),
    ],
)
def test_metrics_come_after_the_other_plots(room, place, shown):
    found = plots(room, "accuracy", "bleu")
    for name in shown:
        found.next_plot(1)
        assert getattr(found, place) == name
    found.next_plot(-1)
    assert getattr(found, place) == shown[-2]


def test_a_name_that_was_clicked_is_shown_in_its_place():
    for room, place in (("one", "main"), ("all", "lower"), ("grid", "last")):
        found = plots(room, "accuracy")
        found.choose("accuracy")
        assert getattr(found, place) == "accuracy"
        found.forget_unmeasured(())  # another run, which has not measured it
        assert getattr(found, place) == {"main": "loss", "lower": "lr", "last": LOWER_PLOTS[-1]}[place]


def test_without_metrics_the_plots_side_by_side_stay():
    found = plots("grid")
    found.next_plot(1)
    assert found.last == LOWER_PLOTS[-1]


def test_each_metric_has_a_definition():
    assert set(METRICS) <= DEFINITIONS.keys()
