import json
import os
import random
import shutil
import sysconfig
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from gpt2tui.data import content_hashes, file_reading
from gpt2tui.data.corpora import hash_content
from gpt2tui.data.corpus import stable_hash
from gpt2tui.errors import DataError
from gpt2tui.preset.schema import DataTable
from gpt2tui.system.files import cache_folder
from tests.data.corpus_files import COMPRESS, both, opened, write, write_rows

ROW_KINDS = ["jsonl", "csv", "parquet"]
ROWS = [f'row {i}: a "quoted" text,\nof two lines, déjà vu' for i in range(300)]


# The embedded corpus


def stdlib_paths(corpus, *splits):
    return [span.path for split in splits or ("train", "validation", "test") for span in corpus._spans_of(split)]


def test_stdlib_is_source_without_tests_packages_and_generated_files():
    corpus = opened("python-stdlib")
    names = {path.relative_to(sysconfig.get_path("stdlib")).as_posix() for path in stdlib_paths(corpus)}
    assert {"ast.py", "json/decoder.py", "asyncio/events.py"} <= names
    parts = {part for name in names for part in name.split("/")[:-1]}
    assert not parts & {
        "test",
        "tests",
        "idle_test",
        "site-packages",
        "__pycache__",
        "pydoc_data",
        "encodings",
    }
    assert not {"token.py", "re/_casefix.py", "stringprep.py"} & names
    assert not any(name.startswith("_sysconfigdata") for name in names)


def test_stdlib_holds_out_a_twentieth_in_whole_files():
    corpus = opened("python-stdlib")
    train, validation = (list(corpus.documents(split)) for split in ("train", "validation"))
    assert 400 < len(train) < 1000
    assert not set(train) & set(validation)
    share = sum(map(len, validation)) / sum(map(len, train + validation))
    assert share == pytest.approx(0.05, abs=0.01)
    decoder = (Path(sysconfig.get_path("stdlib")) / "json" / "decoder.py").read_text(encoding="utf-8")
    assert decoder in train + validation


def test_stdlib_is_split_by_the_hash_of_the_path_alone():
    root = Path(sysconfig.get_path("stdlib"))
    corpus = opened("python-stdlib")
    by_split = {
        split: [stable_hash(path.relative_to(root).as_posix()) for path in stdlib_paths(corpus, split)]
        for split in ("train", "validation", "test")
    }
    assert max(by_split["validation"]) < min(by_split["train"])
    assert max(by_split["train"]) < min(by_split["test"])


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.5])
def test_the_test_split_of_stdlib_is_a_twentieth_whatever_the_validation_split(fraction):
    corpus, usual = opened("python-stdlib", validation_fraction=fraction), opened("python-stdlib")
    sizes = {
        split: sum(path.stat().st_size for path in stdlib_paths(corpus, split))
        for split in ("train", "validation", "test")
    }
    assert sizes["test"] / sum(sizes.values()) == pytest.approx(0.05, abs=0.01)
    assert corpus.has_test
    assert list(corpus.documents("test")) == list(usual.documents("test"))
    others = {*corpus.documents("train"), *corpus.documents("validation")}
    assert len("".join(others & set(corpus.documents("test")))) < 100  # two empty packages hold the same comment


def test_stdlib_is_cut_the_same_way_each_time():
    first, second = opened("python-stdlib"), opened("python-stdlib")
    assert first.fingerprint == second.fingerprint
    assert list(first.documents("validation")) == list(second.documents("validation"))


def test_stable_hash_never_changes():
    # Validation text must stay validation text between versions of this program.
    assert stable_hash("ast.py") == 0xC1DB8C6ED718907F


# Text files


def test_one_file_is_one_document(tmp_path):
    texts = {f"{i}.txt": f"document {i}\n" * 10 for i in range(60)}
    for name, text in texts.items():
        write(tmp_path / name, text)
    train, validation = both(tmp_path)
    assert sorted(train + validation) == sorted(texts.values())
    assert 1 <= len(validation) <= 6


def test_a_file_stays_on_its_side_when_another_comes(tmp_path):
    for i in range(60):
        write(tmp_path / f"{i}.txt", f"document {i}\n" * 10)
    _, before = both(tmp_path)
    write(tmp_path / "new.txt", "another document\n" * 10)
    _, after = both(tmp_path)
    assert len(set(before) ^ set(after)) <= 1


def test_one_big_file_gives_its_end_cut_at_a_line(tmp_path):
    lines = [f"line {i}\n" for i in range(10_000)]
    path = write(tmp_path / "book.txt", "".join(lines))
    (train,), (validation,) = both(path)
    assert train + validation == "".join(lines)
    assert train.endswith("\n")
    assert len(validation) / len(train) == pytest.approx(0.05, rel=0.1)


