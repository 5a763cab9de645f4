"""The parts of an ONNX file, counted before any of them is built.

A file of a few megabytes can say gigabytes of empty messages. This walks over the bytes alone, knows the fields that
export() writes, and stops at the first other one.
"""

from __future__ import annotations

__all__ = ["check_parts"]

_LEAF = ""
_FIELDS: dict[str, dict[int, str]] = {
    "model": {1: _LEAF, 2: _LEAF, 3: _LEAF, 4: _LEAF, 5: _LEAF, 6: _LEAF, 7: "graph", 8: "opset", 14: "entry"},
    "opset": {1: _LEAF, 2: _LEAF},
    "entry": {1: _LEAF, 2: _LEAF},
    "graph": {
        1: "node", 2: _LEAF, 5: "tensor", 10: _LEAF, 11: "value", 12: "value", 13: "value", 14: "annotation",
        16: "entry",
    },
    "annotation": {1: _LEAF, 2: "entry"},
    "node": {1: _LEAF, 2: _LEAF, 3: _LEAF, 4: _LEAF, 5: "attribute", 6: _LEAF, 7: _LEAF, 8: _LEAF, 9: "entry"},
    "attribute": {
        1: _LEAF, 2: _LEAF, 3: _LEAF, 4: _LEAF, 5: "tensor", 7: _LEAF, 8: _LEAF, 9: _LEAF, 13: _LEAF, 20: _LEAF,
    },
    "tensor": {
        1: _LEAF, 2: _LEAF, 4: _LEAF, 5: _LEAF, 6: _LEAF, 7: _LEAF, 8: _LEAF, 9: _LEAF, 10: _LEAF, 11: _LEAF, 12: _LEAF,
        13: "entry", 14: _LEAF, 16: "entry",
    },
    "value": {1: _LEAF, 2: "type", 3: _LEAF, 4: "entry"},
    "type": {1: "tensor type", 6: _LEAF},
    "tensor type": {1: _LEAF, 2: "shape"},
    "shape": {1: "size"},
    "size": {1: _LEAF, 2: _LEAF, 3: _LEAF},
}  # fmt: skip
_KNOWN_OTHERS = {
    ("model", 20): "training steps",
    ("model", 25): "functions",
    ("graph", 15): "sparse tensors",
    ("attribute", 6): "graphs inside of nodes",
    ("attribute", 11): "graphs inside of nodes",
    ("type", 4): "sequences",
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_parts(data: bytes, most: int) -> None:
    """Walk over all fields of all messages of a model.

    Raises:
        ValueError: It is no ONNX, has more fields than that, or one that export() does not write.
    """
    todo, count = [(0, len(data), "model")], 0
    while todo:
        position, end, kind = todo.pop()
        fields = _FIELDS[kind]
        while position < end:
            count += 1
            if count > most:
                raise ValueError(f"found more than {most:,} parts, needed fewer")
            tag, position = _varint(data, position, end)
            field, wire = tag >> 3, tag & 7
            if field not in fields:
                other = _KNOWN_OTHERS.get((kind, field), f"field {field} of a {kind}")
                raise ValueError(f"found {other}, which export() does not write")
            if wire == _BYTES:
                length, position = _varint(data, position, end)
                if fields[field] is not _LEAF:
                    todo.append((position, position + length, fields[field]))
                position += length
            elif wire == _VARINT:
                _, position = _varint(data, position, end)
            elif wire in (_FIXED32, _FIXED64):
                position += 4 if wire == _FIXED32 else 8
            else:
                raise ValueError("it is no ONNX model")
        if position != end:
            raise ValueError("it is no ONNX model, or cut")


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("it is no ONNX model, or cut")
