"""Reading an ONNX file that nobody vouches for."""

from __future__ import annotations

from pathlib import Path

import onnx

from ana_fx.errors import VerifyError
from ana_fx.targets.dory_attributes import without_dory_attributes

__all__ = ["read_model"]

_LARGEST = 2**31 - 1  # what protobuf can hold


def read_model(path: Path) -> onnx.ModelProto:
    """The model of a file, checked; nothing outside the file is read.

    Raises:
        VerifyError: It cannot be read, is no ONNX, is damaged, or keeps tensors in other files.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise VerifyError(f"cannot load {path}: found {size:,} bytes, needed less than 2 GiB")
        model = onnx.load(path, load_external_data=False)
        if not model.graph.node or not model.opset_import:
            raise VerifyError(f"cannot load {path}: it holds no graph; needed a file that export() wrote")
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise VerifyError(
                f"cannot load {path}: it keeps tensors in other files; needed all in one, as export() writes"
            )
        onnx.checker.check_model(without_dory_attributes(model))
    except VerifyError:
        raise
    except Exception as error:  # those of the system, of protobuf and of the checker share no base
        reason = (str(error).strip().splitlines() or ["it is no ONNX model"])[0]
        raise VerifyError(f"cannot load {path}: {reason}; needed a file that export() wrote") from error
    return model