def test_two_files_leave_text_on_both_sides(tmp_path):
    write(tmp_path / "a.txt", "a line\n" * 50)
    write(tmp_path / "b.txt", "b line\n" * 1000)
    train, validation = both(tmp_path)
    assert "a line\n" * 50 in train
    assert validation
    assert set("".join(validation)) <= set("b line\n")


MARKER = "<|endoftext|>"


@pytest.mark.parametrize("block", [100, 1 << 20])
@pytest.mark.parametrize("between", [f"\n{MARKER}\n", f"{MARKER}\n", f"\n{MARKER}", MARKER, f"\r\n{MARKER}  \r\n"])
def test_end_of_text_markers_divide_documents(between, block, tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2tui.data.file_reading.BLOCK_BYTES", block)
    stories = [f'Once upon a time there was cat {i}. "Mew!"' if i % 2 else f"Cat {i} slept." for i in range(300)]
    path = write(tmp_path / "stories.txt", between.join(stories) + between)
    corpus = opened(path)
    texts = [text.strip() for split in ("train", "validation") for text in corpus.documents(split)]
    assert MARKER not in "".join(texts)
    assert set(stories) <= {*texts, *stories[280:]}
    assert any(MARKER in notice for notice in corpus.reading_notices())
    whole = opened(path, split_on_end_of_text=False)
    assert len(list(whole.documents("train"))) == 1
    assert whole.fingerprint != corpus.fingerprint


def test_markers_divide_the_text_files_beside_row_files_too(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2tui.data.file_reading.BLOCK_BYTES", 100)
    stories = [f"Once upon a time there was cat {i}.\n" for i in range(100)]
    write(tmp_path / "stories.txt", f"{MARKER}\n".join(stories) + f"{MARKER}\n{MARKER}\n")
    write_rows(tmp_path / "rows.jsonl", ROWS)
    corpus = opened(tmp_path)
    texts = [text for split in ("train", "validation") for text in corpus.documents(split)]
    assert sorted(texts) == sorted([*stories, *ROWS])
    assert corpus.reading_notices() == [f"99 {MARKER} in {tmp_path} divide documents"]
    pieces = list(corpus.pieces("train"))
    assert list(corpus.pieces("train", pieces[-50].next)) == pieces[-49:]
    whole = opened(tmp_path, split_on_end_of_text=False)
    assert len(list(whole.documents("train"))) < len(ROWS) + 2
    assert whole.fingerprint != corpus.fingerprint


@pytest.mark.parametrize(
    "text", ['EOT = "<|endoftext|>"\n', "the token <|endoftext|> ends it\n", "`<|endoftext|>`, 50256\n"]
)
def test_a_marker_within_a_sentence_or_quotes_is_text(text, tmp_path):
    path = write(tmp_path / "a.py", text * 100)
    (train,), (validation,) = both(path)
    assert train + validation == text * 100
    assert opened(path).fingerprint == opened(path, split_on_end_of_text=False).fingerprint


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "a.txt.gz", "A.TXT"])
def test_text_files_of_every_kind_are_read(name, tmp_path):
    text = "déjà vu\n" * 500
    train, validation = both(write(tmp_path / name, text))
    assert "".join(train + validation) == text


@pytest.mark.parametrize("text", ["é", "\ufeffé", "語", "🤖"])
def test_a_file_of_one_character_is_not_cut_inside_it(text, tmp_path):
    train, validation = both(write(tmp_path / "one.txt", text))
    assert "".join(train + validation) == text.removeprefix("\ufeff")


def test_crlf_becomes_lf_and_the_byte_order_mark_goes(tmp_path):
    path = write(tmp_path / "dos.txt", b"\xef\xbb\xbf" + b"one\r\ntwo\r\n" * 200)
    train, validation = both(path)
    assert "".join(train + validation) == "one\ntwo\n" * 200


