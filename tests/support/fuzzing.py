"""Messages drawn at random from their descriptors: mostly what could be meant, with something in it that could not.

    Drawing(seed, pools).message(descriptor)     a message; the same seed draws the same ones
    bent(rng, data)                              bytes that were a message once

`pools` names values that are good for a field, by the field's name or by message and field.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Pools = Mapping[str, Sequence[Any]]

_TEXTS = (
    "", " ", "\0", "a\0b", "\ufeff", "\u202etxt.exe", "\uffff", "\U0010ffff", "e" + "\u0301" * 300, "😀",
    "NaN", "None", "-1", "inf", "1e999", "次の文の感情を答えてください。", "لخص النص التالي", "\r\n\r\n",
    "../../etc/passwd", "/", "..", "a/../b", "//", "~", "%s%n%d", "{}", "'; DROP TABLE p2m_runs; --", "$(touch x)",
    "<script>alert(1)</script>", "p2m://x/blobs/sha256/" + "0" * 64, "p2m://../blobs/sha256/" + "f" * 64,
    "folder:/", "folder:/proc/self", "package:os/../..", "hub:a/b@c", "file:///etc/passwd", '{"topics": 1}',
    "a" * 101, "x" * 401, "y" * 1_001, "z" * 20_000, "ä" * 200_001,
)  # fmt: skip
_WHOLE = (0, 1, -1, 2, 3, 7, 100, 1_001, 2**31 - 1, -(2**31))
_LARGE = (2**31, 2**53 + 1, 2**63 - 1, -(2**63))
_REAL = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"), 5e-5, 3.0)


class Drawing:
    """Draws messages. `wild` is how many fields in a hundred take what is not meant."""

    def __init__(self, rng: random.Random, pools: Pools, wild: float) -> None:
        self._rng = rng
        self._pools = pools
        self._wild = wild

    def message(self, descriptor: Descriptor, depth: int = 0) -> Message:
        """A message of this type, each of its fields set or not."""
        message = message_factory.GetMessageClass(descriptor)()
        for field in descriptor.fields:
            keep = 0.97 if field.name in ("request_id", "name", "spec", "prompt", "instruction", "uri") else 0.6
            if self._rng.random() < keep:
                self._fill(message, field, depth)
        return message

    def _fill(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        where = getattr(message, field.name) if field.is_repeated else None
        if where is not None and field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name
            for _ in range(self._count()):
                where[str(self._value(entry["key"]))] = self._value(entry["value"])
        elif where is not None and field.message_type is not None:
            where.extend(self.message(field.message_type, depth + 1) for _ in range(self._count()))
        elif where is not None:
            where.extend(self._value(field) for _ in range(self._count()))
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(self.message(field.message_type, depth + 1))
        else:
            setattr(message, field.name, self._value(field))

    def _count(self) -> int:
        if self._rng.random() < self._wild / 10:
            return self._rng.choice((50, 101, 1_001))
        return self._rng.choice((0, 1, 1, 2, 3))

    def _value(self, field: FieldDescriptor) -> Any:
        assert field.containing_type is not None
        meant = self._pools.get(f"{field.containing_type.name}.{field.name}") or self._pools.get(field.name)
        if meant and self._rng.random() >= self._wild:
            return self._rng.choice(meant)
        return self._odd(field)

    def _odd(self, field: FieldDescriptor) -> Any:
        rng = self._rng
        if field.type == FieldDescriptor.TYPE_BOOL:
            return rng.random() < 0.5
        if field.type == FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None
            known = sorted(field.enum_type.values_by_number)
            return rng.choice((-1, 99, 2**31 - 1)) if rng.random() < self._wild else rng.choice(known)
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return rng.choice(_REAL) if rng.random() < 0.7 else rng.uniform(-10, 1e6)
        if field.type == FieldDescriptor.TYPE_STRING:
            return rng.choice(_TEXTS) if rng.random() < 0.8 else "".join(map(chr, rng.choices(range(1, 0xD7FF), k=30)))
        wide = field.type == FieldDescriptor.TYPE_INT64
        return rng.choice((*_WHOLE, *_LARGE) if wide else _WHOLE) if rng.random() < 0.7 else rng.randrange(-5, 5_000)


def bent(rng: random.Random, data: bytes) -> bytes:
    """The bytes with a few of them flipped, cut off, repeated or put in between."""
    raw = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(raw) + 1)
        deed = rng.randrange(4)
        if deed == 0 and raw:
            raw[at % len(raw)] ^= 1 << rng.randrange(8)
        elif deed == 1:
            del raw[at:]
        elif deed == 2:
            raw[at:at] = rng.randbytes(rng.randrange(1, 20))
        else:
            raw += raw[at:]
    return bytes(raw[: 1 << 20])
