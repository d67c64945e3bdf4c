"""`gpt2tui train PRESET --sweep KEY=A,B,C`: many runs, each in a process of its own, so that none ends the others."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from gpt2tui import sweep as plans
from gpt2tui.commands.signals import Interrupted, StopSignals
from gpt2tui.commands.sweep_report import (
    STOPPED_BY_SIGNAL,
    Result,
    print_document,
    print_progress,
    print_report,
    read_result,
)
from gpt2tui.commands.train import refuse_without_preset
from gpt2tui.errors import Mistake, PresetError, UsageError
from gpt2tui.launch import refuse_several_processes, with_absolute_source
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import folder as runs
from gpt2tui.run import sweep_folder
from gpt2tui.run.sweep_folder import PRESETS, Sweep, SweptRun
from gpt2tui.sweep import PlannedRun
from gpt2tui.system.numbers import counted
from gpt2tui.system.terminal_text import print_on_stderr, printable
from gpt2tui.training.controls import Controls

_POLL_SECONDS = 0.1
_LONGEST_REASON = 4096


class Child(Protocol):
    """A process that trains a run, as far as it is used here."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def wait(self) -> int:
        """Waits for its end; returns the exit code."""

    def send_signal(self, sig: int) -> None:
        """Sends it a signal."""


def start_sweep(options: argparse.Namespace) -> int:
    """Trains a new sweep. Returns 0 if all runs have finished, else the exit code of the first that has not."""
    refuse_several_processes()
    pairs = plan(options)
    loaded = [_frozen(each) for _, each in pairs]
    name = options.name if options.name is None else runs.check_name(options.name)
    digits = max(2, len(str(len(pairs))))
    swept = [
        SweptRun(planned.name, f"{PRESETS}/{number:0{digits}}/{each.name}.toml", planned.settings, planned.seed)
        for number, ((planned, _), each) in enumerate(zip(pairs, loaded, strict=True), 1)
    ]
    sweep = sweep_folder.create(
        name or loaded[0].name,
        Path(options.run_dir) if options.run_dir else None,
        swept,
        [preset_files.dumps(each.preset) for each in loaded],
        jobs=options.jobs or 1,
        force=options.force,
    )
    print_on_stderr(f"{counted(len(swept), 'run')} in {sweep.folder}")
    return _train(sweep, options)


def resume_sweep(folder: Path, options: argparse.Namespace) -> int:
    """Trains what is left of a sweep: finished runs stay, all others are resumed or begun. Returns as `start_sweep`."""
    refuse_several_processes()
    for name in ("preset", "overrides", "run_dir", "log_format", "dry_run"):
        if getattr(options, name):
            option = "--set" if name == "overrides" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} does not go with a sweep to resume, whose runs keep their presets")
    sweep = sweep_folder.read(folder)
    return _train(replace(sweep, jobs=options.jobs or sweep.jobs, force=options.force or sweep.force), options)


def plan(options: argparse.Namespace) -> list[tuple[PlannedRun, LoadedPreset]]:
    """The runs of the command line with their presets. Raises UsageError, and PresetError for what is wrong in any."""
    refuse_without_preset(options)
    swept = plans.read_swept(options.sweep)
    if options.seeds and any(setting.key == plans.SEED for setting in swept):
        raise UsageError(f"--seeds and --sweep {plans.SEED} exclude each other")
    drawn = options.sweep_random
    found = plans.draw(swept, drawn, options.seed or 0) if drawn else plans.grid(swept)
    configurations = _loaded(options, [PlannedRun("", settings) for settings in found])
    seeds: list[int | None] = [None]
    if options.seeds:
        first = configurations[0].preset.training.seed
        seeds = list(range(first, first + options.seeds))
    planned = plans.planned(found, seeds)
    return list(zip(planned, _loaded(options, planned) if options.seeds else configurations, strict=True))


def _loaded(options: argparse.Namespace, planned: Sequence[PlannedRun]) -> list[LoadedPreset]:
    """The preset of each run. Raises PresetError with every mistake in any of them, each once."""
    loaded: list[LoadedPreset] = []
    mistakes: dict[str, Mistake] = {}
    for run in planned:
        try:
            loaded.append(preset_files.load(options.preset, [*options.overrides, *run.overrides]))
        except PresetError as error:
            mistakes.update({str(mistake): mistake for mistake in error.mistakes})
    if mistakes:
        raise PresetError(*mistakes.values())
    return loaded


def _frozen(loaded: LoadedPreset) -> LoadedPreset:
    """The preset as it is whatever happens until its run begins: neither folders nor `latest` change what it means."""
    if loaded.preset.model.init_from is not None:
        from gpt2tui.training.starting import resolve

        loaded, _ = resolve(loaded)
    return replace(loaded, preset=with_absolute_source(loaded.preset))