def test_crlf_across_a_block_border_becomes_lf(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2tui.data.file_reading.BLOCK_BYTES", 4)
    path = write(tmp_path / "dos.txt", "ab\r\ncdé\r\n\r\nx\r" * 20 + "\r")
    train, validation = both(path, validation_fraction=0.1)
    assert "".join(train + validation) == ("ab\r\ncdé\r\n\r\nx\r" * 20 + "\r").replace("\r\n", "\n")


@pytest.mark.parametrize("offset", [0, 5, 1_048_575, 1_500_000])
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_text_that_is_not_utf8_is_refused_with_its_place(offset, suffix, tmp_path):
    data = bytearray("é".encode() * 1_000_000)
    data[offset : offset + 1] = b"\xff"
    path = write(tmp_path / f"latin{suffix}", bytes(data))
    expected = offset if offset % 2 == 0 else offset - 1
    with pytest.raises(DataError, match=rf"latin{suffix} is not UTF-8 .* offset {expected:,} "):
        both(path)


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_all_files_that_are_not_text_are_named_at_once_with_their_places(suffix, tmp_path):
    row = '{"text": "a row"}\n'
    for i in range(9):
        write(tmp_path / f"{i}.{suffix}", row * 20)
    # The first bad byte of the file, not of the part that happens to be read first.
    write(tmp_path / f"2.{suffix}", (row * 3).encode() + b'{"text": "caf\xe9"}\n' + (row * 20).encode() + b"\xe9")
    write(tmp_path / f"5.{suffix}", row.encode("utf-16"))
    write(tmp_path / f"8.{suffix}", row.encode() + b"PK\0\1")
    with pytest.raises(DataError, match=r"^3 files are not text") as caught:
        both(tmp_path)
    message = str(caught.value)
    assert f"2.{suffix} is not UTF-8 text: line 4, the byte at offset {3 * len(row) + 13} " in message
    assert f"5.{suffix} is UTF-16 text" in message
    assert f"8.{suffix} is binary, not text: there is a NUL byte at line 2, offset {len(row) + 2}" in message


@pytest.mark.parametrize("text", ["plain words in a row\n", "простые слова в ряд\n", "απλά λόγια σε μια σειρά\n"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_utf16_and_utf32_are_called_so(text, encoding, tmp_path):
    path = write(tmp_path / "a.txt", (text * 50).encode(encoding))
    with pytest.raises(DataError, match=f"is {encoding[:6].upper()} text, not UTF-8"):
        both(path)


@pytest.mark.parametrize("beginning", [b"PK\x03\x04\x14", b"%PDF-1.4\n", b"\xff\xd8\xff\xe0\x10JFIF"])
def test_a_file_of_another_kind_under_the_name_of_text_is_called_binary(beginning, tmp_path):
    noise = bytes(byte for byte in random.Random(0).randbytes(5000) if byte)
    with pytest.raises(DataError, match="is binary, not text"):
        both(write(tmp_path / "a.txt", beginning + noise))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("latin-1", "déjà vu\n"),
        ("koi8-r", "привет мир\n"),
        ("shift_jis", "日本語のテキスト\n"),
        ("gb18030", "中文文本\n"),
    ],
)
def test_text_in_another_encoding_is_not_called_binary(encoding, text, tmp_path):
    with pytest.raises(DataError, match="is not UTF-8 text: line 1, the byte at offset"):
        both(write(tmp_path / "a.txt", (text * 50).encode(encoding)))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.csv"])
def test_a_file_that_ends_in_nul_bytes_is_refused(name, tmp_path):
    path = write(tmp_path / name, b"text\n" * 100 + bytes(3_000_000))
    with pytest.raises(DataError, match=r"ends in NUL bytes from line 101, offset 500 on"):
        both(path)


def test_text_cut_off_inside_a_character_is_refused(tmp_path):
    path = write(tmp_path / "cut.txt", b"a" * 100 + "é".encode()[:1])
    with pytest.raises(DataError, match="offset 100 "):
        both(path)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_a_damaged_compressed_file_is_refused(suffix, kind, tmp_path):
    whole = write(tmp_path / f"a.{kind}{suffix}", os.urandom(5000).hex())
    for data in (whole.read_bytes()[:-20], os.urandom(1000), b"PK" + bytes(100)):
        whole.write_bytes(data)
        with pytest.raises(DataError, match=f"not a whole {file_reading.COMPRESSIONS[suffix]} file"):
            both(whole)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_text_is_the_text_and_is_read_from_any_place(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(file_reading, "BLOCK_BYTES", 10_000)
    text = "".join(f"line {i}\n" for i in range(10_000))
    for name in ("plain.txt", f"packed.txt{suffix}"):
        write(tmp_path / name, text)
    packed, plain = (both(tmp_path / name) for name in (f"packed.txt{suffix}", "plain.txt"))
    assert packed == plain
    assert "".join(packed[0] + packed[1]) == text


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_a_small_compressed_file_of_endless_repetition_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(file_reading, "MOST_TEXT_OF_ANY_FILE", 1 << 20)
    monkeypatch.setattr(file_reading, "MOST_TEXT_PER_BYTE", 100)
    line = '{"text": "aaaaaaaaaaaaaaaaaaaaaaa"}\n'
    with pytest.raises(DataError, match="the same over and over"):
        both(write(tmp_path / f"bomb.{kind}.zst", line * 400_000))


def test_a_line_of_many_megabytes_is_read_in_pieces(tmp_path):
    path = write(tmp_path / "line.txt", "abcdefghij" * 500_000)
    corpus = opened(path)
    pieces = list(corpus.pieces("train"))
    assert max(len(piece.text) for piece in pieces) <= 1 << 20
    assert [piece.ends_document for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    text = "".join(piece.text for split in ("train", "validation") for piece in corpus.pieces(split))
    assert text == "abcdefghij" * 500_000


# Rows


@pytest.mark.parametrize("kind", [*ROW_KINDS, *(f"{kind}{suffix}" for kind in ROW_KINDS for suffix in COMPRESS)])
def test_one_row_is_one_document(kind, tmp_path):
    train, validation = both(write_rows(tmp_path / f"rows.{kind}", ROWS))
    assert sorted(train + validation) == sorted(ROWS)
    assert 5 <= len(validation) <= 30


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_texts_that_look_like_dates_and_numbers_stay_texts(kind, tmp_path):
    texts = ["2020-01-01T00:00:00", "007", "1e5", "null", "nan", "true"]
    train, validation = both(write_rows(tmp_path / f"rows.{kind}", texts))
    assert sorted(train + validation) == sorted(texts)


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_empty_rows_are_left_out(kind, tmp_path):
    train, validation = both(write_rows(tmp_path / f"rows.{kind}", ["", "a", "", "b"]))
    assert sorted(train + validation) == ["a", "b"]


def test_null_and_absent_texts_in_jsonl_are_left_out(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": null}\n{"other": 1}\n{"text": "b"}\n')
    train, validation = both(path)
    assert sorted(train + validation) == ["a", "b"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_rows_without_text_are_counted_and_the_first_row_decides_no_more_than_others(kind, tmp_path):
    rows = {"jsonl": ['{"other": 1}', '{"text": null}', '{"text": "a"}', '{"text": "b"}', '{"text": ""}']}
    rows["csv"] = ["id,text", "1", "2,", "3,a", "4,b", "5,"]
    corpus = opened(write(tmp_path / f"a.{kind}", "\n".join(rows[kind]) + "\n"))
    texts = [*corpus.documents("train"), *corpus.documents("validation")]
    assert sorted(texts) == ["a", "b"]
    (notice,) = corpus.reading_notices()
    assert notice.startswith("3 of 5 rows of ")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_tells_the_delimiter(delimiter, name, tmp_path):
    quoted = [f'{i}{delimiter}"a {delimiter} ""b"", {i}"' for i in range(30)]
    train, validation = both(write(tmp_path / name, "\n".join([f"id{delimiter}text", *quoted])))
    assert sorted(train + validation) == sorted(f'a {delimiter} "b", {i}' for i in range(30))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id,text", "1,ok", "2,one, two"], r"a\.csv:3 has 3 fields and the header 2; .*commas into double quotes"),
        (["text", "one, two"], r"a\.csv:2 has 2 fields and the header 1"),
        (["text;id", '"a;', 'b";1', "one;two;3"], r"a\.csv:4 has 3 fields and the header 2; .*semicolons"),
        (["id,text", '1,"open', "2,b", "3,c"], r"a\.csv:2 is not CSV"),
        (["text,text", "a,b"], r"2 columns text"),
        (["id;content", "1;a"], r"no column text; it has id, content"),
        (["id,text\r1,a\r2,b"], r"carriage return without a line feed"),
    ],
)
def test_a_csv_row_that_would_lose_text_is_refused_with_its_line(lines, message, tmp_path):
    with pytest.raises(DataError, match=message):
        both(write(tmp_path / "a.csv", "\n".join(lines) + "\n"))


def test_empty_fields_at_the_end_of_a_row_are_no_text(tmp_path):
    train, validation = both(write(tmp_path / "a.csv", "text,id\na,1,,\nb,2\n"))
    assert sorted(train + validation) == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a"}, {"text": "b"}]',
        '{"text": "a"}\n{"text": "b"}\n',
        '{"version": 1, "data": [{"text": "a"}, {"text": "b"}]}',
        '{"id": [1, 2], "text": ["a", "b"]}',
    ],
)
def test_json_files_of_every_shape_are_read(content, tmp_path):
    train, validation = both(write(tmp_path / "a.json", content))
    assert sorted(train + validation) == ["a", "b"]


def test_a_json_file_of_one_object_is_one_document(tmp_path):
    (train,), (validation,) = both(write(tmp_path / "a.json", '{"text": "one line\\nand another\\n"}'))
    assert train + validation == "one line\nand another\n"


@pytest.mark.parametrize("content", ["[1, 2", '{"a": 1', "[1, 2]", '[{"text": "a"}, "b"]', "[" * 100_000])
def test_a_json_file_without_objects_is_refused(content, tmp_path):
    with pytest.raises(DataError, match=r"a\.json.* is not "):
        both(write(tmp_path / "a.json", content))


def write_nested(path):
    rows = [{"data": {"text": f"text {i}", "n": i}, "messages": [{"role": "user"}], "title": "t"} for i in range(20)]
    if path.suffix == ".parquet":
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        return write(path, sink.getvalue().to_pybytes())
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "parquet"])
def test_a_nested_column_is_read_by_its_path(kind, tmp_path):
    train, validation = both(write_nested(tmp_path / f"a.{kind}"), text_column="data.text")
    assert sorted(train + validation) == sorted(f"text {i}" for i in range(20))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_of_lists_is_refused_with_the_columns_of_text(kind, tmp_path):
    path = write_nested(tmp_path / f"a.{kind}")
    with pytest.raises(DataError, match=r"in column messages, not text; columns of text are data\.text, title;"):
        both(path, text_column="messages")
    with pytest.raises(DataError, match=r"no column text; it has data\.text, data\.n, messages, title"):
        both(path)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("count", [2, 3, 20])
