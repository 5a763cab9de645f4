"""Arrays of .npy and .npz files that nobody vouches for."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ana_fx.errors import VerifyError
from ana_fx.targets.files.regular_file import read_regular_file, reason_of

__all__ = ["Array", "read_archive", "read_array"]

Array = np.ndarray[Any, Any]

_LARGEST = 2**32
_MOST_ARRAYS = 1000
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_array(path: Path, *, largest: int = _LARGEST) -> Array:
    """The array of a .npy file.

    Raises:
        VerifyError: It is no file that numpy.save writes of numbers, is empty, or has more bytes than that.
    """
    try:
        return _array(read_regular_file(path, largest))
    except (OSError, ValueError, EOFError) as error:
        raise VerifyError(
            f"cannot load {path}: {reason_of(error)}; needed an array of numbers that numpy.save wrote"
        ) from error


def read_archive(path: Path, *, largest: int = _LARGEST) -> dict[str, Array]:
    """The arrays of a .npz file by their names; no more is unpacked than the largest number of bytes.

    Raises:
        VerifyError: It is no file that numpy.savez writes of numbers, or holds more.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(read_regular_file(path, largest))) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > largest or len(members) > _MOST_ARRAYS:
                raise ValueError(f"found {len(members):,} arrays of {size:,} bytes, needed at most {largest:,}")
            return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise VerifyError(
            f"cannot load {path}: {reason_of(error)}; needed arrays of numbers that numpy.savez wrote"
        ) from error


def _array(data: bytes) -> Array:
    """What bytes of numpy.save say; ValueError if their header says another number of bytes than there are."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise ValueError(f"found version {version} of the format, needed {' or '.join(map(str, _READERS))}")
    shape, is_fortran, dtype = _READERS[version](file)
    content = data[file.tell() :]
    if dtype.kind not in "iufb":
        raise ValueError(f"found numbers of type {str(dtype)[:40]}")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"found shape {str(shape)[:60]} of {dtype}, which {len(content):,} bytes do not hold")
    if not content:
        raise ValueError(f"found no numbers in shape {str(shape)[:60]}")
    array: Array = np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C").copy()
    return array
