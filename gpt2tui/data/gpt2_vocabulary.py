"""GPT-2's own vocabulary, embedded: 50,256 byte pairs and `<|endoftext|>` (GPT-2 paper, section 2.2)."""

import base64
import functools
import gzip
import hashlib
import importlib.resources

EOT_TEXT = "<|endoftext|>"
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"


@functools.cache
def ranks() -> dict[bytes, int]:
    """Each token's bytes and its id, which is also its place in the order of merges.

    Raises RuntimeError when the installed file is not the one this program was made with.
    """
    asset = importlib.resources.files("gpt2tui") / "assets" / "gpt2.tiktoken.gz"
    lines = gzip.decompress(asset.read_bytes())
    if hashlib.sha256(lines).hexdigest() != SHA256:
        raise RuntimeError(f"{asset} is damaged: install gpt2tui again")
    pairs = (line.split() for line in lines.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}