@pytest.mark.parametrize("fraction", [0.001, 0.5])
def test_few_rows_leave_text_on_both_sides(count, fraction, streaming, tmp_path):
    path = write_rows(tmp_path / "few.jsonl", ROWS[:count])
    train, validation = both(path, validation_fraction=fraction, streaming=streaming)
    assert train
    assert validation
    assert sorted(train + validation) == sorted(ROWS[:count])


@pytest.mark.parametrize("streaming", [False, True])
def test_a_single_row_is_cut_in_two(streaming, tmp_path):
    text = "a line\n" * 100
    (train,), (validation,) = both(write_rows(tmp_path / "one.jsonl", [text]), streaming=streaming)
    assert train + validation == text
    assert train.endswith("\n")


def test_equal_rows_are_on_the_same_side(tmp_path):
    train, validation = both(write_rows(tmp_path / "twice.jsonl", ROWS + ROWS))
    assert not set(train) & set(validation)


def test_lone_surrogates_in_jsonl_become_the_replacement_character(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a\\ud800b"}\n{"text": "other"}\n')
    train, validation = both(path)
    assert sorted(train + validation) == ["a\ufffdb", "other"]


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_another_text_column_is_read(kind, tmp_path):
    path = write_rows(tmp_path / f"rows.{kind}", ROWS, column="content")
    train, validation = both(path, text_column="content")
    assert sorted(train + validation) == sorted(ROWS)


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_a_missing_column_is_told_with_the_columns_there_are(kind, tmp_path):
    path = write_rows(tmp_path / f"rows.{kind}", ROWS, column="texts")
    with pytest.raises(DataError, match=r"no column text; it has id, texts; did you mean texts\?"):
        both(path)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_of_numbers_is_refused(kind, tmp_path):
    path = write_rows(tmp_path / f"rows.{kind}", ROWS)
    with pytest.raises(DataError, match=r"int(64)? in column id, not text"):
        both(path, text_column="id")


def test_a_line_that_is_not_json_is_told_with_its_number(tmp_path):
    path = write(tmp_path / "bad.jsonl", '{"text": "a"}\n{"text": "oops}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2 is not JSON"):
        both(path)


def test_a_json_line_that_is_no_object_is_told_with_its_number(tmp_path):
    path = write(tmp_path / "bad.jsonl", '{"text": "a"}\n["text"]\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2 is not a JSON object"):
        both(path)


def test_unbalanced_quotes_in_csv_are_told_with_their_line(tmp_path):
    path = write(tmp_path / "bad.csv", 'id,text\n1,ok\n2,"open\n')
    with pytest.raises(DataError, match=r"bad\.csv:3 is not CSV"):
        both(path)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_rows_that_are_not_utf8_are_refused_with_their_place(kind, tmp_path):
    path = write_rows(tmp_path / f"rows.{kind}", ["plain"] * 10)
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"\xff" + data[-3:])
    with pytest.raises(DataError, match=f"not UTF-8 .* offset {len(data) - 4:,} "):
        both(path)


def test_a_damaged_parquet_file_is_refused(tmp_path):
    path = write_rows(tmp_path / "a.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="not a whole parquet file"):
        both(path)


def test_a_csv_field_of_many_megabytes_is_read(tmp_path):
    long = "word " * 400_000
    train, validation = both(write_rows(tmp_path / "long.csv", [long, "short"]))
    assert sorted(train + validation) == sorted([long, "short"])


# Folders, globs and what is not there


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "csv.gz"])
def test_a_row_without_an_end_is_refused_before_it_fills_the_memory(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(file_reading, "LONGEST_LINE", 1000)
    rows = {"jsonl": '{"text": "%s"}\n', "csv": 'text\n"%s"\n'}[kind.removesuffix(".gz")]
    assert both(write(tmp_path / f"short.{kind}", rows % ("a" * 900)))
    for text in ("a" * 5000, "a\\n" * 5000):
        with pytest.raises(DataError, match=f"long.{kind}.*(a line of more than 1 kB|field larger than)"):
            both(write(tmp_path / f"long.{kind}", rows % text))
    if kind.startswith("csv"):
        with pytest.raises(DataError, match="field larger than"):
            both(write(tmp_path / f"lines.{kind}", rows % ("a\n" * 5000)))


def test_a_small_file_of_endless_repetition_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(file_reading, "MOST_TEXT_OF_ANY_FILE", 100_000)
    monkeypatch.setattr(file_reading, "MOST_TEXT_PER_BYTE", 100)
    table = pyarrow.table({"text": pyarrow.array(["a" * 10_000] * 1000).dictionary_encode()})
    pyarrow.parquet.write_table(table, tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 50_000
    with pytest.raises(DataError, match="the same over and over"):
        both(tmp_path / "bomb.parquet")


def test_a_folder_is_read_with_its_subfolders_but_without_hidden_ones(tmp_path):
    write(tmp_path / "a.txt", "text a\n" * 100)
    write(tmp_path / "sub" / "b.md", "text b\n" * 100)
    write(tmp_path / ".git" / "c.txt", "text c\n" * 100)
    write(tmp_path / "picture.png", b"\x89PNG")
    train, validation = both(tmp_path)
    assert set("".join(train + validation)) == set("text a\ntext b\n")


def test_a_folder_of_texts_and_rows_is_read(tmp_path):
    write(tmp_path / "README.md", "about the rows\n")
    write_rows(tmp_path / "rows.jsonl", ROWS)
    train, validation = both(tmp_path)
    assert sorted(train + validation) == sorted([*ROWS, "about the rows\n"])


def test_a_glob_is_expanded(tmp_path):
    for name in ("a1.txt", "a2.txt", "b.txt", "sub/a3.txt"):
        write(tmp_path / name, f"{name}\n" * 50)

    def words(glob):
        train, validation = both(glob)
        return set("".join(train + validation).split())

    assert words(tmp_path / "a*.txt") == {"a1.txt", "a2.txt"}
    assert words(tmp_path / "**" / "a*.txt") == {"a1.txt", "a2.txt", "sub/a3.txt"}


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "json", "txt"])
@pytest.mark.parametrize("name", ["data/{}", "{}-00000-of-00001", "{}/part"])
def test_a_data_set_folder_uses_its_own_splits(name, suffix, tmp_path):
    write(tmp_path / "README.md", "licence\n")
    for split in ("train", "validation", "test"):
        path = tmp_path / f"{name.format(split)}.{suffix}"
        texts = [f"{split} {i}" for i in range(20)]
        if suffix == "json":
            write(path, json.dumps([{"text": text} for text in texts]))
        else:
            write(path, "\n".join(texts)) if suffix == "txt" else write_rows(path, texts)
    corpus = opened(tmp_path)
    for split in ("train", "validation", "test"):
        assert set("\n".join(corpus.documents(split)).split("\n")) == {f"{split} {i}" for i in range(20)}
    assert any("own splits" in notice for notice in corpus.notices)
    assert any("README.md" in notice for notice in corpus.notices)
    assert corpus.fingerprint != opened(f"{tmp_path}/**/*.md").fingerprint


def test_programs_named_train_and_test_are_no_splits(tmp_path):
    for name in ("train.py", "test.py", "model.py"):
        write(tmp_path / name, f"# {name}\n" * 50)
    train, validation = both(tmp_path)
    assert set("".join(train + validation).split()) == {"#", "train.py", "test.py", "model.py"}


def test_files_that_are_not_read_are_counted(tmp_path):
    write(tmp_path / "a.txt", "text\n" * 50)
    for i in range(5):
        write(tmp_path / f"{i}.json", "{}")
        write(tmp_path / f"{i}.html", "<p>")
    for source in (tmp_path, f"{tmp_path}/*"):
        (notice,) = opened(source).notices
        assert notice.startswith(f"10 of 11 files of {source} are not read: ")
        assert "5 .json" in notice
        assert "5 .html" in notice


def test_a_folder_of_json_files_is_read(tmp_path):
    for i in range(5):
        write(tmp_path / f"{i}.json", json.dumps({"text": f"text {i}"}))
    train, validation = both(tmp_path)
    assert sorted(train + validation) == [f"text {i}" for i in range(5)]


@pytest.mark.parametrize("source", ["", "**/*.*", "**"])
def test_run_folders_are_never_part_of_a_corpus(source, tmp_path):
    write(tmp_path / "a.txt", "text\n" * 50)
    before = opened(tmp_path).fingerprint
    write(tmp_path / "runs" / "one" / "run.json", "{}")
    write(tmp_path / "runs" / "one" / "events.jsonl", "{}\n")
    write(tmp_path / "runs" / "one" / "checkpoints" / "step-1" / "README.md", "a model\n")
    corpus = opened(tmp_path / source)
    assert set("".join(corpus.documents("train")).split()) == {"text"}
    assert corpus.fingerprint == before
    assert any("1 run folder " in notice for notice in corpus.notices)


def test_linked_folders_are_read_once_by_folders_and_globs(tmp_path):
    write(tmp_path / "corpus" / "real" / "a.txt", "text a\n" * 50)
    write(tmp_path / "elsewhere" / "b.txt", "text b\n" * 50)
    (tmp_path / "corpus" / "again").symlink_to("real")
    (tmp_path / "corpus" / "loop").symlink_to(".")
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    folder, pattern = opened(tmp_path / "corpus"), opened(tmp_path / "corpus" / "**" / "*.txt")
    for corpus in (folder, pattern):
        text = "".join(text for split in ("train", "validation") for text in corpus.documents(split))
        assert (text.count("text a"), text.count("text b")) == (50, 50)


def test_a_glob_below_a_folder_with_brackets_is_expanded(tmp_path, monkeypatch):
    write(tmp_path / "set [v1]" / "a.txt", "text\n" * 50)
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path / "set [v1]" / "*.txt", "set [v1]/*.txt"):
        train, _ = both(source)
        assert set("".join(train).split()) == {"text"}


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    train, validation = both(write_rows(tmp_path / "rows[1].jsonl", ROWS))
    assert len(train + validation) == len(ROWS)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("shakespear.txt", r"shakespear\.txt does not exist in .*; did you mean shakespeare\.txt\?"),
        ("nowhere/book.txt", r"neither does its folder"),
        ("*.jsonl", r"matches no file"),
        ("*.pdf", r"only matches files that are not"),
        ("paper.pdf", r"not a kind of file that can be read"),
        ("empty.txt", r"empty\.txt is empty"),
        ("pictures", r"pictures holds no text"),
        ("nothing", r"all 2 files of .*nothing are empty"),
        ("~nobody-of-this-name/x.txt", r"is not a path"),
        ("\0", r"is not a path|does not exist"),
        ("x" * 4000, r"is not a path|does not exist"),
        ("mark.txt", r"mark\.txt is empty"),
        ("mark.txt.gz", r"mark\.txt\.gz is empty"),
        ("empty.txt.gz", r"empty\.txt\.gz is empty"),
        ("mark.csv", r"mark\.csv is empty"),
        ("marks", r"all 2 files of .*marks are empty"),
        ("/dev/null", r"^/dev/null is a pipe or a device; "),
        ("pipe.txt", r"^pipe\.txt is a pipe or a device; "),
        ("lost.txt", r"^lost\.txt is a link to something that does not exist; check data\.source$"),
    ],
)
def test_a_source_that_cannot_be_read_is_one_clear_sentence(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "shakespeare.txt", "text")
    write(tmp_path / "paper.pdf", "%PDF")
    write(tmp_path / "empty.txt", "")
    write(tmp_path / "pictures" / "a.png", "PNG")
    write(tmp_path / "nothing" / "a.txt", "")
    write(tmp_path / "nothing" / "b.txt", "")
    for name in ("mark.txt", "mark.txt.gz", "mark.csv", "marks/a.txt", "marks/b.md"):
        write(tmp_path / name, b"\xef\xbb\xbf")
    write(tmp_path / "empty.txt.gz", "")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "lost.txt").symlink_to("gone")
    with pytest.raises(DataError, match=message) as caught:
        opened(source)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_rows_without_any_text_are_refused(kind, tmp_path):
    path = write_rows(tmp_path / f"blank.{kind}", ["", ""])
    with pytest.raises(DataError, match="are left out: they have no text in column text; choose another"):
        both(path)