def _train(sweep: Sweep, options: argparse.Namespace) -> int:
    """Trains all runs that are not finished; prints the results. Returns the exit code."""
    with sweep_folder.locked(sweep):
        results = {run.name: read_result(sweep, run) for run in sweep.runs}
        left = [run for run in sweep.runs if results[run.name].state != "finished"]
        if len(left) < len(sweep.runs):
            print_on_stderr(f"{len(sweep.runs) - len(left)} of {counted(len(sweep.runs), 'run')} are finished already")
        stopped = _train_all(sweep, left, results)
        ordered = list(results.values())
        (print_document if options.json else print_report)(sweep, ordered)
    if any(result.state != "finished" for result in ordered):
        print_on_stderr(f"train the rest with: gpt2tui --headless --resume {sweep.folder}")
    return stopped or next((result.exit_code for result in ordered if result.exit_code), 0)


def _train_all(sweep: Sweep, left: Sequence[SweptRun], results: dict[str, Result]) -> int | None:
    """Trains these runs, at most `sweep.jobs` at once; returns the exit code of the signal that stopped it, if one did.

    The first signal asks the running ones to save and end, as SIGTERM does; a second SIGINT to end at once.
    """
    waiting, running = deque(left), dict[str, tuple[SweptRun, Child]]()
    controls = Controls()
    asked = False
    with StopSignals(controls) as signals:
        signals.training = True
        try:
            while running or (waiting and not controls.stopping):
                while waiting and len(running) < sweep.jobs and not controls.stopping:
                    run = waiting.popleft()
                    number, folder = len(left) - len(waiting), sweep.folder / run.name
                    print_on_stderr(f"run {number} of {len(left)} begins; watch it with: gpt2tui attach {folder}")
                    running[run.name] = (run, start_process(_words(sweep, run), sweep.log(run), sweep.jobs))
                if controls.stopping and not asked:
                    asked = True
                    _send(running, signal.SIGTERM)
                ended = {name: code for name, (_, child) in running.items() if (code := child.poll()) is not None}
                for name, code in ended.items():
                    run, _ = running.pop(name)
                    results[name] = _ended(sweep, run, code)
                if ended and (running or waiting) and not controls.stopping:
                    print_progress(sweep, list(results.values()))
                if running and not ended:
                    time.sleep(_POLL_SECONDS)
        except Interrupted:
            _end_at_once(running)
            for run, child in running.values():
                results[run.name] = _ended(sweep, run, child.wait())
        return signals.exit_code


def _words(sweep: Sweep, run: SweptRun) -> list[str]:
    """The command line that begins or resumes a run."""
    folder = sweep.folder / run.name
    is_run = sweep.run(run).info_file.exists()
    words = ["--resume", str(folder)] if is_run else ["--run-dir", str(folder)]
    if not is_run:
        words += ["--preset", str(sweep.folder / run.preset)]
    return ["train", *words, *(["--force"] if sweep.force else [])]


def start_process(words: list[str], log: Path, jobs: int) -> Child:
    """A process with this command line, whose output is added to the log; several share the processor's cores.

    It is in a session of its own, so that Ctrl-C reaches it by us alone, once.
    """
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "gpt2tui", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _send(running: dict[str, tuple[SweptRun, Child]], number: int) -> None:
    for _, child in running.values():
        child.send_signal(number)


def _end_at_once(running: dict[str, tuple[SweptRun, Child]]) -> None:
    """Ends the processes without another checkpoint; by SIGKILL where the user does not want to wait for that."""
    try:
        _send(running, signal.SIGINT)
        for _, child in running.values():
            child.wait()
    except Interrupted:
        _send(running, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def _ended(sweep: Sweep, run: SweptRun, code: int) -> Result:
    """The result of a run whose process has ended; says so on stderr."""
    exit_code = code if code >= 0 else 128 - code  # as a shell has it
    result = read_result(sweep, run, exit_code)
    if exit_code == 0:
        print_on_stderr(f"{run.name} {result.state}")
        return result
    if exit_code in STOPPED_BY_SIGNAL:
        how = "before its first step" if result.summary is None else "after saving a checkpoint"
        print_on_stderr(f"{run.name} was stopped {how}")
        return result
    print_on_stderr(f"{run.name} ended with exit code {exit_code}: {_reason(sweep.log(run))}")
    return result


def _reason(log: Path) -> str:
    """The last line that a run has printed, and where the others are."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LONGEST_REASON))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return f"{printable(lines[-1], 300) if lines else 'it printed nothing'} (all of it: {log})"
