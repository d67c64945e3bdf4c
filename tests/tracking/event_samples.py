"""Events with plausible values, for tests that care about one field."""

from gpt2tui.run import events


def run_started(**changes):
    values = {
        "run": "20260102-030405-small",
        "preset": "small",
        "parameters": 3_213_760,
        "tokens_per_step": 2048,
        "device": "cpu",
        "precision": "bf16",
        "num_iterations": 2000,
        "xz_bits_per_byte": 1.512,
        "xz_after_training_bits_per_byte": 1.274,
    }
    return events.RunStarted(**values | changes)


def step(number, **changes):
    values = {
        "train_loss": 3.0,
        "learning_rate": 3e-3,
        "grad_norm": 0.8,
        "tokens_seen": number * 2048,
        "tokens_per_second": 20_480.0,
        "step_seconds": 0.1,
        "device_memory_bytes": None,
        "host_memory_bytes": 1_210_000_000,
        "mfu": None,
    }
    return events.Step(step=number, **values | changes)


def evaluated(number, val_loss=2.0, **changes):
    values = {"val_loss": val_loss, "perplexity": 7.389, "bits_per_byte": 1.25}
    return events.Evaluated(step=number, **values | changes)


def sampled(number, prompt="def ", text="main():\n    return 0\n"):
    return events.Sampled(step=number, prompt=prompt, text=text)


def checkpoint_saved(number):
    return events.CheckpointSaved(step=number, path=f"checkpoints/step-{number:08}", seconds=0.31, bytes=48_200_000)
