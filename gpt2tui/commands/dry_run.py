"""`gpt2tui train --dry-run`: checks a preset and its data and estimates its cost, without training."""

import argparse

from gpt2tui.commands.tables import print_json
from gpt2tui.commands.train import load_preset
from gpt2tui.data.corpus_check import check_vocabulary
from gpt2tui.data.readiness import ASSUMED_CHAR_VOCAB_SIZE, check_data
from gpt2tui.device import choose_device, choose_precision
from gpt2tui.estimate import as_dict, estimate, report_lines
from gpt2tui.preset.files import LoadedPreset, dumps
from gpt2tui.preset.starting_weights import local_folder
from gpt2tui.run import folder as runs
from gpt2tui.system.device_speed import measure
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.training.resuming import resumed_preset


def dry_run(options: argparse.Namespace) -> int:
    """Prints the state of the data and the estimated cost, with --toml after all settings. Writes no file."""
    loaded = _loaded(options)
    preset = loaded.preset
    device = choose_device(preset.training.device)
    data = check_data(loaded, window=preset.training.sequence_length + 1)
    if data.vocab_size is not None:
        check_vocabulary(preset, data.vocab_size)
    speed = measure(device, choose_precision(preset, device))
    known = data.vocab_size or preset.known_vocab_size
    vocab_size = known or ASSUMED_CHAR_VOCAB_SIZE
    costs = estimate(preset, vocab_size=vocab_size, train_tokens=data.train_tokens, device=speed)
    if options.json:
        print_json(
            {
                "preset": loaded.name,
                "layers": [str(path) for path in loaded.layers],
                "resolved": preset.model_dump(),
                "estimate": as_dict(costs),
                "vocab_size": vocab_size,
                "vocab_size_is_exact": known is not None,
                "data": vars(data),
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
    for line in report_lines(costs):
        print(line)
    if known is None:
        print(f"            assuming {ASSUMED_CHAR_VOCAB_SIZE} characters, because the corpus is not read yet")
    return 0


def _loaded(options: argparse.Namespace) -> LoadedPreset:
    """The preset of the command line; with --resume the run's own, changed by --preset and --set."""
    if not options.resume:
        return load_preset(options)
    run, saved = runs.find_with_checkpoint(options.resume)
    start = saved or runs.resume_point(run)
    return resumed_preset(run, start, options.preset, options.overrides, newest=saved is None).loaded
