"""Export for TensorRT: the ONNX folder, and the `trtexec` command that makes an engine of it."""

import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from gpt2tui.errors import CheckpointError
from gpt2tui.export import onnx
from gpt2tui.export.onnx_graph import LAYER_NORM, MASK, POSITIONS, TOKENS, past_names
from gpt2tui.export.onnx_runtime import FILE
from gpt2tui.export.verification import Checked, Dtype, Reference
from gpt2tui.generation import TextModel
from gpt2tui.model.config import GPT2Config

SCRIPT, ENGINE = "trtexec.sh", "model.plan"
TRTEXEC = "trtexec"
LARGEST_BATCH = 8
LAST_LINES = 5


def command(config: GPT2Config, context: int) -> list[str]:
    """The words of the command: fp16 with the layer norms in fp32, and one profile for prompts and later tokens.

    TensorRT checks the shapes of a profile against each other: at each of its three points the mask is as long as past
    and new tokens together. At the largest that is more than the model reads.
    """
    norms = [f"h.{layer}.ln_{number}" for layer in range(config.n_layer) for number in (1, 2)]
    in_fp32 = ",".join(f"{LAYER_NORM}.{norm}:fp32" for norm in [*norms, "ln_f"])
    middle, last = context // 2, context - 1
    points = {
        "min": _shapes(config, batch=1, new=1, past=0),
        "opt": _shapes(config, batch=1, new=1, past=middle),
        "max": _shapes(config, batch=LARGEST_BATCH, new=context, past=last),
    }
    return [
        TRTEXEC,
        f"--onnx={FILE}",
        f"--saveEngine={ENGINE}",
        "--fp16",
        "--precisionConstraints=obey",
        f"--layerPrecisions={in_fp32}",
        f"--layerOutputTypes={in_fp32}",
        *(f"--{point}Shapes={shapes}" for point, shapes in points.items()),
    ]


def _shapes(config: GPT2Config, batch: int, new: int, past: int) -> str:
    of_past = f"{batch}x{config.n_head}x{past}x{config.head_dim}"
    shapes = {TOKENS: f"{batch}x{new}", MASK: f"{batch}x{past + new}", POSITIONS: f"{batch}x{new}"}
    shapes |= dict.fromkeys(past_names(config.n_layer), of_past)
    return ",".join(f"{name}:{shape}" for name, shape in shapes.items())


def write(model: TextModel, folder: Path, dtype: Dtype) -> None:
    """Writes the files into an existing folder."""
    onnx.write(model, folder, dtype)
    lines = " \\\n  ".join(map(shlex.quote, command(model.model.config, model.context_length)))
    (folder / SCRIPT).write_text(f'#!/bin/sh\ncd "$(dirname "$0")" || exit\n{lines}\n', encoding="utf-8")


def check(model: TextModel, folder: Path, dtype: Dtype, reference: Reference) -> Checked:
    """Checks the graph as ONNX, and makes the engine where `trtexec` is installed; its logits are not compared.

    Raises CheckpointError when the graph is not the model, or trtexec fails.
    """
    checked = onnx.check(model, folder, dtype, reference)
    program = shutil.which(TRTEXEC)
    if program is None:
        return replace(checked, not_run_in=(*checked.not_run_in, "TensorRT"))
    words = [program, *command(model.model.config, model.context_length)[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode or not (folder / ENGINE).is_file():
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:])
        raise CheckpointError(f"trtexec made no engine of the exported graph (exit code {done.returncode}):\n{last}")
    note = f"{TRTEXEC} made and ran {ENGINE}; its logits were not compared"
    return replace(checked, notes=(*checked.notes, note))