# Noticing changes


@pytest.mark.parametrize("change", ["content", "name", "more", "fewer"])
def test_a_changed_corpus_has_another_fingerprint(change, tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.txt", f"text {i}\n" * 20)
    before = opened(tmp_path)
    state = (tmp_path / "1.txt").stat()
    match change:
        case "content":
            # Even one of the same size, whose time was put back.
            write(tmp_path / "1.txt", "TEXT 1\n" * 20)
            os.utime(tmp_path / "1.txt", ns=(state.st_atime_ns, state.st_mtime_ns))
        case "name":
            (tmp_path / "1.txt").rename(tmp_path / "5.txt")
        case "more":
            write(tmp_path / "5.txt", "text\n")
        case "fewer":
            (tmp_path / "1.txt").unlink()
    assert opened(tmp_path).fingerprint != before.fingerprint


def test_a_copied_corpus_has_the_same_fingerprint(tmp_path):
    write(tmp_path / "one" / "a.txt", "text\n" * 20)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert opened(tmp_path / "one").fingerprint == opened(tmp_path / "two").fingerprint


@pytest.fixture
def large(monkeypatch):
    """Every corpus is a large one, whose files are hashed once."""
    monkeypatch.setattr(content_hashes, "SMALL_BYTES", 10)
    monkeypatch.setattr(content_hashes, "_hashed", {})


def hashed(source):
    """The bytes that are hashed when the corpus is prepared, and its fingerprint then."""
    done = [done for done, _ in hash_content(DataTable(source=str(source)))]
    return done[-1] if done else 0, opened(source).fingerprint


def test_a_large_corpus_is_hashed_once_and_known_by_its_content_wherever_it_is(tmp_path, large, monkeypatch):
    path = write(tmp_path / "one" / "a.txt", "text\n" * 20)
    unknown = opened(path.parent).fingerprint
    amount, fingerprint = hashed(path.parent)
    assert (amount, fingerprint != unknown) == (100, True)
    monkeypatch.setattr(content_hashes, "SMALL_BYTES", 1 << 20)
    assert opened(path.parent).fingerprint == fingerprint
    monkeypatch.setattr(content_hashes, "SMALL_BYTES", 10)
    monkeypatch.setattr(content_hashes, "_hashed", {})  # another process
    assert hashed(path.parent) == (0, fingerprint)
    os.utime(path, ns=(0, 0))
    assert hashed(path.parent) == (100, fingerprint)
    assert hashed(shutil.move(tmp_path / "one", tmp_path / "two")) == (100, fingerprint)


def test_a_large_file_whose_time_was_put_back_is_hashed_again(tmp_path, large):
    path = write(tmp_path / "a.txt", "text\n" * 20)
    _, before = hashed(path)
    state = path.stat()
    while path.stat().st_ctime_ns == state.st_ctime_ns:  # the clock of some file systems is coarse
        write(path, "TEXT\n" * 20)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert opened(path).fingerprint != before
    amount, after = hashed(path)
    assert amount == 100
    assert after != before


@pytest.mark.parametrize("damage", ["", "x" * 65, "a file that is much longer than the hash of one file would be " * 3])
def test_kept_hashes_that_are_damaged_are_made_again(tmp_path, large, monkeypatch, damage):
    path = write(tmp_path / "a.txt", "text\n" * 20)
    expected = hashed(path)
    (kept,) = (cache_folder() / "hashes").iterdir()
    kept.write_text(damage)
    monkeypatch.setattr(content_hashes, "_hashed", {})
    assert hashed(path) == expected


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, large):
    path = write(tmp_path / "a.txt", "text\n" * 20)
    write(cache_folder(), "a file where the folder should be")
    assert hashed(path)[0] == 100
    assert hashed(path)[0] == 0  # in this process


