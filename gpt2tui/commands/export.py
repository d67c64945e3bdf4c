"""`gpt2tui export`: a checkpoint for other programs, verified before it is in its place."""

import argparse
import json
from pathlib import Path

from gpt2tui.errors import UsageError
from gpt2tui.system.terminal_text import print_on_stderr, sanitize


def export(options: argparse.Namespace) -> int:
    """Writes the export, prints its path, and on stderr how it was verified."""
    from gpt2tui.run.model_lookup import HUB_ID, check_reference

    if options.push is not None and options.format != "huggingface":
        raise UsageError("--push uploads the format huggingface")
    if options.push is not None and not HUB_ID.fullmatch(options.push):
        raise UsageError(f"--push {options.push}: a repository of the Hub is written owner/name")
    if options.dry_run and options.push is None:
        raise UsageError("--dry-run belongs to --push: it lists what would be uploaded")
    to = Path(options.to).expanduser()
    check_reference(options.checkpoint)
    from gpt2tui.export import huggingface, writing

    model = writing.load_for_export(options.checkpoint, merge=options.merge)
    exported = writing.export(model, options.format, to, options.dtype, print_on_stderr)
    if options.json:
        print(json.dumps(exported.as_dict(), indent=2))
    else:
        print(sanitize(str(to), keep_newlines=False))
    print_on_stderr(f"{exported.parameters:,} parameters in {to}")
    for line in exported.checked.lines():
        print_on_stderr(line)
    for file in exported.files:
        print_on_stderr(f"{file.name}: {file.bytes:,} bytes, SHA-256 {file.sha256}")
    if options.push is not None:
        if options.dry_run:
            total = sum(file.bytes for file in exported.files)
            names = ", ".join(file.name for file in exported.files)
            print_on_stderr(f"would upload {total:,} bytes to {options.push} on the Hub: {names}")
        else:
            huggingface.push(to, options.push)
            print_on_stderr(f"uploaded to {options.push} on the Hub, which is private where it is new")
    return 0
