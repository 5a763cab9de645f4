"""Reading a file that nobody vouches for: no more memory than it has bytes, and nothing that is no file."""

import tracemalloc

import pytest

from ana_fx.targets.files.regular_file import read_regular_file, reason_of


def test_no_more_memory_is_reserved_than_the_file_has_bytes(tmp_path):
    (tmp_path / "small").write_bytes(b"abc")
    tracemalloc.start()
    try:
        assert read_regular_file(tmp_path / "small", 2**31 - 1) == b"abc"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_a_file_with_more_bytes_is_refused(tmp_path):
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(OSError, match="found 11 bytes, needed at most 10") as refusal:
        read_regular_file(tmp_path / "large", 10)
    assert reason_of(refusal.value) == "found 11 bytes, needed at most 10"


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_regular_file(tmp_path, 10)
