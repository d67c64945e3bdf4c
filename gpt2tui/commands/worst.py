"""`gpt2tui runs show RUN --worst`: the validation windows with the highest loss, as a heat map of their tokens."""

import argparse
from typing import Any

from gpt2tui.commands.tables import Column, plain, print_json, print_table
from gpt2tui.errors import CheckpointError, UsageError
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.worst_passages import WorstPassages, read_worst_passages
from gpt2tui.system.styled_output import StyledConsole
from gpt2tui.system.terminal_text import print_on_stderr, printable, report_on_stderr
from gpt2tui.tracking.heat_map import SURPRISING, expectation, heat_map

WIDTH = 78
CONTINUED_TOKENS = 24


def show_worst(options: argparse.Namespace) -> int:
    """Prints the passages, or with --passage one of them at every checkpoint of the run."""
    run = runs.find(options.run)
    worst = read_worst_passages(run)
    if options.passage is not None:
        return _follow(options, run, worst)
    if options.json:
        print_json({"run": run.name, **worst.as_dict()})
        return 0
    console = StyledConsole(highlight=False)
    is_coloured = console.is_terminal and not console.no_color and console.color_system is not None
    over = "all of the validation text" if worst.whole else "the validation sample"
    scale = "darker for a higher loss" if is_coloured else "below each token its loss in nats, 9 for 9 and above"
    heading = f"{run.name}: windows with the highest loss of {over} at step {worst.step:,}; {scale}"
    console.print(plain(heading), soft_wrap=True)
    width = min(console.width if console.is_terminal else WIDTH, 120)
    for number, passage in enumerate(worst.passages, 1):
        console.print()
        console.print(plain(f"{number}. loss {passage.loss:.3f} nats per token"))
        for line in heat_map(passage, width, is_coloured):
            console.print(line, no_wrap=True, crop=False)
        for index in passage.most_surprising(SURPRISING):
            console.print(plain(f"  {expectation(passage, index)}"), soft_wrap=True)
    return 0


def _follow(options: argparse.Namespace, run: runs.Run, worst: WorstPassages) -> int:
    """A passage at every checkpoint of the run: its loss, and how the model continues its first half."""
    from gpt2tui import generation
    from gpt2tui.evaluation.worst_windows import described
    from gpt2tui.preset.schema import SamplingTable

    if not 1 <= options.passage <= len(worst.passages):
        raise UsageError(f"--passage {options.passage} is not between 1 and {len(worst.passages)}, the kept passages")
    passage = worst.passages[options.passage - 1]
    half = len(passage.tokens) // 2
    sampling = SamplingTable(temperature=0.0, max_length=min(CONTINUED_TOKENS, len(passage.tokens) - half))
    found: list[dict[str, Any]] = []
    for saved in checkpoint.saved_in(run.checkpoints):
        print_on_stderr(f"step {saved.step:,}")
        try:
            model = generation.load(str(saved.folder), precision="fp32")
        except CheckpointError as error:  # as when the training has deleted it meanwhile
            report_on_stderr(f"step {saved.step:,} is left out: {error}")
            continue
        counted = [loss is not None for loss in passage.losses]
        (here,) = described(model.model, model.tokenizer, [(passage.tokens, counted)])
        written = "".join(piece.text for piece in model.stream(passage.tokens[:half], sampling))
        found.append({"step": saved.step, "loss": here.loss, "val_loss": saved.val_loss, "continuation": written})
    if not found:
        raise UsageError(f"{run.name} has no checkpoint to follow the passage over")
    prompt = "".join(passage.texts[:half])
    if options.json:
        print_json({"run": run.name, "passage": options.passage, "prompt": prompt, "checkpoints": found})
        return 0
    columns = [Column("step", right=True), Column("loss", right=True), Column("val loss", right=True)]
    rows = [
        (
            f"{each['step']:,}",
            f"{each['loss']:.4f}",
            "" if each["val_loss"] is None else f"{each['val_loss']:.4f}",
            printable(each["continuation"], WIDTH),
        )
        for each in found
    ]
    print(f"after {printable(repr(prompt[-60:]), 200)}")
    print_table([*columns, Column("the model writes")], rows)
    return 0
