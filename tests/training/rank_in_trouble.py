"""gpt2tui, where in step 8 one rank, TROUBLED_RANK, asks for too much memory or, with TROUBLE=hangs, waits for ever."""

import os
import time

import torch

from gpt2tui.__main__ import run
from gpt2tui.training.update import Update

begin = Update.begin


def begin_in_trouble(update, micro_batches, iteration, *rest):
    if iteration == 7 and os.environ["RANK"] == os.environ["TROUBLED_RANK"]:
        if os.environ["TROUBLE"] == "hangs":
            time.sleep(3600)
        torch.empty(10**16)
    return begin(update, micro_batches, iteration, *rest)


if __name__ == "__main__":
    Update.begin = begin_in_trouble
    run()
