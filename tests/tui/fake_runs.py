"""Run folders as a training leaves them, without a training: events, preset, run.json and hollow checkpoints."""

import json
import math
import time

from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint, events, manifest
from gpt2tui.run.folder import Run
from gpt2tui.system.files import runs_folder, sha256

START = 1_769_860_800.0


def loss_at(step):
    return 2.0 + 6.3 * math.exp(-step / 60) + 0.15 * math.sin(step * 1.7)


def write_run(
    name, *, steps=100, total=100, preset="test", overrides=(), ending="finished", checkpoints=(), sample="ok"
):
    """A run of `steps` steps; `ending` is finished, stopped, failed or crashed (which leaves no last word)."""
    run = Run(runs_folder() / name)
    run.checkpoints.mkdir(parents=True)
    loaded = preset_files.load([preset], [f"training.num_iterations={total}", *overrides]).preset
    run.preset_file.write_text(preset_files.dumps(loaded), encoding="utf-8")
    info = {
        "run_id": "0" * 32,
        "preset": preset,
        "command": ["gpt2tui"],
        "pid": 1,
        "host": None,
        "device": "cpu",
    }
    run.info_file.write_text(json.dumps(info), encoding="utf-8")
    told = [
        events.RunStarted(
            time=START, run=name, preset=preset, parameters=173_952, tokens_per_step=2048, device="cpu",
            precision="fp32", num_iterations=total, xz_bits_per_byte=1.51,
            xz_after_training_bits_per_byte=1.27,
        )
    ]  # fmt: skip
    lowest = None
    for step in range(1, steps + 1):
        told.append(
            events.Step(
                time=START + step * 0.1, step=step, train_loss=loss_at(step), learning_rate=0.01 * (1 - step / total),
                grad_norm=0.8, tokens_seen=step * 2048, tokens_per_second=20_480.0, step_seconds=0.1,
                device_memory_bytes=None, host_memory_bytes=700_000_000, mfu=None,
            )
        )  # fmt: skip
        if step % 10 == 0:
            loss = loss_at(step) + 0.1
            best = lowest is None or loss < lowest
            lowest = loss if best else lowest
            told.append(
                events.Evaluated(
                    time=START + step * 0.1,
                    step=step,
                    val_loss=loss,
                    perplexity=math.exp(loss),
                    bits_per_byte=loss / 2.2,
                    best=best,
                    best_val_loss=lowest,
                )
            )
            told.append(events.Sampled(time=START + step * 0.1, step=step, prompt="def ", text=sample))
    end = START + steps * 0.1
    if ending in ("finished", "stopped"):
        reason = "done" if ending == "finished" else "stopped"
        told.append(events.RunFinished(time=end, step=steps, best_val_loss=lowest, seconds=10.0, reason=reason))
    elif ending == "failed":
        told.append(events.RunFailed(time=end, step=steps, message="the loss is no longer a number"))
    run.events_file.write_text("".join(event.as_json() + "\n" for event in told), encoding="ascii")
    for step in checkpoints:
        write_checkpoint(run, step)
    return run


def write_checkpoint(run, step):
    """A checkpoint with a manifest that holds and files that are no model."""
    folder = run.checkpoints / checkpoint.folder_name(step)
    folder.mkdir()
    for name in manifest.NEEDED["full"]:
        (folder / name).write_text(f"{name} of step {step}\n" * 1000, encoding="utf-8")
    (folder / "preset.toml").write_text(run.preset_file.read_text(encoding="utf-8"), encoding="utf-8")
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in folder.iterdir()}
    contents = {"format_version": 1, "step": step, "run_id": "0" * 32, "val_loss": loss_at(step), "files": files}
    (folder / manifest.MANIFEST).write_text(json.dumps(contents), encoding="utf-8")


def append(run, *more):
    with run.events_file.open("a", encoding="ascii") as file:
        file.writelines(event.as_json() + "\n" for event in more)


def now():
    return time.time()
