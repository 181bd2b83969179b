"""Messages of KServe's protocol for gRPC, as https://github.com/kserve/open-inference-protocol numbers their fields.

They are described here, a line each, in place of a generated file: names and numbers are all that the wire knows.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
_TENSOR = "name=1:string datatype=2:string shape=3:int64* parameters=4:InferParameter% contents=5:InferTensorContents"
_METADATA = "name=1:string datatype=2:string shape=3:int64*"
_MODEL = "name=1:string version=2:string"
_CONTENTS = (
    "bool_contents=1:bool* int_contents=2:int32* int64_contents=3:int64* uint_contents=4:uint32* "
    "uint64_contents=5:uint64* fp32_contents=6:float* fp64_contents=7:double* bytes_contents=8:bytes*"
)
_PARAMETER = (
    "bool_param=1:bool| int64_param=2:int64| string_param=3:string| double_param=4:double| uint64_param=5:uint64|"
)
# A field is name=number:type; * is repeated, % a map from strings, | one of those of which one is set.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live=1:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready=1:bool",
    "ModelReadyRequest": _MODEL,
    "ModelReadyResponse": "ready=1:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name=1:string version=2:string extensions=3:string*",
    "ModelMetadataRequest": _MODEL,
    "TensorMetadata": _METADATA,
    "ModelMetadataResponse": (
        "name=1:string versions=2:string* platform=3:string inputs=4:TensorMetadata* outputs=5:TensorMetadata*"
    ),
    "InferParameter": _PARAMETER,
    "InferTensorContents": _CONTENTS,
    "InferInputTensor": _TENSOR,
    "InferRequestedOutputTensor": "name=1:string parameters=2:InferParameter%",
    "InferOutputTensor": _TENSOR,
    "ModelInferRequest": (
        "model_name=1:string model_version=2:string id=3:string parameters=4:InferParameter% "
        "inputs=5:InferInputTensor* outputs=6:InferRequestedOutputTensor* raw_input_contents=7:bytes*"
    ),
    "ModelInferResponse": (
        "model_name=1:string model_version=2:string id=3:string parameters=4:InferParameter% "
        "outputs=5:InferOutputTensor* raw_output_contents=6:bytes*"
    ),
}


def _described(name: str, fields: str) -> DescriptorProto:
    message = DescriptorProto(name=name)
    for text in fields.split():
        field_name, _, rest = text.partition("=")
        number, _, type_ = rest.partition(":")
        field = message.field.add(name=field_name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
        kind = type_.rstrip("*%|")
        if type_.endswith("|"):
            if not message.oneof_decl:
                message.oneof_decl.add(name="parameter_choice")
            field.oneof_index = 0
        elif type_.endswith("*"):
            field.label = FieldDescriptorProto.LABEL_REPEATED
        elif type_.endswith("%"):
            field.label = FieldDescriptorProto.LABEL_REPEATED
            entry = message.nested_type.add(name="".join(part.title() for part in field_name.split("_")) + "Entry")
            entry.options.map_entry = True
            entry.field.add(
                name="key", number=1, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
            )
            value = entry.field.add(name="value", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL)
            _set_type(value, kind)
            kind = f"{name}.{entry.name}"
        _set_type(field, kind)
    return message


def _set_type(field: FieldDescriptorProto, kind: str) -> None:
    if kind[0].isupper():
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


def _classes() -> dict[str, Any]:
    """Of a pool of their own: a client in the same process registers the same names."""
    file = FileDescriptorProto(name="recmoe/open_inference_grpc.proto", package=PACKAGE, syntax="proto3")
    file.message_type.extend(_described(name, fields) for name, fields in _MESSAGES.items())
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES}


MESSAGES = _classes()
"""Classes by the name of their message."""
