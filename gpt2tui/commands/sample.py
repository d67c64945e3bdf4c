"""`gpt2tui sample`: a model continues a text."""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from gpt2tui.errors import ResourceError, UsageError
from gpt2tui.preset.schema import SamplingTable
from gpt2tui.system.terminal_text import print_on_stderr, report_on_stderr, sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt2tui.generation import ScoredToken, TextModel
    from gpt2tui.run.checkpoint import Checkpoint


def sample(options: argparse.Namespace) -> int:
    """Prints the texts, the first while it is generated, or all as JSON; text n, counted from 0, has the seed + n."""
    from gpt2tui.run.model_lookup import check_reference

    if options.prompt is not None and options.text is not None:
        raise UsageError("the prompt is either TEXT or --prompt TEXT")
    options.prompt = options.text if options.prompt is None else options.prompt
    if options.prompt == "-":
        options.prompt = _text_of_stdin()
    if options.num_samples < 1:
        raise UsageError("--num-samples must be at least 1")
    sampling_settings(SamplingTable(), options)  # reports wrong options before torch is imported
    check_reference(options.checkpoint)
    from gpt2tui import generation
    from gpt2tui.device import is_out_of_memory
    from gpt2tui.export import onnx_runtime

    if onnx_file := onnx_runtime.file_in(options.checkpoint):
        if options.precision != "auto":
            raise UsageError("--precision is of a checkpoint; an ONNX file has a precision of its own")
        model = onnx_runtime.load(onnx_file, options.device)
    else:
        model = generation.load(options.checkpoint, options.device, options.precision, graphs=True)
    warn_of_skipped(model.saved)
    sampling = sampling_settings(model.sampling, options)
    try:
        _write(model, sampling, options)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            "out of memory while writing; ask for shorter texts (--max-length) or fewer (--num-samples)"
        ) from error
    if options.json:
        return 0
    note = ", weights rounded to fp16 (--precision fp32 keeps them exact)" if model.is_rounded else ""
    note = ", in onnxruntime" if onnx_file else note
    print_on_stderr(f"{model.source}: {model.model.num_parameters:,} parameters{note}")
    return 0


def _text_of_stdin() -> str:
    if sys.stdin is None:
        raise UsageError("the prompt - is what stands in standard input, which is closed")
    try:
        return sys.stdin.buffer.read().decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the prompt in standard input is not UTF-8: {error.reason} at byte {error.start:,}"
        ) from error


def _write(model: "TextModel", sampling: SamplingTable, options: argparse.Namespace) -> None:
    from gpt2tui.commands.tables import print_json

    if options.json:
        found = model.continuations(sampling.prompt, sampling, options.num_samples, in_template=not options.raw)
        print_json([dataclasses.asdict(each) for each in found])
        return
    template = None if options.raw or not sampling.prompt else model.template
    asked = template.asked(sampling.prompt) if template else sampling.prompt
    prompt = model.prompt_tokens(sampling.prompt) if template else sampling.prompt
    for seeds in model.seeds_together(prompt, sampling, options.num_samples):
        _print_texts(asked, model.streams(prompt, sampling, seeds), is_first=seeds[0] == sampling.seed)


def _print_texts(asked: str, tokens: "Iterator[tuple[int, ScoredToken]]", *, is_first: bool) -> None:
    """Prints the first text while it is written, and then the others, which were written meanwhile; an error or
    Ctrl-C on the way ends all of them where they are."""
    others: dict[int, list[str]] = {}
    _print_head(asked, is_first)
    try:
        for number, token in tokens:
            if number:
                others.setdefault(number, []).append(token.text)
            else:
                print(sanitize(token.text), end="", flush=True)
    finally:
        print(flush=True)
        for _, pieces in sorted(others.items()):
            _print_head(asked, is_first=False)
            print(sanitize("".join(pieces)), flush=True)


def _print_head(asked: str, is_first: bool) -> None:
    if not is_first:
        print("\n" + "-" * 20)
    print(sanitize(asked), end="", flush=True)


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
        from gpt2tui.preset.validation import not_allowed

        known = {setting.key: setting for setting in settings()}
        mistakes = [(str(e["loc"][0]), e["input"]) for e in error.errors()]
        raise UsageError(
            "\n".join(
                f"--{name.replace('_', '-')}: {not_allowed(known[f'sampling.{name}'], value)}"
                for name, value in mistakes
            )
        ) from None
