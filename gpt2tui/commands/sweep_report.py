"""What a sweep has so far: a table of its runs, best first, and its configurations over their seeds."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpt2tui.commands.tables import Column, print_json, print_table
from gpt2tui.run.summary import RunSummary, summarize
from gpt2tui.run.sweep_folder import Sweep, SweptRun
from gpt2tui.sweep import BestTwo, Configuration, best_first, best_two, overrides_of
from gpt2tui.system.numbers import duration, steps_of

Measure = Literal["best_val_loss", "bits_per_byte"]
LABELS: dict[Measure, str] = {"best_val_loss": "best val loss", "bits_per_byte": "bits/byte"}
UNITS: dict[Measure, str] = {"best_val_loss": "nats per token", "bits_per_byte": "bits per byte"}
OTHER_TOKENS = ("data.tokenizer", "model.vocab_size", "model.init_from")
"""Settings that change what a token is: losses per token of such runs do not compare, bits per byte do."""
MOST_ROWS_WHILE_RUNNING = 20


@dataclass(frozen=True)
class Result:
    """How far a run of the sweep is; without a summary it has no folder yet. `exit_code` is that of its process."""

    swept: SweptRun
    state: str
    summary: RunSummary | None
    exit_code: int | None = None

    def value(self, measure: Measure) -> float | None:
        """The number that the runs are ranked by; None where it is not known."""
        return None if self.summary is None else getattr(self.summary, measure)


STOPPED_BY_SIGNAL = (129, 130, 143)  # exit codes of a run that was asked to end, which is no failure


def read_result(sweep: Sweep, swept: SweptRun, exit_code: int | None = None) -> Result:
    """The result of a run as its folder is now."""
    run = sweep.run(swept)
    if not run.info_file.exists():
        is_stopped = exit_code in STOPPED_BY_SIGNAL
        return Result(swept, "failed" if exit_code and not is_stopped else "waiting", None, exit_code)
    summary = summarize(run)
    return Result(swept, summary.state, summary, exit_code)


def measure_of(sweep: Sweep) -> Measure:
    """What the runs are ranked by: bits per byte where their tokens are different ones, else the validation loss."""
    keys = {key for run in sweep.runs for key in run.settings}
    return "bits_per_byte" if keys & set(OTHER_TOKENS) else "best_val_loss"


def ranked(results: Sequence[Result], measure: Measure) -> list[Result]:
    """Finished runs first, the best of them first; then the others that have a loss; then the rest in their order."""

    def rank(result: Result) -> tuple[bool, bool, float]:
        value = result.value(measure)
        return result.state != "finished", value is None, value or 0.0

    return sorted(results, key=rank)


def configurations(results: Sequence[Result], measure: Measure) -> list[Configuration]:
    """The finished runs by their settings, each configuration over its seeds; the best mean first."""
    found: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        found.setdefault(tuple(overrides_of(result.swept.settings)), []).append(result)
    finished = {
        key: tuple(v for r in group if r.state == "finished" and (v := r.value(measure)) is not None)
        for key, group in found.items()
    }
    return best_first([Configuration(found[key][0].swept.settings, values) for key, values in finished.items()])


def print_progress(sweep: Sweep, results: Sequence[Result]) -> None:
    """The best runs so far, on stderr, whose failure does not end a sweep."""
    with contextlib.suppress(OSError):
        _print_runs(sweep, results, MOST_ROWS_WHILE_RUNNING, on_stderr=True)


def print_report(sweep: Sweep, results: Sequence[Result]) -> None:
    """All runs, best first; with seeds the configurations, and whether the best two differ by more than the noise."""
    _print_runs(sweep, results, len(results), on_stderr=False)
    if not has_seeds(sweep):
        return
    measure = measure_of(sweep)
    found = configurations(results, measure)
    print()
    columns = [Column("configuration"), *(Column(h, right=True) for h in ("seeds", "mean", "standard deviation"))]
    print_table(columns, [_configuration_row(one) for one in found])
    if sum(one.mean is not None for one in found) > 1:
        print("\n" + comparison_text(best_two(found), measure))


def comparison_text(two: BestTwo | None, measure: Measure) -> str:
    """Whether the best two configurations differ by more than the seeds do, in a sentence with the rule."""
    if two is None:
        return "two finished seeds each of two configurations are needed to compare them"
    is_larger = "larger" if two.is_larger_than_noise else "not larger"
    return (
        f"the best two means differ by {two.difference:.4f} {UNITS[measure]}, 95% interval {two.low:.4f} to "
        f"{two.high:.4f} (Welch's t): {is_larger} than the noise between seeds"
    )


def has_seeds(sweep: Sweep) -> bool:
    """Whether the configurations are trained with several seeds, by --seeds."""
    return any(run.seed is not None for run in sweep.runs)


def print_document(sweep: Sweep, results: Sequence[Result]) -> None:
    """The same as one JSON document."""
    measure = measure_of(sweep)
    found = configurations(results, measure)
    two = best_two(found) if has_seeds(sweep) else None
    print_json(
        {
            "sweep": str(sweep.folder),
            "measure": measure,
            "runs": [_run_document(result) for result in ranked(results, measure)],
            "configurations": [
                {
                    "settings": one.settings,
                    "results": one.results,
                    "mean": one.mean,
                    "standard_deviation": one.standard_deviation,
                }
                for one in found
            ],
            "comparison": None
            if two is None
            else {
                "best": two.best.settings,
                "second": two.second.settings,
                "difference": two.difference,
                "interval": [two.low, two.high],
                "larger_than_noise": two.is_larger_than_noise,
            },
        }
    )


def _run_document(result: Result) -> dict[str, Any]:
    swept, summary = result.swept, result.summary
    return {
        "run": swept.name,
        "state": result.state,
        "exit_code": result.exit_code,
        "settings": swept.settings,
        "seed": swept.seed,
        "summary": None if summary is None else summary.as_dict(),
    }


def _print_runs(sweep: Sweep, results: Sequence[Result], most: int, on_stderr: bool) -> None:
    measures: tuple[Measure, ...] = ("best_val_loss", "bits_per_byte")
    numbers = ("step", *(LABELS[measure] for measure in measures), "time")
    columns = [Column("run"), Column("state"), *(Column(header, right=True) for header in numbers)]
    rows = []
    for result in ranked(results, measure_of(sweep))[:most]:
        s, state = result.summary, result.state
        if state == "failed" and result.exit_code:
            state = f"failed, exit code {result.exit_code}"
        losses = [result.value(measure) for measure in measures]
        rows.append(
            (
                result.swept.name,
                state,
                "" if s is None else steps_of(s.step, s.num_iterations),
                *("" if loss is None else f"{loss:.4f}" for loss in losses),
                "" if s is None or s.seconds is None else duration(s.seconds),
            )
        )
    print_table(columns, rows, on_stderr=on_stderr)


def _configuration_row(one: Configuration) -> tuple[str, str, str, str]:
    spread = one.standard_deviation
    return (
        " ".join(overrides_of(one.settings)) or "the preset",
        str(len(one.results)),
        "" if one.mean is None else f"{one.mean:.4f}",
        "" if spread is None else f"{spread:.4f}",
    )
