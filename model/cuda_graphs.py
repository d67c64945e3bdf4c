"""Work of one shape that a GPU is told once and then only reminded of (CUDA graphs).

A small network's kernels take longer to launch than to run. Launched together they wait for nobody.
"""

import threading
from collections.abc import Callable

import torch

Work = Callable[[], None]
Record = Callable[[Work, torch.device], Work]

WARM_UP_RUNS = 3  # libraries choose their kernels and take their memory in the first ones

_one_at_a_time = threading.Lock()


def record(work: Work, device: torch.device) -> Work:
    """Runs `work` a few times, records it, and returns what runs it again: on the same memory, launched at once.

    `work` may neither wait for the GPU nor read numbers that change, but in memory that stays where it is. Other
    threads may use the device meanwhile, as long as none waits for all of it. Raises RuntimeError when it cannot be
    recorded; the thread's stream is what it was in any case.
    """
    with _one_at_a_time, torch.cuda.device(device):
        before = torch.cuda.current_stream()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        try:
            stream.wait_stream(before)
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_RUNS):
                    work()
            before.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                work()
        finally:
            torch.cuda.set_stream(before)  # a capture that fails leaves its own
    return graph.replay
