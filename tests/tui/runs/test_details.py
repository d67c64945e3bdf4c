"""The facts of a run beside its curves."""

from types import SimpleNamespace

import pytest

from gpt2tui.tui.runs.details import _run_facts


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
