"""Proto messages <-> plain dataclasses, by field name.

An implementation takes and returns dataclasses whose fields are named as in the proto; `from_message` and `to_message`
are all that stands between. Enums are IntEnums with the proto's numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from pydantic import TypeAdapter

T = TypeVar("T")
M = TypeVar("M", bound=Message)


@lru_cache(maxsize=None)
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def from_message(message: Message, cls: type[T]) -> T:
    """The dataclass `cls` with the message's fields; an unset field takes the dataclass's default."""
    plain = MessageToDict(message, preserving_proto_field_name=True, use_integers_for_enums=True)
    return _adapter(cls).validate_python(plain)  # type: ignore[no-any-return]


def to_message(value: Any, cls: type[M]) -> M:
    """The message `cls` with the dataclass's fields; None stays unset."""
    plain = _adapter(type(value)).dump_python(value, mode="json")
    return ParseDict(_without_none(plain), cls())


def to_json(value: Any) -> str:
    """A dataclass as one line of JSON, for a worker process or a stored result."""
    return _adapter(type(value)).dump_json(value).decode()


def from_json(text: str | bytes, cls: type[T]) -> T:
    """The dataclass that `to_json` wrote."""
    return _adapter(cls).validate_json(text)  # type: ignore[no-any-return]


def _without_none(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _without_none(value) for key, value in plain.items() if value is not None}
    if isinstance(plain, list):
        return [_without_none(value) for value in plain]
    return plain
