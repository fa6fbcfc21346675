"""What a person hands to a run: the prompt, files of rows, and the folder for what it leaves.

read_prompt(path)         the prompt's text out of a file
check_prompt(text)        what no prompt may be
store_rows(paths, ...)    the user's files as dataset artifacts
check_out(folder)         a folder that may be written to without losing what is in it
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services.kit.errors import InvalidArgument, NotFound, P2MError, from_os_error

if TYPE_CHECKING:
    from services.kit.settings import Settings
    from services.kit.values import Artifact

MAX_PROMPT_BYTES = 1_000_000


def read_prompt(path: Path) -> str:
    """The prompt in a file. NotFound, or InvalidArgument that says what is wrong with it."""
    if path.is_dir():
        raise InvalidArgument("PROMPT_IS_FOLDER", f"{path} is a folder; wanted a text file with the prompt.")
    try:
        with path.open("rb") as file:
            return decode_prompt(file.read(MAX_PROMPT_BYTES + 1), str(path))
    except FileNotFoundError:
        hint = ' To give the prompt itself, pipe it: echo "..." | p2m run -' if " " in str(path) else ""
        raise NotFound("NO_SUCH_FILE", f"There is no prompt file {str(path)[:200]}.{hint}") from None
    except OSError as error:
        raise from_os_error(error, f"Reading the prompt {str(path)[:200]}") from error


def decode_prompt(data: bytes, name: str) -> str:
    """The prompt out of its bytes; InvalidArgument where it is empty, too long, or no text."""
    if len(data) > MAX_PROMPT_BYTES:
        raise InvalidArgument(
            "PROMPT_TOO_LONG",
            f"The prompt in {name} is longer than {MAX_PROMPT_BYTES:,} bytes. A prompt is an instruction with a few "
            "examples; give many examples as files, with --data.",
        )
    if b"\0" in data:
        raise InvalidArgument("PROMPT_NOT_TEXT", f"The prompt in {name} contains NUL bytes: it is no text file.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            "PROMPT_NOT_UTF8", f"The prompt in {name} is not UTF-8 (byte {error.start + 1}). Save it as UTF-8."
        ) from None
    if not text.strip():
        raise InvalidArgument(
            "PROMPT_EMPTY", f"The prompt in {name} is empty. Write what the model shall do, best with a few examples."
        )
    return text


def store_rows(paths: Sequence[Path], settings: Settings) -> list[Artifact]:
    """Each file or folder of rows as a dataset artifact in the settings' store.

    NotFound and InvalidArgument where a file cannot be read as rows; its message names the file and the line.
    """
    from services.kit.artifacts import Artifacts
    from services.kit.rows import read_files

    artifacts = Artifacts.open(settings, "orchestrator")
    return [artifacts.put_rows(read_files(path)) for path in paths]


def check_out(folder: Path) -> Path:
    """`folder`, where a run's result may go: new, empty, or an earlier run's. InvalidArgument otherwise."""
    try:
        if folder.exists() and not folder.is_dir():
            raise InvalidArgument(
                "OUT_IS_FILE", f"{folder} is a file; wanted a folder for what the run leaves (--out)."
            )
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "run.json").is_file():
            raise InvalidArgument(
                "OUT_NOT_EMPTY",
                f"The folder {folder} holds other files, and they would be replaced. Name a new one with --out.",
            )
    except P2MError:
        raise
    except OSError as error:
        raise from_os_error(error, f"Looking into {folder}") from error
    return folder
