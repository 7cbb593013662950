"""Text and JSON files in every state that people and killed processes leave them in."""

import json

import pytest

from videodiff_jax import text_files

ODD = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"  # where str.splitlines breaks


@pytest.fixture
def file(tmp_path):
  return tmp_path / "file.jsonl"


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_lines_end_at_line_feeds_alone(file, bom, end, last) -> None:
  file.write_bytes(bom + f"{ODD}{end}{end}second{last}".encode())
  assert text_files.lines(file) == [ODD, "", "second"]
  assert text_files.read(file) == f"{ODD}{end}{end}second{last}"


def test_an_empty_file_has_no_line(file) -> None:
  file.write_bytes(b"")
  assert text_files.lines(file) == text_files.read_json_lines(file) == []
  assert text_files.read_log(file) == []


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_json_lines(file, bom) -> None:
  rows = [{"caption": ODD}, {"caption": "é"}]
  text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
  file.write_bytes(bom + text.encode())
  assert text_files.read_json_lines(file) == [(1, rows[0]), (3, rows[1])]
  assert text_files.read_log(file) == rows
  file.write_bytes(bom + json.dumps(rows[0], ensure_ascii=False).encode())
  assert text_files.read_json(file) == rows[0]


WRONG = {
  "Latin-1": ('{"a": 1}\n{"a": "é"}'.encode("latin-1"), "line 2: byte 0xe9 is not UTF-8"),
  "zero": (b'{"a": 1}\n\0\0', "line 2: a zero byte"),
  "half": (b'{"a": 1}\n{"a": ', "line 2"),
}


@pytest.mark.parametrize(("data", "said"), WRONG.values(), ids=WRONG)
def test_what_is_no_text_or_json_is_an_error_with_file_and_line(file, data, said) -> None:
  file.write_bytes(data)
  for reader in (text_files.read_json, text_files.read_json_lines):
    with pytest.raises(text_files.TextError, match=f"file.jsonl.*{said}"):
      reader(file)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_told(file, encoding) -> None:
  file.write_bytes('{"a": 1}'.encode(encoding))
  for reader in (text_files.read, text_files.lines, text_files.read_json):
    with pytest.raises(text_files.TextError, match="UTF-16"):
      reader(file)


@pytest.mark.parametrize("text", ["[1]", "null", "3", '"a"', "[" * 100_000, "9" * 5000])
def test_another_type_at_the_root_is_an_error(file, text) -> None:
  file.write_text(text)
  for reader in (text_files.read_json, text_files.read_json_lines):
    with pytest.raises(text_files.TextError, match=r"file\.jsonl"):
      reader(file)


@pytest.mark.parametrize("bad", [b'{"step": 3, "lo', b"[1]", b"\xe9\xe9", b"\0\0\0", b"note"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_bad_lines_of_our_own_logs_are_passed_over(file, caplog, bad, place) -> None:
  rows = [{"step": 1}, {"step": 2}]
  written = [json.dumps(row).encode() for row in rows]
  written.insert(place, bad)
  file.write_bytes(b"\n".join(written))
  with caplog.at_level("WARNING", logger="absl"):
    assert text_files.read_log(file) == rows
  (warning,) = caplog.records
  assert f"{file}, line {place + 1}" in warning.getMessage()
  assert "skipped (such lines in all: 1)" in warning.getMessage()
