"""Weights & Biases: a background thread makes every call, so that none delays training.

Its files are in `<run folder>/wandb`; the W&B id is in `<run folder>/wandb_id`, so that a resumed run continues the
same W&B run. Events that do not reach W&B are still in `events.jsonl`.
"""

import json
import os
import queue
import secrets
import shlex
import threading
from collections import deque
from pathlib import Path
from typing import Any

from gpt2tui.errors import first_line
from gpt2tui.preset.schema import Preset
from gpt2tui.run.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    NumIterationsChanged,
    RunFailed,
    RunStarted,
    Sampled,
    Step,
)
from gpt2tui.run.sweep_folder import sweep_of
from gpt2tui.system.files import open_regular, without_home
from gpt2tui.system.terminal_text import Report, printable, report_on_stderr

_QUEUE_LENGTH = 10_000
_INIT_TIMEOUT = 10.0
_FINISH_TIMEOUT = 8.0
_CLOSE_TIMEOUT = 10.0
_SAMPLES_IN_TABLE = 50
_LONGEST_ID = 128


class WandbTracker:
    """A subscriber that sends steps, evaluations and samples to W&B, online or offline by `preset.tracking.wandb`.

    Nothing here blocks or raises: errors become one line to `report`, which the background thread calls too. `handle`
    only puts the event on a bounded queue; when it is full the event is dropped, which `close` reports. `close` waits
    at most `close_timeout` seconds. When the service cannot be reached the run is written offline.
    """

    def __init__(
        self,
        preset: Preset,
        run_folder: Path,
        *,
        report: Report = report_on_stderr,
        queue_length: int = _QUEUE_LENGTH,
        close_timeout: float = _CLOSE_TIMEOUT,
    ) -> None:
        self._preset = preset
        self._run_folder = run_folder
        self._report = report
        self._close_timeout = close_timeout
        self._events: queue.Queue[Event] = queue.Queue(queue_length)
        self._dropped = 0
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._mode = ""
        self._unsent: Path | None = None
        """The folder of a finished run that W&B has not sent."""
        self._thread: threading.Thread | None = None
        if preset.tracking.wandb != "disabled":
            # A daemon, so that a call that never returns cannot keep the process from ending.
            self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
            self._thread.start()

    def handle(self, event: Event) -> None:
        """Queue the event."""
        if self._thread is None or not self._thread.is_alive():
            return
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Wait for W&B to finish the queue, at most `close_timeout` seconds."""
        if self._thread is None:
            return
        self._closing.set()
        self._thread.join(self._close_timeout)
        if self._thread.is_alive():
            self._abandoned.set()
            self._report(
                f"W&B did not finish in {self._close_timeout:g} s and may lack the end of this run; "
                "events.jsonl has everything"
            )
        if self._dropped:
            self._report(f"W&B was too slow: {self._dropped:,} events were not sent (events.jsonl has them)")
        if self._unsent is not None:
            self._report(
                f"W&B: this run is on this machine only; to send it: wandb sync {shlex.quote(printable(self._unsent))}"
            )
        self._thread = None

    def _work(self) -> None:
        try:
            run = self._start()
            log = _WandbLog(run, self._report, self._run_folder if self._preset.tracking.artifacts else None)
            failed = False
            while (event := self._next()) is not None:
                log.write(event)
                failed = failed or isinstance(event, RunFailed)
            run.finish(exit_code=int(failed))
            if self._mode == "offline":
                self._unsent = Path(run.dir).parent  # of the folder of its files
        # Some errors in W&B raise SystemExit, which would end this thread silently.
        except (Exception, SystemExit) as error:
            # After a timeout the process is ending, and W&B's own shutdown makes the pending call fail.
            if not self._abandoned.is_set():
                self._report(f"W&B tracking is off: {_reason(error)}")

    def _next(self) -> Event | None:
        """The next event; None when the tracker is closed and the queue empty."""
        while True:
            closing = self._closing.is_set()
            try:
                return self._events.get(timeout=0.1)
            except queue.Empty:
                if closing:
                    return None

    def _start(self) -> Any:
        import wandb

        if self._preset.tracking.wandb == "online":
            try:
                wandb.setup(settings=wandb.Settings(console="off", silent=True))
                # Otherwise W&B would ask for a key on the terminal that shows the run.
                if not wandb.login(prompt=False):
                    raise RuntimeError("not logged in (`wandb login` once)")
                return self._init(wandb, "online")
            except Exception as error:
                if self._abandoned.is_set():
                    raise
                folder = self._run_folder / "wandb"
                self._report(f"W&B is out of reach: {_reason(error)}; the run goes to {folder} instead")
        return self._init(wandb, "offline")

    def _init(self, wandb: Any, mode: str) -> Any:
        tracking = self._preset.tracking
        run = wandb.init(
            mode=mode,
            project=tracking.project,
            name=tracking.run_name or self._run_folder.resolve().name,
            group=sweep_of(self._run_folder),
            tags=tracking.tags,
            config=json.loads(without_home(json.dumps(self._preset.model_dump(mode="json")))),
            dir=self._run_folder,
            id=_run_id(self._run_folder / "wandb_id"),
            resume="allow",
            settings=wandb.Settings(
                console="off",
                silent=True,
                init_timeout=_INIT_TIMEOUT,
                finish_timeout=_FINISH_TIMEOUT,
                # Host, user, the paths of Python and program, the git remote: what a run sends does not name its user.
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_executable="python",
                disable_git=True,
                disable_code=True,
                host="",
                program="gpt2tui",
            ),
        )
        self._mode = mode
        # Our step is a metric, because W&B's own counter cannot go back, as a resumed run does.
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return run


class _WandbLog:
    """Logs metrics under the names in `events.jsonl`, and the newest samples as a table.

    With `artifacts_of`, the folder of the run, each checkpoint too, as a version of one artifact.
    """

    def __init__(self, run: Any, report: Report, artifacts_of: Path | None) -> None:
        self._run = run
        self._report = report
        self._artifacts_of = artifacts_of
        self._samples: deque[tuple[int, str, str]] = deque(maxlen=_SAMPLES_IN_TABLE)

    def write(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._run.config.update(_known(event), allow_val_change=True)
            case NumIterationsChanged():
                self._run.config.update({"num_iterations": event.num_iterations}, allow_val_change=True)
            case Step() | Evaluated():
                self._run.log(_known(event))
            case Sampled():
                import wandb

                self._samples.append((event.step, event.prompt, event.text))
                # A logged table cannot change, so each is a new one; its bounded length bounds the total size.
                table = wandb.Table(columns=["step", "prompt", "text"], data=list(map(list, self._samples)))
                self._run.log({"step": event.step, "samples": table})
            case CheckpointSaved() if self._artifacts_of is not None:
                self._log_checkpoint(event, self._artifacts_of / event.path)

    def _log_checkpoint(self, event: CheckpointSaved, folder: Path) -> None:
        """A checkpoint as an artifact; W&B copies it first, because it may be pruned before it is sent."""
        import wandb

        artifact = wandb.Artifact(f"checkpoint-{self._run.id}", type="model", metadata={"step": event.step})
        try:
            artifact.add_dir(str(folder))
        except (OSError, ValueError) as error:  # it has been pruned already, or the disk is full
            self._report(f"W&B does not get the checkpoint of step {event.step}: {_reason(error)}")
        else:
            self._run.log_artifact(artifact, aliases=["latest", f"step-{event.step}"])


def _known(event: Event) -> dict[str, Any]:
    """The event's fields with a known value."""
    record = event.as_dict()
    return {key: value for key, value in record.items() if key not in ("v", "event", "time") and value is not None}


def _run_id(path: Path) -> str:
    """The id in the file, or a new one that is written to it. Raises OSError unless it is a regular file."""
    with open(open_regular(path, os.O_RDWR | os.O_CREAT), "r+", encoding="ascii") as file:  # noqa: PTH123 a descriptor
        if known := file.read(_LONGEST_ID).strip():
            return known
        new = secrets.token_hex(4)
        file.write(new + "\n")
    return new


def _reason(error: BaseException) -> str:
    return first_line(error) or type(error).__name__
