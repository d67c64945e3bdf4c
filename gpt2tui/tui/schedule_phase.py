"""In words: where on its schedule the learning rate is. A pure function of the preset and the step."""

from gpt2tui.preset import Preset


def schedule_phase(preset: Preset, step: int, factor: float = 1.0) -> str:
    """The phase of the update that made `step`; `factor` is what a person has multiplied the schedule by."""
    schedule, steps = preset.schedule, preset.training.num_iterations
    phase = _phase(preset, step, steps)
    if step <= schedule.warmup_iterations:
        phase = f"warm-up {step:,}/{schedule.warmup_iterations:,}"
    return phase if factor == 1.0 else f"{phase}, × {factor:g}"


def _phase(preset: Preset, step: int, steps: int) -> str:
    schedule = preset.schedule
    if schedule.name == "constant":
        return "constant"
    if schedule.name == "wsd":
        begin = max(schedule.warmup_iterations, round(steps * (1 - schedule.decay_fraction)))
        return f"stable until {begin:,}" if step <= begin else f"falls until {steps:,}"
    return f"{schedule.name}, {min(1.0, step / steps):.0%} of the way"
