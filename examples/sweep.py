"""Trains the preset `test` with three learning rates, and prints a table of what came of each.

    python examples/sweep.py            about a minute on two CPU cores
    python examples/sweep.py 40         with 40 steps each

Ctrl-C saves a checkpoint of the run that is being trained and ends the sweep.
"""

import sys

import gpt2tui

LEARNING_RATES = (1e-3, 3e-3, 1e-2)


def main(num_iterations: int = 100) -> None:
    """Trains one run after the other, then shows all of them, those of earlier sweeps included."""
    for lr in LEARNING_RATES:
        settings = {"optimizer.lr": lr, "training.num_iterations": num_iterations}
        for event in gpt2tui.train("test", settings, name=f"lr-{lr:g}"):
            if isinstance(event, gpt2tui.Evaluated) and not event.whole:
                print(f"lr {lr:g}, step {event.step}: validation loss {event.val_loss:.3f} nats per token")

    print(f"\n{'run':<32} {'lr':>8} {'steps':>6} {'val_loss':>9} {'bits/byte':>9}")
    finished = [row for row in gpt2tui.runs() if row["state"] == "finished"]
    for row in sorted(finished, key=lambda row: row["best_val_loss"]):
        print(
            f"{row['name']:<32} {row['optimizer.lr']:>8g} {row['step']:>6} "
            f"{row['best_val_loss']:>9.3f} {row['bits_per_byte']:>9.3f}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
