"""gpt2tui, where the rank that OUT_OF_MEMORY names asks for too much memory in step 8."""

import os

import torch

from gpt2tui.__main__ import run
from gpt2tui.training.update import Update

begin = Update.begin


def begin_or_fail(update, micro_batches, iteration, *rest):
    if iteration == 7 and os.environ["RANK"] == os.environ["OUT_OF_MEMORY"]:
        torch.empty(10**16)
    return begin(update, micro_batches, iteration, *rest)


if __name__ == "__main__":
    Update.begin = begin_or_fail
    run()
