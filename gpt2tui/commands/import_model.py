"""`gpt2tui import`: a model of another program, or a checkpoint, as a run with one checkpoint."""

import argparse
import json
import time
from pathlib import Path

from gpt2tui.system.terminal_text import print_on_stderr, report_on_stderr, sanitize


def import_model(options: argparse.Namespace) -> int:
    """Makes a run folder of a model, and prints its path."""
    from gpt2tui import model_files
    from gpt2tui.data import tokenizers
    from gpt2tui.model.huggingface import to_published
    from gpt2tui.model.published_config import published_config, trained_length
    from gpt2tui.preset import files as preset_files
    from gpt2tui.preset.schema import Preset
    from gpt2tui.run import checkpoint
    from gpt2tui.run import folder as runs
    from gpt2tui.run.events import CheckpointSaved, RunFinished, RunStarted
    from gpt2tui.run.events_file import JsonLines
    from gpt2tui.system.files import replace_text
    from gpt2tui.training.starting import origin_of

    started = time.perf_counter()
    found = model_files.find(options.source)
    described = model_files.description_folder(found.folder)
    model, origin, tokenizer = model_files.load_model(found.folder), origin_of(found), tokenizers.of_model(described)
    template = tokenizers.template_in(found.folder)
    preset = Preset.model_validate({"description": f"Imported from {origin}.", "model": {"init_from": origin.source}})
    preset = preset_files.with_weights(preset, described)
    length = trained_length(checkpoint.read_json(described / "config.json")) or model.config.n_positions
    preset = preset.with_training(sequence_length=length)
    config = json.dumps(published_config(model.config, tokenizer.eot, trained_length=length), indent=2) + "\n"
    name = Path(origin.source).name if found.saved is None else found.folder.parent.parent.name
    run = runs.create(name, Path(options.run_dir) if options.run_dir else None)
    with runs.locked(run):
        try:
            replace_text(run.preset_file, preset_files.dumps(preset))
            tokenizers.save(tokenizer, run.folder, template)
            run_id = runs.write_info(
                run,
                preset_name=name,
                command=runs.command_line(),
                choices={"device": "cpu", "precision": "fp32"},
                data={},
                origin=origin,
            )
            saved = checkpoint.write(
                run.checkpoints,
                step=0,
                run_id=run_id,
                tensors={"model": to_published(model.state_dict(), model.config)},
                documents={"config.json": config, "preset.toml": preset_files.dumps(preset)},
                trainer={"step": 0, "tokens_seen": 0, "seconds": 0.0, "preset_name": name, "data_fingerprint": ""},
                save_tokenizer=lambda folder: tokenizers.save(tokenizer, folder, template),
                metrics={},
                data_fingerprint="",
                origin=origin,
            )
        finally:
            runs.remove_unless_begun(run)
        seconds = time.perf_counter() - started
        events = JsonLines(run.events_file, report_on_stderr)
        for event in (
            RunStarted(
                run=run.name,
                preset=name,
                parameters=model.num_parameters,
                tokens_per_step=preset.tokens_per_step,
                device="cpu",
                precision="fp32",
                num_iterations=0,
                vocab_size=model.config.vocab_size,
                init_from=str(origin),
            ),
            CheckpointSaved(step=0, path=f"{runs.CHECKPOINTS}/{saved.folder.name}", seconds=seconds, bytes=saved.bytes),
            RunFinished(step=0, best_val_loss=None, seconds=0.0),
        ):
            events.handle(event)
        events.close()
    print(sanitize(str(run.folder), keep_newlines=False))
    print_on_stderr(
        f"{model.num_parameters:,} parameters of {origin}; `gpt2tui sample {run.name}` writes with them, and "
        f"--set model.init_from={run.name} starts a training from them"
    )
    return 0
