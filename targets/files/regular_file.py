"""Reading a file that nobody vouches for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["read_regular_file", "reason_of"]


def read_regular_file(path: Path, largest: int) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: It cannot be read, is a folder, a device or a pipe, or has more bytes than that.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a name with a zero byte
        raise OSError(0, str(error)) from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(0, "Is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is a device, a pipe or a socket, needed a regular file")
        if status.st_size > largest:
            raise OSError(0, f"found {status.st_size:,} bytes, needed at most {largest:,}")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(status.st_size)  # not the largest: so much memory would be reserved
    finally:
        os.close(descriptor)


def reason_of(error: Exception) -> str:
    """The first line of what an error says, without the number of the system's."""
    text = getattr(error, "strerror", None) or str(error).strip()
    return (str(text).splitlines() or [type(error).__name__])[0]
