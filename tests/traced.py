"""In place of a GPU's recording: what is recorded is traced once, and only the traced operations are run again.

Like a CUDA graph, and unlike calling the function again, it knows nothing of Python: a number that was read while it
was recorded stays that number.
"""

from torch.fx.experimental.proxy_tensor import make_fx

from model.cuda_graphs import WARM_UP_RUNS


def record(work, device):
    """`work` as a traced graph over the same tensors."""
    for _ in range(WARM_UP_RUNS):
        work()
    return make_fx(lambda: work())()


def refuse(work, device):
    """A recording that fails where CUDA's does: in the middle."""
    work()
    raise RuntimeError("operation not permitted when stream is capturing\nand so on")