def test_copies_of_a_file_are_in_one_split_and_counted(tmp_path):
    for i in range(100):
        write(tmp_path / f"{i:02}.txt", f"text {i // 5}\n" * 20)  # each five times
    train, validation = both(tmp_path)
    assert len(train) + len(validation) == 100
    assert validation
    assert not {*train} & {*validation}
    (notice,) = opened(tmp_path).notices
    assert notice.startswith("80 of the files of")


def test_many_copies_of_one_file_are_all_cut_where_the_validation_text_begins(tmp_path):
    lines = [f"line {i}\n" for i in range(100)]
    for i in range(40):
        write(tmp_path / f"{i}.txt", "".join(lines))
    train, (validation,) = both(tmp_path)
    assert train == ["".join(lines[:96])] * 40  # a twentieth, from the next line end on
    assert validation == "".join(lines[96:])


def test_files_without_copies_are_split_as_before_copies_were_looked_for(tmp_path):
    for i in range(40):
        write(tmp_path / f"{i}.txt", f"text {i:02}\n" * 20)
    corpus = opened(tmp_path)
    assert corpus.notices == ()
    lowest = sorted(range(40), key=lambda i: stable_hash(f"{i}.txt"))[:2]
    assert {*corpus.documents("validation")} == {f"text {i:02}\n" * 20 for i in lowest}


