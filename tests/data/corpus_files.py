"""Small corpora on disk, and what reading them gives."""

import bz2
import gzip
import json
import lzma

import pyarrow
import pyarrow.parquet

from gpt2tui.data.corpora import open_corpus
from gpt2tui.preset.schema import DataTable


def opened(source, **table):
    return open_corpus(DataTable(source=str(source), **table))


def both(source, **table):
    """The documents of both splits."""
    corpus = opened(source, **table)
    return list(corpus.documents("train")), list(corpus.documents("validation"))


COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


def write(path, data):
    """Writes bytes or text, compressed if the name ends so."""
    data = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(COMPRESS[path.suffix](data) if path.suffix in COMPRESS else data)
    return path


def write_rows(path, texts, column="text"):
    """Writes the texts as rows of a .jsonl, .csv or .parquet file, compressed if the name ends so."""
    kind = path.name.split(".")[1]
    if kind == "jsonl":
        return write(path, "".join(json.dumps({"id": i, column: text}) + "\n" for i, text in enumerate(texts)))
    if kind == "csv":
        quoted = ['"' + text.replace('"', '""') + '"' for text in texts]
        return write(path, f"id,{column}\r\n" + "".join(f"{i},{text}\r\n" for i, text in enumerate(quoted)))
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.table({"id": list(range(len(texts))), column: texts})
    pyarrow.parquet.write_table(table, sink, row_group_size=50)
    return write(path, sink.getvalue().to_pybytes())


def write_hub_folder(folder, configurations):
    """A folder as a data set's repository on the Hub has it: README.md and parquet files.

    `configurations` maps a configuration's name to its splits, and a split's name to its texts.
    """
    lines = ["---", "configs:"]
    for name, splits in configurations.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, texts in splits.items():
            lines += [f"  - split: {split}", f"    path: {name}/{split}-*.parquet"]
            half = (len(texts) + 1) // 2
            for i, part in enumerate((texts[:half], texts[half:])):
                if part:
                    write_rows(folder / name / f"{split}-{i:05}-of-00002.parquet", part)
    write(folder / "README.md", "\n".join([*lines, "---", ""]))
    return folder
