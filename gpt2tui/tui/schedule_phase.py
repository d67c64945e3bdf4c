"""In words: where on its schedule the learning rate is."""

from gpt2tui.preset.schema import Preset
from gpt2tui.training.schedules import phase


def schedule_phase(preset: Preset, step: int, factor: float = 1.0) -> str:
    """The phase of the update that made `step`; `factor` is what a person has multiplied the schedule by."""
    now, name = phase(preset, step - 1), preset.schedule.name
    if now.name == "warm-up":
        words = f"warm-up {step:,}/{now.last + 1:,}"
    elif name == "constant":
        words = "constant"
    elif name == "wsd":
        words = f"stable until {now.last + 1:,}" if now.name == "constant" else f"falls until {now.last + 1:,}"
    else:
        fallen = now.progress(step - 1) if now.name == "decay" else 0.0
        words = f"{name}, {fallen:.0%} of the way"
    return words if factor == 1.0 else f"{words}, × {factor:g}"
