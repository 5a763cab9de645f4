"""Files are whole, together or not there, whatever ends the writing."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ana_fx
from ana_fx.targets.files import atomic_files
from ana_fx.targets.files.atomic_files import write_files

NAMES = ("inputs.npz", "outputs.npz", "network.onnx")


@pytest.fixture(params=["nameless", "named"], autouse=True)
def system(request, monkeypatch):
    """Linux has files without a name; others do not."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return request.param


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def written(folder: Path, content: bytes) -> dict[Path, bytes]:
    return {folder / name: content + name.encode() for name in NAMES}


def old(folder: Path) -> dict[str, bytes]:
    write_files(written(folder, b"old "))
    return contents(folder)


def test_files_are_written_and_nothing_else(tmp_path):
    write_files(written(tmp_path, b"new "))
    assert contents(tmp_path) == {name: b"new " + name.encode() for name in NAMES}


def test_files_are_replaced_in_their_order(tmp_path, monkeypatch):
    old(tmp_path)
    places, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda name, place: (places.append(place.name), replace(name, place)))
    write_files(written(tmp_path, b"new "))
    assert places == list(NAMES)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("moment", [0, 1, 2])
@pytest.mark.parametrize("existed", [True, False])
def test_all_files_are_as_they_were_if_anything_ends_the_writing(tmp_path, monkeypatch, error, step, moment, existed):
    before = old(tmp_path) if existed else {}
    calls, real = [], getattr(os, step)

    def fails(*arguments):
        calls.append(arguments)
        if len(calls) == moment + 1:
            raise error
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fails)
        with pytest.raises(error):
            write_files(written(tmp_path, b"new "))
    assert contents(tmp_path) == before


def test_ctrl_c_right_behind_a_step_undoes_that_step_too(tmp_path, monkeypatch):
    before, replace, calls = old(tmp_path), os.replace, []

    def interrupted(*arguments):
        replace(*arguments)
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_files(written(tmp_path, b"new "))
    assert contents(tmp_path) == before


def test_one_place_that_is_a_folder_leaves_all_others_as_they_were(tmp_path):
    """It was seen that three companions had been replaced although "nothing was written"."""
    write_files({tmp_path / "inputs.npz": b"old"})
    (tmp_path / "network.onnx").mkdir()
    with pytest.raises(ana_fx.ExportError, match=r"network\.onnx: Is a directory.*nothing was written"):
        write_files(written(tmp_path, b"new "))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["inputs.npz", "network.onnx"]
    assert (tmp_path / "inputs.npz").read_bytes() == b"old"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o777])
def test_a_file_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_files({path: b"new"})
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_a_new_file_has_what_the_system_gives_to_any(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_files({tmp_path / "a.onnx": b"new"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.onnx").stat().st_mode) == 0o666 & ~mask


def test_the_mask_of_the_process_is_never_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("other threads would create files without a mask"))
    write_files({tmp_path / "a.onnx": b"new"})


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_the_file_behind_it_is_written(tmp_path, exists):
    (tmp_path / "store").mkdir()
    if exists:
        (tmp_path / "store" / "v1.onnx").write_bytes(b"old")
    link = tmp_path / "model.onnx"
    link.symlink_to("store/v1.onnx")
    write_files({link: b"new"})
    assert link.is_symlink()
    assert (tmp_path / "store" / "v1.onnx").read_bytes() == b"new"
    assert [each.name for each in (tmp_path / "store").iterdir()] == ["v1.onnx"]


def test_what_is_no_file_is_refused_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for place in (tmp_path / "pipe", tmp_path / "socket", Path("/dev/null")):
            mode = place.stat().st_mode
            with pytest.raises(ana_fx.ExportError, match=r"a device, a pipe or a socket; needed a regular file"):
                write_files({place: b"new"})
            assert place.stat().st_mode == mode


def test_a_circle_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ana_fx.ExportError, match="Too many levels of symbolic links"):
        write_files({tmp_path / "a": b"new"})


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    path, seen, is_done = tmp_path / "a.onnx", set(), threading.Event()
    path.write_bytes(b"0" * 100_000)

    def read():
        while not is_done.is_set():
            seen.add((len(data := path.read_bytes()), data[:1], data[-1:]))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 20):
        write_files({path: str(number % 10).encode() * 100_000})
    is_done.set()
    reader.join()
    assert all(size == 100_000 and first == last for size, first, last in seen)


_KILLED = """
import os, signal, sys
from pathlib import Path
from ana_fx.targets.files.atomic_files import write_files
if sys.argv[3] == "named" and hasattr(os, "O_TMPFILE"):
    del os.O_TMPFILE
def last(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, sys.argv[2], last)
write_files({Path(sys.argv[1]) / "a.onnx": b"new"})
"""


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_a_killed_writer_leaves_is_deleted_by_the_next(tmp_path, system, step):
    (tmp_path / "a.onnx").write_bytes(b"old")
    finished = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), step, system], check=False)
    assert finished.returncode == -9
    assert (tmp_path / "a.onnx").read_bytes() == b"old"
    leaves_something = step == "replace" or system == "named"
    assert len(list(tmp_path.iterdir())) == 1 + leaves_something
    write_files({tmp_path / "b.onnx": b"new"})
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_what_a_living_writer_needs_is_left_alone(tmp_path):
    with atomic_files._Staged(tmp_path / "a.onnx", b"slow", None) as slow:
        write_files({tmp_path / "b.onnx": b"quick"})
        slow.give_name()
        os.replace(slow.name, slow.place)
    assert contents(tmp_path) == {"a.onnx": b"slow", "b.onnx": b"quick"}


def test_files_of_others_with_such_names_are_left_alone(tmp_path):
    (tmp_path / ".ana_fx-notes").write_bytes(b"mine")
    (tmp_path / ".ana_fx-0123456789abcdef").mkdir()
    write_files({tmp_path / "a.onnx": b"new"})
    assert len(list(tmp_path.iterdir())) == 3
