"""Everything the Runs screen shows of one run beside its row: its preset, its checkpoints, its curves."""

from dataclasses import dataclass, field
from typing import Any

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import Preset
from gpt2tui.run import checkpoint
from gpt2tui.run.checkpoint import Checkpoint
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import Run
from gpt2tui.run.summary import RunSummary
from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.run_commands import repeat_command
from gpt2tui.tui.run_listing import RunRow


@dataclass
class RunContents:
    """What is in a run folder as of `summary`; `problems` says in a line each what could not be read."""

    run: Run
    summary: RunSummary
    preset: Preset | None = None
    info: dict[str, Any] = field(default_factory=dict)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    history: RunHistory = field(default_factory=RunHistory)
    repeat: str = ""
    problems: list[str] = field(default_factory=list)


def read_contents(row: RunRow) -> RunContents:
    """Reads the whole run. Raises nothing that a damaged or vanishing folder could cause."""
    run = row.run
    contents = RunContents(run, row.summary, repeat=repeat_command(run))
    try:
        contents.preset = preset_files.check(run.preset_file).preset
        contents.history.grad_clip = contents.preset.optimizer.grad_clip
    except Gpt2TuiError as error:
        contents.problems.append(str(error))
    try:
        contents.info = run.info()
        contents.checkpoints = checkpoint.saved_in(run.checkpoints)
        contents.problems += checkpoint.problems_in(run.checkpoints)
        for event in read_events(run.events_file):
            contents.history.add(event)
    except Gpt2TuiError as error:
        contents.problems.append(str(error))
    except OSError as error:
        contents.problems.append(f"{error.filename}: {error.strerror}")
    return contents
