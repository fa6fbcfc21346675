"""Proto messages <-> plain dataclasses, by field name.

An implementation takes and returns dataclasses whose fields are named as in the proto; `from_message` and `to_message`
are all that stands between. Enums are IntEnums with the proto's numbers. A number that JSON has no word for (NaN, the
infinities) travels as the text that proto's JSON has for it: a loss that is not a number must not stop its report.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from pydantic import TypeAdapter, ValidationError

from services.kit.errors import InvalidArgument

T = TypeVar("T")
M = TypeVar("M", bound=Message)


def from_message(message: Message, cls: type[T]) -> T:
    """The dataclass `cls` with the message's fields; an unset field takes the dataclass's default.

    InvalidArgument where a field holds what `cls` has no value for, as an enum's number from a newer version.
    """
    plain = MessageToDict(message, preserving_proto_field_name=True, use_integers_for_enums=True)
    try:
        return cast(T, _adapter(cls).validate_python(plain))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        given = repr(first["input"])[:80]
        message_type = message.DESCRIPTOR.name
        raise InvalidArgument(
            "BAD_FIELD", f"{message_type}.{field} is {given}: {first['msg'][:200]}.", field=field
        ) from error


def to_message(value: Any, cls: type[M]) -> M:
    """The message `cls` with the dataclass's fields; None stays unset."""
    return ParseDict(_without_none(_plain(value)), cls())


def to_json(value: Any) -> str:
    """A dataclass as one line of JSON, for a worker process or a stored result."""
    return json.dumps(_plain(value))


def from_json(text: str | bytes, cls: type[T]) -> T:
    """The dataclass that `to_json` wrote."""
    return cast(T, _adapter(cls).validate_json(text))


def _plain(value: Any) -> Any:
    return _spelt_out(_adapter(type(value)).dump_python(value, mode="json"))


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def _spelt_out(plain: Any) -> Any:
    if isinstance(plain, float):
        return plain if math.isfinite(plain) else "NaN" if plain != plain else "Infinity" if plain > 0 else "-Infinity"
    if isinstance(plain, dict):
        return {key: _spelt_out(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_spelt_out(value) for value in plain]
    return plain


def _without_none(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _without_none(value) for key, value in plain.items() if value is not None}
    if isinstance(plain, list):
        return [_without_none(value) for value in plain]
    return plain
