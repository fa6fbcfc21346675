"""What can be seen on this machine without asking anybody."""

from __future__ import annotations

import datetime
import difflib
import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from orchestrator.amounts import bytes_text
from orchestrator.doctor.finding import Finding, ok, warning, wrong
from orchestrator.gc import retention
from services.kit.errors import P2MError
from services.kit.security import uses_tls
from services.kit.settings import RUN_PORT, SERVICES, Settings, port_of

# Variables that are no settings.
_OTHERS = ("P2M_SECRETS", "P2M_DEMO_PASSWORD", "P2M_SERVE_TOKEN")
_SOON = datetime.timedelta(days=14)
_LITTLE_DISK, _SOME_DISK = 1e9, 5e9
_LITTLE_MEMORY, _SOME_MEMORY = 1e9, 3e9
# A module that only this extra brings, by extra.
_EXTRAS = {
    "llm": "openai", "parser": "lingua", "dataset_retriever": "bm25s", "generator": "datasketch",
    "model_retriever": "rank_bm25", "trainer": "torch", "evaluator": "sacrebleu", "demo": "gradio", "serve": "fastapi",
    "offline": "xllamacpp",
}  # fmt: skip
_NEEDED = ("llm", "dataset_retriever", "generator", "trainer", "evaluator")


def variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Names that look like settings and are none: a mistyped one does nothing, and says nothing."""
    known = {f"P2M_{name.upper()}" for name in Settings.model_fields} | {*_OTHERS}
    unknown = [name for name in environment if name.startswith("P2M_") and name not in known]
    for name in sorted(unknown):
        near = difflib.get_close_matches(name, known, 1)
        yield warning("settings", f"{name} is no setting", f"Did you mean {near[0]}?" if near else f"Unset {name}.")
    if not unknown:
        yield ok("settings", "all are known and can be read")


def kept(settings: Settings) -> Iterator[Finding]:
    """P2M_RETENTION, where it is set."""
    try:
        retention.parse(settings.retention)
    except P2MError as error:
        yield wrong("retention", error.message, "Mend P2M_RETENTION; p2m gc needs it.")


def secrets(folder: str) -> Iterator[Finding]:
    """The folder that P2M_SECRETS names, where it is set."""
    if not folder:
        return
    path = Path(folder)
    try:
        files = [file for file in path.iterdir() if file.is_file()]
        for file in files:
            with file.open("rb"):
                pass
    except OSError as error:
        yield wrong("secrets", f"{error.filename or path} cannot be read: {error.strerror}", "Mend it or P2M_SECRETS.")
        return
    open_ones = sorted(file.name for file in files if stat.S_IMODE(file.stat().st_mode) & 0o007)
    if open_ones:
        names = ", ".join(open_ones[:5])
        yield warning("secrets", f"anybody on this machine reads {names}", f"chmod o-rwx the files in {path}.")
    else:
        yield ok("secrets", f"{len(files)} files in {path}")


def tls(settings: Settings) -> Iterator[Finding]:
    """The three TLS files: there, fitting each other, and in their time."""
    try:
        if not uses_tls(settings):
            yield ok("tls", "off: only this machine can connect")
            return
    except P2MError as error:
        yield wrong("tls", error.message, "Set all three variables, or none.")
        return
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    assert settings.tls_ca and settings.tls_certificate and settings.tls_key
    try:
        authorities = x509.load_pem_x509_certificates(settings.tls_ca.read_bytes())
        own = x509.load_pem_x509_certificates(settings.tls_certificate.read_bytes())[0]
        key = load_pem_private_key(settings.tls_key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        yield wrong("tls", f"a TLS file cannot be read: {error}", "Wanted PEM files: authority, certificate, its key.")
        return
    if key.public_key() != own.public_key():
        yield wrong("tls", "P2M_TLS_KEY is not the key of P2M_TLS_CERTIFICATE", "Name the two that belong together.")
        return
    if not any(_signed(own, authority) for authority in authorities):
        yield wrong("tls", "P2M_TLS_CA has not signed P2M_TLS_CERTIFICATE", "Name the authority that signed it.")
        return
    now = datetime.datetime.now(datetime.UTC)
    for name, one in [("certificate", own), *(("authority", authority) for authority in authorities)]:
        day = f"{one.not_valid_after_utc:%Y-%m-%d}"
        if not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            yield wrong("tls", f"the {name} is out of its time (to {day})", "Renew it; see docs/operations.md.")
        elif one.not_valid_after_utc - now < _SOON:
            yield warning("tls", f"the {name} ends on {day}", "Renew it; no restart is needed.")
        else:
            yield ok("tls", f"the {name} is good until {day}")


def _signed(own: object, authority: object) -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    assert isinstance(own, x509.Certificate) and isinstance(authority, x509.Certificate)
    try:
        own.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def ports(settings: Settings) -> Iterator[Finding]:
    """The ports that `p2m up` binds."""
    taken = []
    for name, port in [("run", RUN_PORT), *((name, port_of(name)) for name in SERVICES)]:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind((settings.host, port))
            except OSError as error:
                taken.append(f"{port} ({name}): {error.strerror}")
    if taken:
        todo = "Only p2m up needs them: is one running already? Then use it: --connect 127.0.0.1:50050."
        yield warning("ports", f"not free at {settings.host}: {'; '.join(taken)}", todo)
    else:
        yield ok("ports", f"{RUN_PORT} to {RUN_PORT + len(SERVICES)} are free")


def disk(settings: Settings) -> Iterator[Finding]:
    """Free space of the home, and whether it can be written."""
    home = settings.home_folder
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        yield wrong("home", f"{home} cannot be written", "Set P2M_HOME to a folder of yours.")
        return
    free = shutil.disk_usage(there).free
    told = f"{bytes_text(free)} free at {home}"
    todo = "Make room: p2m gc --dry-run tells what could go. A run needs some GB."
    yield (
        wrong("disk", told, todo)
        if free < _LITTLE_DISK
        else (warning("disk", told, todo) if free < _SOME_DISK else ok("disk", told))
    )


def memory() -> Iterator[Finding]:
    """Memory that a training could have: the machine's, or this container's."""
    free = _available()
    if free is None:
        return
    told, todo = (
        f"{bytes_text(free)} available",
        "Training needs some GB: end other programs, or --max-size 100MB.",
    )
    yield (
        wrong("memory", told, todo)
        if free < _LITTLE_MEMORY
        else (warning("memory", told, todo) if free < _SOME_MEMORY else ok("memory", told))
    )


def _available() -> float | None:
    found: list[float] = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            found.append(float(limit) - float(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError, IndexError):
        pass
    return min(found, default=None)


def packages() -> Iterator[Finding]:
    """Which extras are installed."""
    absent = [extra for extra, module in _EXTRAS.items() if find_spec(module) is None]
    if not absent:
        yield ok("packages", "all extras are installed")
        return
    told = f"not installed: {', '.join(absent)}"
    needed = [extra for extra in absent if extra in _NEEDED]
    todo = f"pip install 'p2m[{','.join(needed or absent)}]'; with --connect the services have them."
    yield wrong("packages", told, todo) if needed else warning("packages", told, todo)
