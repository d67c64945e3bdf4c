"""A training over several ranks: torchrun trains it in a session of its own, and this process watches and controls it.

What happens is read from the run's events.jsonl, and what the user wants is left in its folder as requests; so the
training continues when the workbench is left.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from gpt2tui.data.store_building import StageProgress
from gpt2tui.errors import Gpt2TuiError, ResourceError
from gpt2tui.launch import Emitted, Launch, OpenedRun, check_ranks, with_absolute_source
from gpt2tui.preset.files import dumps
from gpt2tui.preset.schema import Preset
from gpt2tui.run import folder as runs
from gpt2tui.run.events import RunFailed, RunFinished, RunStarted
from gpt2tui.run.events_file import follow_events
from gpt2tui.run.folder import OUTPUT, Run
from gpt2tui.run.requests import Request, send
from gpt2tui.training.controls import Controls
from gpt2tui.tui.detaching import printed, started_beside

POLL_SECONDS = 0.2
TORCHRUN = (sys.executable, "-P", "-m", "torch.distributed.run", "--standalone")
OF_TORCHRUN = re.compile(r"[EWI]\d{4} |[=*]{5}|Traceback|Setting OMP_NUM_THREADS")
"""How a line begins that is none of ours."""
SECONDS_TO_END = 60.0  # torchrun gives its ranks 30


def ranks_of(preset: Preset) -> int:
    """How many processes train a preset: what [distributed] ranks says, else one for each GPU of this machine.

    Of the GPUs as many as divide the micro-batches of a step. Raises UsageError where `ranks` does not divide them.
    """
    if preset.distributed is not None and preset.distributed.ranks is not None:
        check_ranks(preset, preset.distributed.ranks)
        return preset.distributed.ranks
    if preset.training.device not in ("auto", "cuda"):
        return 1
    import torch

    accumulation = preset.training.gradient_accumulation
    return next(n for n in range(max(1, torch.cuda.device_count()), 0, -1) if accumulation % n == 0)


def train_over_ranks(launch: Launch, controls: Controls, ranks: int) -> Iterator[Emitted]:
    """Trains with `ranks` processes of torchrun; yields what `launch.drive` does.

    It ends when they have, or when `controls` say that they train on without this process. Raises DoesNotFitError
    before anything is started, and ResourceError when they end with an error.
    """
    with tempfile.TemporaryDirectory() as temporary, _run_of(launch) as run:
        checked = _is_fit_checked(launch, run, ranks)
        start = run.events_file.stat().st_size if run.events_file.exists() else 0
        before = _session(run)
        words = [*_command(launch, run, ranks, Path(temporary)), *(["--force"] if checked else [])]
        process = started_beside(words, run, _settings(ranks))
        yield OpenedRun(run, launch.loaded, torchrun=process.pid)
        try:
            yield from _until_begun(process, run, ranks, before)
        except BaseException:  # a stop before there is anything to save, too
            _end(process)
            raise
        if run.creation is not None:
            run.creation.begun = True
    yield from _events(process, run, controls, start)


@contextlib.contextmanager
def _run_of(launch: Launch) -> Iterator[Run]:
    """The run that will be trained; a new one's folder is removed again if training never begins."""
    if launch.resume is not None and launch.run_dir is None:
        yield launch.resume
        return
    run = runs.create(launch.loaded.name, launch.run_dir)
    try:
        yield run
    finally:
        if run.creation is not None and not run.creation.begun:
            (run.folder / OUTPUT).unlink(missing_ok=True)
        runs.remove_unless_begun(run)


def _is_fit_checked(launch: Launch, run: Run, ranks: int) -> bool:
    """Whether the ranks need not ask again if the run fits; on GPUs they do, as asking would take some of the memory.

    Raises DoesNotFitError, as `launch.drive` does, unless the user has said that it does not matter.
    """
    from gpt2tui.device import choose_device
    from gpt2tui.training.memory_check import check_fit

    preset = launch.loaded.preset
    if launch.force:
        return True
    if choose_device(preset.training.device).type == "cuda":
        return False
    check_fit(preset, run.folder, sum(1 for _ in run.checkpoints.glob("step-*")), ranks)
    return True


