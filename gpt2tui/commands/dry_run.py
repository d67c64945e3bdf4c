"""`gpt2tui train --dry-run`: checks a preset and its data and estimates its cost, without training."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from gpt2tui.commands.sweep import plan
from gpt2tui.commands.tables import Column, print_json, print_table
from gpt2tui.commands.train import load_preset
from gpt2tui.data.corpus_check import check_vocabulary
from gpt2tui.data.readiness import ASSUMED_CHAR_VOCAB_SIZE, DataState, check_data
from gpt2tui.device import Precision, choose_device, choose_precision
from gpt2tui.estimate import Estimate, approximate_duration, as_dict, estimate, report_lines
from gpt2tui.launch import check_ranks
from gpt2tui.memory_advice import change_of
from gpt2tui.preset.files import LoadedPreset, dumps
from gpt2tui.preset.starting_weights import local_folder
from gpt2tui.run import folder as runs
from gpt2tui.system.device_speed import DeviceSpeed, measure
from gpt2tui.system.numbers import byte_size, compact, counted, exact_percent
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.training.rank_costs import rank_costs, rank_lines
from gpt2tui.training.resuming import resumed_preset

if TYPE_CHECKING:
    import torch


def dry_run(options: argparse.Namespace) -> int:
    """Prints the state of the data and the estimated cost, with --toml after all settings. Writes no file."""
    loaded = _loaded(options)
    preset = loaded.preset
    ranks = options.ranks
    if ranks:
        check_ranks(preset, ranks)
    costs, data, known = _costs(loaded, {}, ranks or 1)
    shares = rank_costs(preset, costs, ranks) if ranks else None
    vocab_size = known or ASSUMED_CHAR_VOCAB_SIZE
    if options.json:
        print_json(
            {
                "preset": loaded.name,
                "layers": [str(path) for path in loaded.layers],
                "resolved": preset.model_dump(),
                "estimate": as_dict(costs),
                "ranks": None if shares is None else {**asdict(shares), "traffic_bytes": shares.traffic_bytes},
                "vocab_size": vocab_size,
                "vocab_size_is_exact": known is not None,
                "data": asdict(data),
            }
        )
        return 0
    if options.toml:
        print(dumps(preset))
    description = f": {sanitize(preset.description, keep_newlines=False)}" if preset.description else ""
    print(f"preset      {loaded.name}{description}")
    if preset.model.init_from and local_folder(preset.model.init_from) is None:
        reference = sanitize(preset.model.init_from)
        print(f"weights     {reference} is not here yet: the shape below is the preset's, not theirs")
    print(f"corpus      {sanitize(data.source)}: {sanitize(data.state)}")
    for part in data.mix:
        tokens = ""
        if part.train_tokens:
            times = part.share * costs.tokens / part.train_tokens
            tokens = f", {compact(part.train_tokens)} tokens, read {counted(times, 'time')}"
        print(f"            {exact_percent(part.share)} {sanitize(part.source)}: {sanitize(part.state)}{tokens}")
    for line in report_lines(costs):
        print(line)
    if costs.is_too_large:
        print(f"too large?  {byte_size(costs.memory_free_bytes or 0)} of memory are free; {change_of(preset, costs)}")
    for line in [] if shares is None else rank_lines(shares):
        print(line)
    if known is None:
        print(f"            assuming {ASSUMED_CHAR_VOCAB_SIZE} characters, because the corpus is not read yet")
    return 0


def dry_run_sweep(options: argparse.Namespace) -> int:
    """Prints the runs of a sweep, each with its estimate, and their total. Writes no file."""
    speeds: dict[tuple[torch.device, Precision], DeviceSpeed] = {}
    found = [(planned, _costs(loaded, speeds)[0]) for planned, loaded in plan(options)]
    seconds = [costs.seconds for _, costs in found if costs.seconds is not None]
    tokens, flops = sum(costs.tokens for _, costs in found), sum(costs.flops for _, costs in found)
    total = sum(seconds) if len(seconds) == len(found) else None
    if options.json:
        runs_of_sweep = [
            {"run": run.name, "settings": run.settings, "seed": run.seed, "estimate": as_dict(costs)}
            for run, costs in found
        ]
        total_costs = {"runs": len(found), "tokens": tokens, "flops": flops, "seconds": total}
        print_json({"runs": runs_of_sweep, "total": total_costs})
        return 0
    columns = [Column("run"), *(Column(name, right=True) for name in ("parameters", "tokens", "memory", "time"))]
    rows = []
    for run, costs in found:
        time = "" if costs.seconds is None else approximate_duration(costs.seconds)
        parameters = compact(costs.parameters.total)
        rows.append((run.name, parameters, compact(costs.tokens), byte_size(costs.memory.total), time))
    print_table(columns, rows)
    time = "a time that is not known"
    if total is not None:
        at_most = any(costs.seconds_are_a_bound for _, costs in found)
        time = f"{'at most' if at_most else 'about'} {approximate_duration(total)} of training steps"
    device = next((f" on {costs.device}" for _, costs in found if costs.device), "")
    print(
        f"\n{counted(len(found), 'run')}: {compact(tokens)} tokens, {flops:.3g} FLOPs; one after the "
        f"other {time}{device}"
    )
    return 0


def _costs(
    loaded: LoadedPreset, speeds: "dict[tuple[torch.device, Precision], DeviceSpeed]", ranks: int = 1
) -> tuple[Estimate, DataState, int | None]:
    """The estimate of a run, the state of its data, and its vocabulary where that is known; `speeds` are kept."""
    preset = loaded.preset
    device = choose_device(preset.training.device)
    data = check_data(loaded, window=preset.training.sequence_length + 1)
    if data.vocab_size is not None:
        check_vocabulary(preset, data.vocab_size)
    known = preset.model.vocab_size or data.vocab_size or preset.known_vocab_size  # as the training has it
    precision = choose_precision(preset, device)
    if (device, precision) not in speeds:
        speeds[device, precision] = measure(device, precision)
    costs = estimate(
        preset,
        vocab_size=known or ASSUMED_CHAR_VOCAB_SIZE,
        train_tokens=data.train_tokens,
        device=speeds[device, precision],
        world_size=ranks,
    )
    return costs, data, known


def _loaded(options: argparse.Namespace) -> LoadedPreset:
    """The preset of the command line; with --resume the run's own, changed by --preset and --set."""
    if not options.resume:
        return load_preset(options)
    run, saved = runs.find_with_checkpoint(options.resume)
    start = saved or runs.resume_point(run)
    return resumed_preset(run, start, options.preset, options.overrides, newest=saved is None).loaded
