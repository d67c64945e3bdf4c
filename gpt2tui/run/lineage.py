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
    parent_is_known: bool
    """Whether it is known what it was resumed or started from, be it nothing."""


def lineage(run: Run, saved: Checkpoint) -> list[Ancestor]:
    """The checkpoint, the one that it was resumed or started from, and so on to the first that is known.

    The last one began with new weights if its parent is known, else nobody knows how.
    """
    known = {_run_id(found): found for found in (*all_runs(run.folder.resolve().parent), *all_runs(), run)}
    line: list[Ancestor] = []
    seen: set[tuple[str, int]] = set()
    here: Parent | None = Parent(saved.run_id, saved.step)
    while here is not None and (here.run_id, here.step) not in seen and len(line) < MOST_ANCESTORS:
        seen.add((here.run_id, here.step))
        owner = known.get(here.run_id)
        found = saved if not line else _checkpoint_at(owner, here)
        # Only format 2 has a data fingerprint in its manifest, and only format 2 has a parent.
        is_known = found is not None and found.data_fingerprint is not None
        line.append(Ancestor(here.run_id, here.step, owner, found, is_known))
        here = found.parent if found is not None else None
    return line


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