def _command(launch: Launch, run: Run, ranks: int, temporary: Path) -> list[str]:
    """The line that starts torchrun; the preset of a new run is in a file of the temporary folder."""
    words = [*TORCHRUN, f"--nproc-per-node={ranks}", "-m", "gpt2tui", "--headless", "--log-format", "text"]
    if launch.resume is None:
        preset = temporary / f"{Path(launch.loaded.name).name or 'preset'}.toml"
        preset.write_text(dumps(with_absolute_source(launch.loaded.preset)), encoding="utf-8")
        return [*words, "--preset", str(preset), "--run-dir", str(run.folder.absolute())]
    step = launch.resume_from.step if launch.resume_from is not None else launch.resume_step
    words += ["--resume", str(launch.resume.folder.absolute()) + ("" if step is None else f"@{step}")]
    words += [word for layer in launch.layers for word in ("--preset", str(layer))]
    words += [word for setting in launch.overrides for word in ("--set", setting)]
    return words if launch.run_dir is None else [*words, "--run-dir", str(run.folder.absolute())]


def _settings(ranks: int) -> dict[str, str]:
    """The environment of torchrun: where the user has not said otherwise, the ranks share the processors."""
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks)), **os.environ, "PYTHONSAFEPATH": "1"}


def _session(run: Run) -> object:
    """What run.json says of the process that trains the run, None for a run that has not begun."""
    with contextlib.suppress(Gpt2TuiError, OSError):  # replaced at this moment, where that is not atomic
        info = run.info()
        return (info.get("pid"), info.get("sessions")) if info else None
    return None


def _until_begun(process: "subprocess.Popen[bytes]", run: Run, ranks: int, before: object) -> Iterator[StageProgress]:
    """What the ranks print until they train. Raises ResourceError when they end before that."""
    while (now := _session(run)) is None or now == before:
        if process.poll() is not None and _session(run) in (None, before):
            raise ResourceError(f"the {ranks} ranks have ended before they trained: {_reason(run, process)}")
        ours = [line for line in printed(run) if not OF_TORCHRUN.match(line)]
        yield StageProgress("\n".join([f"{ranks} processes of torchrun", *ours[-1:]]))
        time.sleep(POLL_SECONDS)


def _reason(run: Run, process: "subprocess.Popen[bytes]") -> str:
    """The last message of ours; torchrun prints a report of its own after it."""
    lines = printed(run)
    begins = [number for number, line in enumerate(lines) if line.startswith("gpt2tui: ")]
    if not begins:
        return f"torchrun ended with code {process.poll()}"
    message = itertools.takewhile(lambda line: not OF_TORCHRUN.match(line), lines[begins[-1] :])
    return "\n".join(message).removeprefix("gpt2tui: ")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends torchrun, which ends its ranks."""
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _events(process: "subprocess.Popen[bytes]", run: Run, controls: Controls, start: int) -> Iterator[Emitted]:
    """The run's events from the offset `start` of its file on. Raises ResourceError for a run that failed."""
    over, ending = threading.Event(), None
    arguments = (process, run, controls, over)
    threading.Thread(target=_pass_on, args=arguments, name="requests to ranks", daemon=True).start()
    for event in follow_events(run.events_file, over, POLL_SECONDS, start):
        if isinstance(event, RunStarted | RunFinished | RunFailed):
            ending = event
        yield event
    if controls.left:
        return
    if isinstance(ending, RunFailed):
        raise ResourceError(ending.message)
    if not isinstance(ending, RunFinished):
        raise ResourceError(f"the ranks that trained {run.name} have ended: {_reason(run, process)}")


def _pass_on(process: "subprocess.Popen[bytes]", run: Run, controls: Controls, over: threading.Event) -> None:
    """Leaves what the user asks for as requests in the run's folder, until the ranks have ended or train on alone."""
    paused = stopping = False
    while process.poll() is None and not controls.left:
        decision = controls.decide()
        wanted: list[Request] = [*decision.requests]
        if decision.pause != paused:
            wanted.append("pause" if decision.pause else "continue")
            paused = decision.pause
        if decision.stop and not stopping:
            wanted, stopping = ["stop"], True
        for request in wanted:
            with contextlib.suppress(Gpt2TuiError):  # it has ended meanwhile, which its events say
                send(run, request)
        while (copy := controls.next_copy()) is not None:
            copy.set_exception(
                ResourceError(
                    "the weights of a run over several ranks are in other processes; chat with its checkpoint"
                )
            )
        controls.wait(POLL_SECONDS)
    over.set()
