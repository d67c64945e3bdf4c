"""The facts of a run beside its curves."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from gpt2tui.run.events import STOP_RULES, RunFinished
from gpt2tui.run.summary import summarize
from gpt2tui.tracking.narration import run_finished
from gpt2tui.tracking.run_progress import RunProgress
from gpt2tui.tui.runs.details import _facts, _run_facts
from gpt2tui.tui.runs.library import RunRow
from tests.tui.fake_runs import append, write_run


def facts(info):
    contents = SimpleNamespace(
        history=SimpleNamespace(started=None, samples=[]), info=info, checkpoints=[], problems=[], repeat="",
        run=SimpleNamespace(folder="runs/a"),
    )  # fmt: skip
    found = {}
    _run_facts(SimpleNamespace(elsewhere=False), contents, lambda label, *parts, style="": found.update({label: parts}))
    return found


ORIGIN = {"source": "openai-community/gpt2", "sha256": "a" * 64, "run_id": None, "step": None}


def test_the_weights_that_a_run_started_from_are_named():
    assert facts({"origin": ORIGIN})["from"] == ("openai-community/gpt2", f"sha256 {'a' * 12}")
    of_a_run = {**ORIGIN, "source": "~/elsewhere", "run_id": "b", "step": 1200}
    assert facts({"origin": of_a_run})["from"][0] == "~/elsewhere, step 1,200"


@pytest.mark.parametrize("origin", [None, "x", 3, {"source": "x"}, {**ORIGIN, "step": -1}])
def test_a_run_without_or_with_a_wrong_origin_has_no_such_line(origin):
    assert "from" not in facts({"origin": origin})
    assert "from" not in facts({})


@pytest.mark.parametrize(("rule", "sentence"), STOP_RULES.items())
def test_the_rule_that_has_ended_a_run_is_named_here_and_in_the_console(rule, sentence):
    run, ending = write_run("a"), RunFinished(step=20, best_val_loss=2.0, seconds=4.0, reason=rule)
    append(run, ending)
    shown = Console(width=200, file=io.StringIO())
    shown.print(_facts(RunRow(run, summarize(run)), None))
    assert sentence in shown.file.getvalue()
    assert sentence in "\n".join(line.plain for line in run_finished(ending, RunProgress()))
