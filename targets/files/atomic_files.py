"""Files that appear whole or not at all, one or several together.

A new file has no name until all of them are on disk, then each takes its place in one step. So a process that is
killed leaves nothing behind, but for the moment between name and place. Systems without nameless files give them a
hidden name from the start; the lock on it tells whether its writer lives, and the next writer deletes what the dead
ones left.

What no system offers is one step for several files. They take their places right behind each other, within some 30
microseconds on ext4; a process that is killed just there leaves the first ones new and the others old. Any other
failure there, Ctrl-C included, brings the old ones back.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ana_fx.errors import ExportError

if sys.platform != "win32":
    import fcntl

__all__ = ["write_files"]

_NAME = re.compile(r"\.ana_fx-[0-9a-f]{16}")
_PERMISSIONS = 0o666  # less what the kernel masks


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write files; a reader sees an old one or a new one, never a part of it, and all of them are new or none.

    They take their places in the given order. Links are followed, and a file that is there keeps its permissions.

    Raises:
        ExportError: One of them cannot be written, so none was.
    """
    path = Path()
    try:
        with ExitStack() as stack:
            new: list[_Staged] = []
            for path, data in files.items():
                place = _place(path)
                new.append(stack.enter_context(_Staged(place, data, _permissions(place))))
            old = [stack.enter_context(_before(each.place)) for each in new] if len(new) > 1 else [None]
            folders = list(dict.fromkeys(each.place.parent for each in new))
            try:
                for each in new:
                    each.give_name()
                for path, each in zip(files, new, strict=True):  # noqa: B007  # the message names the path
                    os.replace(each.name, each.place)  # with nothing between, as a kill may come there
                for folder in folders:
                    _sync(folder)
            except BaseException:
                for each, before in zip(new, old, strict=True):
                    _restore(each, before)
                raise
            for folder in folders:
                _delete_leftovers(folder)
    except OSError as error:
        raise ExportError(
            f"cannot write {path}: {error.strerror or error}; needed a regular file in a writable folder that exists; "
            f"nothing was written"
        ) from error


def _place(path: Path) -> Path:
    """Where a path leads; OSError if something stands there that is no file."""
    place = Path(os.path.realpath(path))
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return place
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(0, "Is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(0, "Is a device, a pipe or a socket")
    return place


def _permissions(place: Path) -> int | None:
    """Those of the file that is there, or None."""
    try:
        return stat.S_IMODE(place.stat().st_mode)
    except FileNotFoundError:
        return None


class _Staged:
    """Content on its way to a place, as a context: on disk in the place's folder, gone at the end if not put."""

    def __init__(self, place: Path, data: bytes, permissions: int | None) -> None:
        self.place = place
        self.data = data
        self.permissions = permissions
        self.name = place.parent / f".ana_fx-{secrets.token_hex(8)}"
        self._descriptor = -1
        self._identity: os.stat_result | None = None

    @property
    def is_put(self) -> bool:
        """Whether it has taken its place; Ctrl-C may have come right behind, so that only the system knows."""
        try:
            return self._identity is not None and os.path.samestat(self._identity, self.place.stat())
        except FileNotFoundError:
            return False

    def __enter__(self) -> _Staged:
        try:
            self._write()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _write(self) -> None:
        permissions = _PERMISSIONS if self.permissions is None else self.permissions
        self._descriptor = _open_nameless(self.place.parent, permissions)
        if self._descriptor < 0:
            self._descriptor = _open_locked(self.name, permissions)
        with os.fdopen(os.dup(self._descriptor), "wb") as file:
            file.write(self.data)
        if self.permissions is not None:
            os.chmod(self._descriptor if os.chmod in os.supports_fd else self.name, self.permissions)
        os.fsync(self._descriptor)
        self._identity = os.fstat(self._descriptor)

    def give_name(self) -> None:
        """Have a name from which it can take its place."""
        if not self.name.exists():
            _lock(self._descriptor)
            _link(self._descriptor, self.name)
        if sys.platform == "win32":  # which moves no open file
            os.close(self._descriptor)
            self._descriptor = -1

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        with suppress(FileNotFoundError, NotADirectoryError):
            self.name.unlink()


@contextmanager
def _before(place: Path) -> Iterator[_Staged | None]:
    """What stands at a place now, ready to be put back; None if nothing does.

    It stays open: then the system need not free it when it is replaced, which takes a thousand times as long.
    """
    permissions = _permissions(place)
    if permissions is None:
        yield None
        return
    with place.open("rb") as file, _Staged(place, file.read(), permissions) as staged:
        yield staged


def _restore(new: _Staged, old: _Staged | None) -> None:
    """Have a place as it was before."""
    if not new.is_put:
        return
    if old is not None:
        old.give_name()
        os.replace(old.name, old.place)
    elif new.permissions is None:
        new.place.unlink(missing_ok=True)


def _open_nameless(folder: Path, permissions: int) -> int:
    """A file without a name; −1 where the system or the folder's has none."""
    flag = getattr(os, "O_TMPFILE", 0)
    if not flag or not Path("/proc/self/fd").exists():
        return -1
    try:
        return os.open(folder, os.O_RDWR | flag, permissions)
    except OSError:  # each file system has its own way to say that it knows no such files; opening by name tells
        return -1


def _link(descriptor: int, name: Path) -> None:
    folder = os.open(name.parent, os.O_PATH)
    try:  # with a folder's descriptor Python asks the system to follow the link of /proc
        os.link(f"/proc/self/fd/{descriptor}", name.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _open_locked(name: Path, permissions: int) -> int:
    """A new file that tells by its lock that its writer lives."""
    while True:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, permissions)
        _lock(descriptor)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # somebody took it for a leftover before it was locked


def _delete_leftovers(folder: Path) -> None:
    """Delete what writers that were killed left in a folder."""
    if sys.platform == "win32" or not os.access(folder, os.R_OK):
        return
    for path in [folder / name for name in os.listdir(folder) if _NAME.fullmatch(name)]:
        with suppress(OSError):  # it is another user's, or gone, or no file, or its writer lives
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _sync(folder: Path) -> None:
    """Have the names of a folder on disk too, if it may be opened."""
    if sys.platform == "win32" or not os.access(folder, os.R_OK):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
