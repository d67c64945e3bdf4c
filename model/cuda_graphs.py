"""Work of one shape that a GPU is told once and then only reminded of (CUDA graphs).

A small network's kernels take longer to launch than to run. Launched together they wait for nobody.
"""

from collections.abc import Callable

import torch

Work = Callable[[], None]
Record = Callable[[Work], Work]

WARM_UP_RUNS = 3  # libraries choose their kernels and take their memory in the first ones


def record(work: Work) -> Work:
    """Runs `work` a few times, records it, and returns what runs it again: on the same memory, launched at once.

    `work` may neither wait for the GPU nor take other memory as input than it had when it was recorded. Raises
    RuntimeError when it cannot be recorded.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_RUNS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile: the workbench trains in one and writes in another.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay
