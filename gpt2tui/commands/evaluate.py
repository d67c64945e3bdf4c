"""`gpt2tui eval`: the loss of a model over its validation and test text, over any text, and its scores in tasks."""

import argparse
from dataclasses import fields

from gpt2tui.commands.tables import Column, print_json, print_table
from gpt2tui.evaluation.report import Watcher
from gpt2tui.evaluation.request import EvaluationRequest
from gpt2tui.system.terminal_text import print_on_stderr, report_on_stderr, sanitize


class Narrator(Watcher):
    """Says on stderr what is measured."""

    def say(self, text: str) -> None:
        """A line of narration."""
        print_on_stderr(text)

    def warn(self, text: str) -> None:
        """A warning."""
        report_on_stderr(text)


def evaluate(options: argparse.Namespace) -> int:
    """Measures a checkpoint and prints the report, as JSON or as a table."""
    from gpt2tui.run.model_lookup import check_reference

    check_reference(options.checkpoint)  # before torch is imported
    from gpt2tui.evaluation.measuring import measure

    report = measure(request_of(options), Narrator())
    if options.json:
        print_json(report.document)
    else:
        for line in report.lines:
            print(sanitize(line))
        print_table([Column(heading.text, right=heading.right) for heading in report.headings], report.rows)
        for note in report.notes:
            print(sanitize(note))
    if report.failure is not None:
        raise report.failure
    return 0


def request_of(options: argparse.Namespace) -> EvaluationRequest:
    """What the command line asks for."""
    given = {field.name: getattr(options, field.name) for field in fields(EvaluationRequest)}
    return EvaluationRequest(**{**given, "tasks": tuple(options.tasks)})
