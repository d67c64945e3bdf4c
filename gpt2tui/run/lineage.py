"""Where a checkpoint comes from: the checkpoints that it and its ancestors were resumed or started from."""

from collections.abc import Iterable
from dataclasses import dataclass

from gpt2tui.errors import CheckpointError
from gpt2tui.run import checkpoint
from gpt2tui.run.checkpoint import Checkpoint, Parent
from gpt2tui.run.folder import Run, all_runs

MOST_ANCESTORS = 1000


@dataclass(frozen=True)
class Ancestor:
    """A checkpoint in a line of descent; what is not known is None."""

    run_id: str
    step: int
    run: Run | None
    """None where no run with this id is among all runs."""
    saved: Checkpoint | None
    """None where the checkpoint is no longer there or is damaged."""
    began_with: str | None = None
    """For the last of the line: "new weights", or the weights of another program that it was imported or fine-tuned
    from; None where that is not recorded."""


def lineage(run: Run, saved: Checkpoint) -> list[Ancestor]:
    """The checkpoint, the one that it was resumed from or fine-tuned from, and so on to the first that is known."""
    known = {_run_id(found): found for found in (*all_runs(run.folder.resolve().parent), *all_runs(), run)}
    line: list[Ancestor] = []
    seen: set[tuple[str, int]] = set()
    here: Parent | None = Parent(saved.run_id, saved.step)
    while here is not None and (here.run_id, here.step) not in seen and len(line) < MOST_ANCESTORS:
        seen.add((here.run_id, here.step))
        owner = known.get(here.run_id)
        found = saved if not line else _checkpoint_at(owner, here)
        following = None if found is None else _before(found)
        line.append(Ancestor(here.run_id, here.step, owner, found, None if following else _beginning(found)))
        here = following
    return line


def _before(saved: Checkpoint) -> Parent | None:
    """The checkpoint that one was resumed from, else the one whose weights its run started from."""
    origin = saved.origin
    if saved.parent is None and origin is not None and origin.run_id is not None and origin.step is not None:
        return Parent(origin.run_id, origin.step)
    return saved.parent


def _beginning(saved: Checkpoint | None) -> str | None:
    """What a checkpoint without a known ancestor began with; None where that is not recorded, as in format 1."""
    if saved is None or saved.data_fingerprint is None:
        return None
    if saved.origin is not None:
        return str(saved.origin)
    return "new weights" if saved.data_fingerprint else None  # imported ones have no corpus


def _run_id(run: Run) -> str | None:
    try:
        run_id = run.info().get("run_id")
    except CheckpointError:
        return None
    return run_id if isinstance(run_id, str) else None


def _checkpoint_at(run: Run | None, wanted: Parent) -> Checkpoint | None:
    return None if run is None else _of_step(checkpoint.saved_in(run.checkpoints), wanted.step)


def _of_step(saved: Iterable[Checkpoint], step: int) -> Checkpoint | None:
    return next((each for each in saved if each.step == step), None)
