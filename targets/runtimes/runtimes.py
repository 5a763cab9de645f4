"""What runs ONNX files: each runtime of another project as one function."""

from __future__ import annotations

import tempfile
import threading
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_max_pool

from ana_fx.targets.runtimes.base_runtime import Arrays, Runtime, runtime_among
from ana_fx.targets.runtimes.emulation import emulate

__all__ = ["RUNTIMES", "runtime_called", "with_batch"]

_QONNX = threading.Lock()  # a name in its module is replaced while it runs
_NUMPY_TO_TRACT = {"float32": "f32", "int8": "i8", "int32": "i32", "uint8": "u8"}


def runtime_called(name: str) -> Runtime:
    """The runtime of ONNX files of that name; raises what `runtime_among` does."""
    return runtime_among(RUNTIMES, name)


def _onnxruntime(model: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def _reference(model: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray[Any, Any]]:
    return list(ReferenceEvaluator(model, new_ops=[MaxPool]).run(None, dict(feeds)))


class MaxPool(op_max_pool.MaxPool):
    """The reference evaluator's max pool; on integers, which it pads with NaN, in floats that hold them exactly."""

    def _run(self, x: Any, *args: Any, **attributes: Any) -> Any:  # type: ignore[override]  # as loose as onnx calls it
        pooled, *_ = super()._run(x.astype(np.float32), *args, **attributes)  # type: ignore[no-untyped-call]  # as above
        return (pooled.astype(x.dtype),)


def _tract(model: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray[Any, Any]]:
    tract = import_module("tract")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(with_batch(model, _batch(feeds)), path)
        network = tract.onnx().load(path)
    for index, value in enumerate(model.graph.input):
        array = feeds[value.name]
        network.set_input_fact(index, ",".join([*map(str, array.shape), _NUMPY_TO_TRACT[str(array.dtype)]]))
    arrays = [np.ascontiguousarray(feeds[value.name]) for value in model.graph.input]
    return [each.to_numpy() for each in network.into_model().into_runnable().run(arrays)]


def _openvino(model: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray[Any, Any]]:
    core = import_module("openvino").Core()
    network = core.read_model(model.SerializeToString(), b"")
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(dict(feeds))
    return [np.asarray(found[output]) for output in compiled.outputs]


def _qonnx(model: onnx.ModelProto, feeds: Arrays) -> list[np.ndarray[Any, Any]]:
    """Its executor, after its clean-up transformations."""
    execution = import_module("qonnx.core.onnx_exec")
    wrapper = import_module("qonnx.core.modelwrapper").ModelWrapper(with_batch(model, _batch(feeds)))
    names = [value.name for value in model.graph.output]
    # it runs each node in onnxruntime, as a model of the newest IR version, which onnxruntime may not know yet
    make_model = partial(execution.qonnx_make_model, ir_version=model.ir_version)
    with _QONNX, patch.object(execution, "qonnx_make_model", make_model):
        cleaned = import_module("qonnx.util.cleanup").cleanup_model(wrapper)
        renamed = zip(cleaned.graph.input, feeds.values(), strict=True)
        found = execution.execute_onnx(cleaned, {value.name: array for value, array in renamed})
    assert len(found) == len(names)
    return list(found.values())


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The model for that batch size alone."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.value_info, *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                _, _, rows = dim.dim_param.partition("*")
                dim.dim_value = batch * int(rows or 1)
    return fixed


def _batch(feeds: Arrays) -> int:
    return len(next(iter(feeds.values())))


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("onnxruntime", "onnxruntime", _onnxruntime),
        Runtime("onnx.reference", "onnx", _reference, samples=2),  # slow
        Runtime("tract", "tract", _tract),
        Runtime("openvino", "openvino", _openvino),
        Runtime("qonnx", "qonnx", _qonnx, samples=2),  # one session for each node
        Runtime("reference-kernels", "onnx", emulate, samples=4),  # with the operators of DORY and Deeploy
    )
}
