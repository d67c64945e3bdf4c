"""gpt2tui: train GPT-2 from scratch in a terminal, a script or a notebook. `docs/python.md` describes the functions.

Each name is imported from its module when it is first used, so that `import gpt2tui` takes no time.
"""

from typing import TYPE_CHECKING, Any

from gpt2tui.version import __version__

if TYPE_CHECKING:
    from gpt2tui import errors
    from gpt2tui.api import (
        LanguageModel,
        TokenLogprob,
        Training,
        TrainingRun,
        find_run,
        load,
        load_preset,
        presets,
        resume,
        runs,
        train,
    )
    from gpt2tui.preset.schema import Preset
    from gpt2tui.run.events import (
        CheckpointSaved,
        Evaluated,
        Event,
        LearningRateChanged,
        NumIterationsChanged,
        Paused,
        Resumed,
        RunFailed,
        RunFinished,
        RunStarted,
        Sampled,
        SettingsChanged,
        Step,
        Warned,
    )

__all__ = [
    "CheckpointSaved",
    "Evaluated",
    "Event",
    "LanguageModel",
    "LearningRateChanged",
    "NumIterationsChanged",
    "Paused",
    "Preset",
    "Resumed",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "Sampled",
    "SettingsChanged",
    "Step",
    "TokenLogprob",
    "Training",
    "TrainingRun",
    "Warned",
    "__version__",
    "errors",
    "find_run",
    "load",
    "load_preset",
    "presets",
    "resume",
    "runs",
    "train",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "errors":
        return import_module("gpt2tui.errors")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    events = import_module("gpt2tui.run.events")
    return getattr(events, name, None) or getattr(import_module("gpt2tui.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
