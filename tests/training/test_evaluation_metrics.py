"""`[evaluation] metrics`: what a run measures beside the loss, and where that is found afterwards."""

import csv
import io
import json
import math
import shutil

import pytest

import gpt2tui
from gpt2tui import launch
from gpt2tui.__main__ import main
from gpt2tui.commands.figure import draw, metric_of
from gpt2tui.errors import PresetError, UsageError
from gpt2tui.evaluation.text_scores import GROUPS
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import EVALUATION_METRICS
from gpt2tui.run import checkpoint, events
from gpt2tui.run import folder as runs
from gpt2tui.run.events_file import JsonLines
from gpt2tui.tracking import narration
from gpt2tui.tracking.run_progress import RunProgress
from gpt2tui.tui.figures import NamedRun, Options, curve_figure, measured_in, metric_curve
from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.history_file import history_of
from tests import tiny_runs
from tests.tracking import event_samples
from tests.tui.fake_runs import write_run

ALL = f"evaluation.metrics={json.dumps(list(EVALUATION_METRICS))}"


def trained(folder, *overrides):
    """The run, and the events of its training."""
    trainer = tiny_runs.trainer(folder, *overrides, run=runs.create("tiny"))
    lines = JsonLines(trainer.run.events_file)
    emitted = []
    for event in trainer.train():
        lines.handle(event)
        emitted.append(event)
    lines.close()
    return trainer.run, emitted


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    with tiny_runs.folders_in(folder):
        return trained(folder, ALL)


def test_the_names_are_those_of_what_can_be_measured():
    assert set(EVALUATION_METRICS) == {"accuracy", *GROUPS}
    assert set(events.METRICS) == {"accuracy", *(name for names in GROUPS.values() for name in names)}


@pytest.mark.slow
def test_each_evaluation_has_them_by_name(measured):
    _, emitted = measured
    evaluations = [event for event in emitted if event.name == "evaluated"]
    assert [event.step for event in evaluations] == [4, 8, 12, 12]
    for event in evaluations:
        assert set(event.metrics) == set(events.METRICS)
        record = json.loads(event.as_json())
        assert "metrics" not in record
        assert record["accuracy"] == event.metrics["accuracy"]
        again = events.parse(event.as_json())
        assert all(
            again.metrics[name] == value or (math.isnan(value) and math.isnan(again.metrics[name]))
            for name, value in event.metrics.items()
        )


def test_the_accuracy_is_that_of_eval(measured, capsys):
    run, emitted = measured
    assert main(["eval", str(checkpoint.newest(run.checkpoints).folder), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["splits"]["validation"]["accuracy"]
    (whole,) = [event for event in emitted if event.name == "evaluated" and event.whole]
    assert whole.metrics["accuracy"] == pytest.approx(expected)


def test_they_are_in_the_curve_the_table_and_the_comparison(measured, capsys, monkeypatch):
    run, emitted = measured
    monkeypatch.setenv("GPT2TUI_RUNS", str(run.folder.parent))
    samples = {event.step: event.metrics for event in emitted if event.name == "evaluated" and not event.whole}
    curve = gpt2tui.find_run(run.folder).curve()
    assert all(set(events.METRICS) <= row.keys() for row in curve)  # each row has each column
    assert {row["step"]: row["accuracy"] for row in curve if row["accuracy"] is not None} == {
        step: metrics["accuracy"] for step, metrics in samples.items()
    }
    (whole,) = [event for event in emitted if event.name == "evaluated" and event.whole]
    assert gpt2tui.find_run(run.folder).row()["accuracy"] == whole.metrics["accuracy"]
    assert main(["runs", "list", "--filter", "accuracy>0", "--columns", "name,accuracy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": run.name, "accuracy": whole.metrics["accuracy"]}]
    other = write_run("other")
    assert main(["runs", "compare", run.name, other.name]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("accuracy")]
    assert line.split() == ["accuracy", f"{whole.metrics['accuracy']:.6g}"]  # the other has not measured it
    shutil.rmtree(other.folder)


def test_a_metric_is_a_curve_of_the_plots_and_the_picture(measured, tmp_path, capsys):
    run, emitted = measured
    samples = [event for event in emitted if event.name == "evaluated" and not event.whole]
    points = [(event.step, event.metrics["accuracy"]) for event in samples]
    history = history_of(run.events_file)
    assert measured_in([history, RunHistory()]) == tuple(
        name for name in events.METRICS if any(math.isfinite(event.metrics[name]) for event in samples)
    )
    figure = curve_figure(metric_curve("accuracy"), [NamedRun("a", history)], Options(), "")
    assert [line.points for line in figure.lines] == [points]
    curves = metric_of(run, "accuracy")
    (axes,) = draw([curves], "accuracy").axes
    (line,) = axes.get_lines()
    assert list(zip(*line.get_data(), strict=True)) == curves.validation == points
    assert axes.get_ylabel() == "accuracy"
    assert main(["runs", "export", str(run.folder), "--svg", str(tmp_path / "a.svg"), "--metric", "accuracy"]) == 0
    assert main(["runs", "export", str(run.folder), "--svg", str(tmp_path / "b.svg"), "--metric", "acuracy"]) == 2
    assert "has not measured acuracy; it has accuracy, bleu" in " ".join(capsys.readouterr().err.split())


def test_a_resume_forgets_the_metrics_after_its_step():
    evaluated = [event_samples.evaluated(step, metrics={"bleu": float(step)}) for step in (4, 8)]
    resumed = event_samples.run_started(step=4)
    assert RunHistory.of([*evaluated, resumed]).metrics["bleu"].points() == [(4, 4.0)]


def test_they_are_in_the_manifest_the_csv_and_the_console(measured, capsys):
    run, emitted = measured
    last = [event for event in emitted if event.name == "evaluated" and not event.whole][-1]
    metrics = checkpoint.newest(run.checkpoints).metrics
    assert metrics["accuracy"] == last.metrics["accuracy"]
    assert all(math.isfinite(value) for value in metrics.values())
    assert main(["runs", "export", str(run.folder), "--csv"]) == 0
    rows = {int(row["step"]): row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert float(rows[12]["accuracy"]) == last.metrics["accuracy"]
    assert rows[5]["accuracy"] == ""
    shown = narration.evaluated(event_samples.evaluated(4, metrics={"accuracy": 0.25, "bleu": 12.34}), RunProgress())
    assert "accuracy 0.250  bleu 12.3" in shown.plain


def test_measuring_changes_nothing_in_the_training(measured, tmp_path):
    _, emitted = measured
    _, without = trained(tmp_path)

    def losses(found):
        return [event.train_loss for event in found if event.name == "step"]

    assert losses(without) == losses(emitted)
    assert all(event.metrics == {} for event in without if event.name == "evaluated")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['evaluation.metrics=["blue"]'], "'blue' is no metric; did you mean bleu?"),
        (['evaluation.metrics=["x"]'], "they are accuracy, bleu"),
        (
            ['evaluation.metrics=["rouge"]', "data.prompt_column=q", "data.completion_column=a"],
            "for prompts and answers there is accuracy",
        ),
    ],
)
def test_what_cannot_be_measured_is_a_mistake_in_the_preset(overrides, message):
    with pytest.raises(PresetError) as refused:
        preset_files.load(["default"], overrides)
    assert message in " ".join(str(refused.value).split())


def test_missing_packages_are_missed_before_the_run_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2tui.evaluation.text_scores.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"gpt2tui\[metrics\]"):
        launch.check_device(tiny_runs.preset(tmp_path, ALL))
    launch.check_device(tiny_runs.preset(tmp_path, "evaluation=true"))  # the accuracy needs none
