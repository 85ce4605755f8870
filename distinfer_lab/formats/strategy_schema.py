"""The protobuf messages of MindSpore's strategy files, described to the protobuf library at run time.

References
----------
Field numbers and names are those of MindSpore's node_strategy.proto, package
mindspore.straspb (see NOTICE).
"""

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["message_class"]

PACKAGE = "mindspore.straspb"

Field = descriptor_pb2.FieldDescriptorProto

# message -> ((field, number, kind, repeated), ...); a kind in capitals is another message
MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "DevMatrix": (("dim", 1, "uint32", True),),
    "TensorMap": (("dim", 1, "int32", True),),
    "ParamSplitShape": (("dim", 1, "int64", True),),
    "IndicesOffset": (("dim", 1, "int64", True),),
    "ParallelStrategy": (("dim", 1, "uint32", True),),
    "ParallelStrategys": (("stage", 1, "uint32", False), ("parallel_strategy", 2, "ParallelStrategy", True)),
    "ParallelStrategyItem": (
        ("node_name", 1, "string", False),
        ("parallel_strategys", 2, "ParallelStrategys", False),
    ),
    "ParallelLayouts": (
        ("dev_matrix", 1, "DevMatrix", True),
        ("tensor_map", 2, "TensorMap", True),
        ("param_split_shape", 3, "ParamSplitShape", True),
        ("indices_offset", 4, "IndicesOffset", True),
        ("field", 5, "int32", False),
        ("opt_weight_shard_step", 6, "int32", False),
        ("opt_weight_shard_size", 7, "int32", False),
    ),
    "ParallelLayoutItem": (
        ("param_name", 1, "string", False),
        ("parallel_layouts", 2, "ParallelLayouts", False),
    ),
    "ParallelStrategyMap": (
        ("current_stage", 1, "uint32", False),
        ("parallel_strategy_item", 2, "ParallelStrategyItem", True),
        ("parallel_layout_item", 3, "ParallelLayoutItem", True),
    ),
}

SCALARS = {
    "uint32": Field.TYPE_UINT32,
    "int32": Field.TYPE_INT32,
    "int64": Field.TYPE_INT64,
    "string": Field.TYPE_STRING,
}


@cache
def message_class(name: str) -> Any:
    """The class of a message."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="distinfer_lab/node_strategy.proto", package=PACKAGE, syntax="proto2"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            label = Field.LABEL_REPEATED if repeated else Field.LABEL_REQUIRED
            added = message.field.add(name=field, number=number, label=label)
            if kind in SCALARS:
                added.type = SCALARS[kind]
            else:
                added.type, added.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    return file