def test_validation_files_that_are_copies_of_training_files_are_counted(tmp_path):
    for split, numbers in {"train": range(4), "validation": (2, 3, 4), "test": (5,)}.items():
        for i in numbers:
            write(tmp_path / split / f"{i}.txt", f"text {i}\n" * 20)
    assert any(notice.startswith("2 of the validation files") for notice in opened(tmp_path).notices)


# Going on from any position


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet", "mixed"])
def test_reading_goes_on_after_any_piece(kind, streaming, tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2tui.data.text_files.CUT_LENGTH", 100)
    monkeypatch.setattr("gpt2tui.data.text_cuts.parts.__defaults__", (30,))
    if kind in ("txt", "mixed"):
        for i in range(30):
            write(tmp_path / f"{i}.txt", f"file {i} has words\n" * 30)
    if kind != "txt":
        for i in range(3):
            suffix = "jsonl" if kind == "mixed" else kind
            write_rows(tmp_path / f"{i}.{suffix}", ROWS[i * 20 : i * 20 + 20])
    corpus = opened(tmp_path, streaming=streaming)
    pieces = list(corpus.pieces("train"))
    assert any(not piece.ends_document for piece in pieces)
    for i in range(0, len(pieces), 7):
        position = json.loads(json.dumps(pieces[i].next))
        assert list(corpus.pieces("train", position)) == pieces[i + 1 :]
