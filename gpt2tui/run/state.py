"""The states of a run: one word each, the same on all screens, on the command line and in JSON."""

from typing import Literal

from gpt2tui.run.events import Evaluated, RunFailed, RunFinished

RunState = Literal[
    "loading",
    "preparing",
    "training",
    "paused",
    "evaluating",
    "saving",
    "finished",
    "stopped",
    "failed",
    "crashed",
    "unknown",
    "empty",
]
"""`loading`: its files are still being read. `crashed`: it has no end, and no process trains it. `unknown`: it has no
end, and its process is one of another machine. `empty`: no training has begun in its folder."""

BESIDE_STATE = "elsewhere"
"""What stands beside the state of a run that another process trains."""

ACTIVE: frozenset[RunState] = frozenset({"preparing", "training", "paused", "evaluating", "saving"})
"""The states in which a process trains the run."""


def state_at(
    step: int, num_iterations: int, evaluation: Evaluated | None, paused: bool = False, eval_frequency: int = 0
) -> RunState:
    """What a process that trains the run does, from its events since the start of its training.

    `evaluation` is the last one. `eval_frequency` tells which steps are followed by an evaluation, 0 where that is not
    known; the last step always is: by one over all validation text, after which the run is only saved.
    """
    if paused:
        return "paused"
    measured = evaluation is not None and evaluation.step == step
    if 0 < num_iterations <= step:
        return "saving" if measured and evaluation is not None and evaluation.whole else "evaluating"
    due = eval_frequency > 0 and step > 0 and step % eval_frequency == 0
    return "evaluating" if due and not measured else "training"


def state_at_end(ending: RunFinished | RunFailed) -> RunState:
    """How a training ended."""
    if isinstance(ending, RunFailed):
        return "failed"
    return "stopped" if ending.reason == "stopped" else "finished"
