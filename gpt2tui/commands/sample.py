"""`gpt2tui sample`: a model continues a text."""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from gpt2tui.errors import UsageError
from gpt2tui.preset.schema import SamplingTable
from gpt2tui.system.terminal_text import print_on_stderr, report_on_stderr, sanitize

if TYPE_CHECKING:
    from gpt2tui.run.checkpoint import Checkpoint


def sample(options: argparse.Namespace) -> int:
    """Prints each text while it is generated, or all of them as JSON; text n, counted from 0, has the seed + n."""
    from gpt2tui.commands.tables import print_json
    from gpt2tui.run.model_lookup import check_reference

    if options.prompt is not None and options.text is not None:
        raise UsageError("the prompt is either TEXT or --prompt TEXT")
    options.prompt = options.text if options.prompt is None else options.prompt
    if options.prompt == "-":
        options.prompt = sys.stdin.read()
    if options.num_samples < 1:
        raise UsageError("--num-samples must be at least 1")
    sampling_settings(SamplingTable(), options)  # reports wrong options before torch is imported
    check_reference(options.checkpoint)
    from gpt2tui import generation
    from gpt2tui.export import onnx_runtime

    if onnx_file := onnx_runtime.file_in(options.checkpoint):
        if options.precision != "auto":
            raise UsageError("--precision is of a checkpoint; an ONNX file has a precision of its own")
        model = onnx_runtime.load(onnx_file, options.device)
    else:
        model = generation.load(options.checkpoint, options.device, options.precision)
    warn_of_skipped(model.saved)
    sampling = sampling_settings(model.sampling, options)
    seeded = [sampling.model_copy(update={"seed": sampling.seed + n}) for n in range(options.num_samples)]
    if options.json:
        print_json([dataclasses.asdict(model.continuation(s.prompt, s, in_template=not options.raw)) for s in seeded])
        return 0
    for number, settings in enumerate(seeded):
        if number:
            print("\n" + "-" * 20)
        template = None if options.raw or not settings.prompt else model.template
        print(sanitize(template.asked(settings.prompt) if template else settings.prompt), end="", flush=True)
        for piece in model.stream(model.prompt_tokens(settings.prompt) if template else settings.prompt, settings):
            print(sanitize(piece.text), end="", flush=True)
        print(flush=True)  # before the line on stderr
    note = "" if model.decoder is None else ", weights rounded to fp16 (--precision fp32 keeps them exact)"
    note = ", in onnxruntime" if onnx_file else note
    print_on_stderr(f"{model.source}: {model.model.num_parameters:,} parameters{note}")
    return 0


def warn_of_skipped(saved: "Checkpoint | None") -> None:
    """Says on stderr why a better or newer checkpoint could not be used."""
    for problem in saved.skipped if saved else ():
        report_on_stderr(f"{problem}; using another checkpoint")


def sampling_settings(defaults: SamplingTable, options: argparse.Namespace) -> SamplingTable:
    """The settings of the command line, else the defaults. Raises UsageError with all mistakes at once."""
    from pydantic import ValidationError

    given = {
        name: getattr(options, name) for name in SamplingTable.model_fields if getattr(options, name, None) is not None
    }
    try:
        return SamplingTable.model_validate({**defaults.model_dump(), **given})
    except ValidationError as error:
        from gpt2tui.preset.files import settings

        allowed = {setting.key: setting.allowed for setting in settings()}
        mistakes = [(str(e["loc"][0]), e["input"]) for e in error.errors()]
        raise UsageError(
            "\n".join(
                f"--{name.replace('_', '-')}: {value!r} is not {allowed[f'sampling.{name}']}"
                for name, value in mistakes
            )
        ) from None
