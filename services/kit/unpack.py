"""The bytes of a data file as plain UTF-8: unpacked, by what they are and not by what the name says.

    unpacked(raw, name)      gzip, zstd, bzip2 and xz undone; what is no data file at all is refused
    plain_text(stream, ...)  UTF-8 of text in UTF-8, UTF-16, UTF-32 or Windows-1252, without a byte order mark

Files come from people and from strangers. What unpacks without end is stopped, a damaged archive and a zip that is
called .csv are InvalidArgument with the file's name, what was wanted and what to do.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable
from typing import IO, Any

from services.kit.errors import InvalidArgument

# Text is seldom packed to less than a fiftieth; deflate can reach a thousandth.
MAX_RATIO = 200
FREE_BYTES = 256 << 20
"""So much may be unpacked from whatever there is: the ratio counts from here on."""
PACKED = (".gz", ".zst", ".bz2", ".xz")

_SAMPLE_BYTES = 1 << 18
_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"\x28\xb5\x2f\xfd": lambda raw: _zstd(raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_NO_DATA = {
    b"PK\x03\x04": "is a zip archive (or an Excel file); unpack it, or save it as CSV",
    b"PK\x05\x06": "is an empty zip archive",
    b"7z\xbc\xaf": "is a 7z archive; unpack it",
    b"Rar!": "is a RAR archive; unpack it",
    b"%PDF": "is a PDF",
    b"\xd0\xcf\x11\xe0": "is an old Excel or Word file; save it as CSV",
    b"SQLite format 3": "is a SQLite database; export the table as CSV",
    b"ARROW1": "is an Arrow file; write it as Parquet",
    b"version https://git-lfs": "is a Git LFS pointer and not the file itself; run git lfs pull",
    b"<!doctype html": "is a web page; the download went wrong",
    b"<html": "is a web page; the download went wrong",
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# What Western European text has besides ASCII. Other languages' one-byte texts have runs of such bytes, or others.
_WESTERN = re.compile(r"[À-ÖØ-öø-ÿŒœŠšŽžŸ“”„‘’‚–—…€£©®°§«»¿¡·´¨ºª\xa0]")


def unpacked(raw: IO[bytes], name: str) -> io.BufferedReader:
    """The file's bytes, unpacked where they are packed; `raw` must be seekable.

    InvalidArgument: WRONG_FORMAT of what is no data file; NOT_GZIP and UNPACKS_TOO_FAR, then or while it is read.
    """
    head = raw.read(32)
    raw.seek(0)
    for magic, what in _NO_DATA.items():
        if head.lower().startswith(magic.lower()):
            raise InvalidArgument("WRONG_FORMAT", f"{name} {what}.")
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None and head and name.lower().endswith(PACKED):
        raise InvalidArgument("NOT_GZIP", f"{name} is no packed file, whatever its name says. Fetch or pack it again.")
    if opener is None:
        return io.BufferedReader(_Plain(raw), _SAMPLE_BYTES)
    return io.BufferedReader(_Unpacked(opener(raw), raw, name), _SAMPLE_BYTES)


def plain_text(
    stream: io.BufferedReader, name: str, *, guess: bool, encoding: str = ""
) -> tuple[io.BufferedReader, str]:
    """The stream as UTF-8 without a mark, and the encoding that it was in.

    `guess`: whether text without a mark that is not UTF-8 may be taken for UTF-16 or Windows-1252; of JSON it is not,
    since that is always Unicode and a bad byte there is damage. InvalidArgument (NOT_UTF8) where none fits.
    """
    head = stream.peek(_SAMPLE_BYTES)[:_SAMPLE_BYTES]
    for mark, marked in _MARKS:
        if head.startswith(mark):
            if marked == "utf-8":
                stream.read(len(mark))
                return stream, "utf-8"
            return _transcoded(stream, marked, name), marked
    encoding = _known(encoding)
    if not encoding and guess:
        encoding = _guessed(head, name)
    if encoding in ("", "utf-8", "ascii"):
        return stream, "utf-8"
    return _transcoded(stream, encoding, name), encoding


def _known(encoding: str) -> str:
    """The encoding's usual name; "" where there is no such, or it is none of text."""
    try:
        about = codecs.lookup(encoding)
    except LookupError:
        return ""
    return about.name if about._is_text_encoding else ""


def _guessed(head: bytes, name: str) -> str:
    for place, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) >= 4 and head[place::2].count(0) > 0.4 * len(head) / 2 and head[1 - place :: 2].count(0) == 0:
            return encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        text = head.decode("cp1252", "replace")
        foreign = [character for character in text if not character.isascii()]
        western = sum(bool(_WESTERN.match(character)) for character in foreign)
        if not re.search(rb"[\x80-\xff]{4}", head) and western >= 0.95 * len(foreign):
            return "cp1252"
        raise InvalidArgument(
            "NOT_UTF8", f"{name} is not UTF-8 (byte {error.start + 1}). Save the file as UTF-8."
        ) from error
    return "utf-8"


class _Plain(io.RawIOBase):
    """A raw stream for `BufferedReader`, whatever kind of file object gives it."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = 0) -> int:
        return self._raw.seek(position, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Unpacked(io.RawIOBase):
    """What a packed file holds, as long as it keeps a measure."""

    def __init__(self, inner: Any, raw: IO[bytes], name: str) -> None:
        self._inner = inner
        self._raw = raw
        self._name = name
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except _damages() as error:
            raise self._damaged(error) from error
        except OSError as error:
            # bz2 and zstd say OSError of damage; what the file below says has a number.
            if error.errno is not None:
                raise
            raise self._damaged(error) from error
        self._given += len(data)
        if self._given > FREE_BYTES and self._given > MAX_RATIO * self._raw.tell():
            raise InvalidArgument(
                "UNPACKS_TOO_FAR",
                f"{self._name} unpacks to more than {MAX_RATIO} times its size ({self._given >> 20:,} MiB so far): "
                "no text does. Unpack it yourself if it is meant so.",
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._inner.close()
        self._raw.close()
        super().close()

    def _damaged(self, error: Exception) -> InvalidArgument:
        return InvalidArgument(
            "NOT_GZIP",
            f"{self._name} is no whole packed file ({error or 'it ends too early'}). Fetch or pack it again.",
        )


class _Transcoded(io.RawIOBase):
    """Text of one encoding as UTF-8."""

    def __init__(self, stream: io.BufferedReader, encoding: str, name: str) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder(encoding)().decode
        self._encoding = encoding
        self._name = name
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left and not self._ended:
            data = self._stream.read1(1 << 16)
            self._ended = not data
            try:
                self._left = self._decode(data, self._ended).encode("utf-8", "replace")
            except UnicodeError as error:
                raise InvalidArgument(
                    "NOT_UTF8", f"{self._name} begins as {self._encoding} and is not. Save the file as UTF-8."
                ) from error
        data, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _transcoded(stream: io.BufferedReader, encoding: str, name: str) -> io.BufferedReader:
    return io.BufferedReader(_Transcoded(stream, encoding, name), _SAMPLE_BYTES)


def _zstd(raw: Any) -> Any:
    import pyarrow as pa  # here, so that who reads no such file needs none

    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")


def _damages() -> tuple[type[Exception], ...]:
    """What the unpackers say of damage; Arrow's where it was used."""
    known = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)
    return (*known, sys.modules["pyarrow"].ArrowException) if "pyarrow" in sys.modules else known
