"""What one installation needs before its first start: certificates, passwords, and who may touch what in the store.

    python -m services.kit.installation write FOLDER [--owner UID]
    python -m services.kit.installation bucket

The first writes what follows; the second, with the administrator's keys, makes the store's bucket. Each part gets a
folder FOLDER/<part> with what is its own, and no other part's folder needs to be shown to it:

    authority                   the authority that signed all certificates, with its key
    parser, trainer, ...        ca.pem, certificate.pem, key.pem, and one file per secret setting (P2M_SECRETS)
    client, demo                the same for a person's `p2m --connect` and for the page
    admin                       the same, with keys to all of the store and the database, for `p2m gc`
    object-store                s3.json (identities), security.toml
    postgres                    password

Secrets are drawn once and kept; certificates are renewed at every run. Keys of others (OPENAI_API_KEY, DEEPL_API_KEY,
HF_TOKEN, from the environment or the file that <NAME>_FILE names) go to the parts that use them and to no other.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from pathlib import Path

from services.kit.artifacts import open_store
from services.kit.authority import Authority
from services.kit.settings import Settings

BUCKET = "p2m"
# A part's name on the network, and the store's prefix that it writes under.
PREFIXES = {
    "parser": "parser",
    "dataset-retriever": "dataset_retriever",
    "generator": "generator",
    "model-retriever": "model_retriever",
    "trainer": "trainer",
    "evaluator": "evaluator",
    "orchestrator": "run",
    # A person's own data, which the parts that a run leads it to read.
    "client": "orchestrator",
    "demo": "demo",
}
# Who may do everything in the store: makes its bucket, and removes what no run names any more.
ADMIN = "admin"
# Whose prefixes each part must read besides its own.
_READS = {
    "dataset-retriever": ("orchestrator", "run", "catalogue"),
    "generator": ("orchestrator", "run", "dataset_retriever"),
    "model-retriever": ("catalogue",),
    "trainer": ("orchestrator", "run", "dataset_retriever", "generator"),
    "evaluator": ("orchestrator", "run", "trainer"),
    "orchestrator": (
        "orchestrator",
        "parser",
        "dataset_retriever",
        "generator",
        "model_retriever",
        "trainer",
        "evaluator",
    ),
    "client": ("run", "dataset_retriever", "generator", "trainer", "evaluator"),
    "demo": ("orchestrator", "run", "trainer", "evaluator"),
}
# Parts that call the LLM, that translate, and that fetch from the hub.
_KEYS = {
    "openai_api_key": ("parser", "dataset-retriever", "generator", "model-retriever", "evaluator"),
    "deepl_api_key": ("parser",),
    "hf_token": ("dataset-retriever", "model-retriever", "trainer"),
}
_RUN_TOKEN = ("orchestrator", "client", "demo", ADMIN)


def install(folder: Path, database_host: str = "postgres") -> None:
    """Writes every part's folder; what is there already is kept, but for the certificates and the keys of others."""
    authority = Authority(folder / "authority")
    token = _drawn(folder / "client" / "p2m_token")
    for part in (*PREFIXES, ADMIN):
        own = folder / part
        own.mkdir(parents=True, exist_ok=True)
        for file in authority.issue(part).iterdir():
            (own / file.name).write_bytes(file.read_bytes())
        if part in _RUN_TOKEN:
            _write(own / "p2m_token", token)
    password = _drawn(folder / "postgres" / "password")
    for part in ("orchestrator", ADMIN):
        _write(folder / part / "p2m_database", f"postgresql+psycopg://p2m:{password}@{database_host}:5432/p2m")
    for name, parts in _KEYS.items():
        for part in parts:
            _write(folder / part / name, _given(name.upper()))
    _write_store(folder)


def make_bucket(settings: Settings) -> None:
    """Makes the store's bucket with the administrator's keys; the other parts' may not."""
    open_store(settings).put("installation/bucket", b"made by the first start")


def _write_store(folder: Path) -> None:
    """An identity for each part: it writes under its own prefix and reads what it must; one administrator."""
    identities = []
    actions = {part: _actions(prefix, _READS.get(part, ())) for part, prefix in PREFIXES.items()}
    for part, allowed in (actions | {ADMIN: ["Admin", "Read", "Write", "List", "Tagging"]}).items():
        _write(folder / part / "p2m_s3_access_key", part)
        identities.append(_identity(part, _drawn(folder / part / "p2m_s3_secret_key"), allowed))
    store = folder / "object-store"
    _write(store / "s3.json", json.dumps({"identities": identities}, indent=1))
    if not (store / "security.toml").exists():
        # Without these keys the filer, which lies under the S3 gateway, gives every object to anyone who asks.
        sections = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
        key = secrets.token_hex(24)
        _write(store / "security.toml", "".join(f'[{name}]\nkey = "{key}"\n' for name in sections))


def _identity(name: str, secret: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": name, "secretKey": secret}], "actions": actions}


def _actions(prefix: str, reads: tuple[str, ...]) -> list[str]:
    """SeaweedFS's names for what may be done under which prefix."""
    own = [f"{action}:{BUCKET}/{prefix}/*" for action in ("Read", "Write")]
    others = [f"Read:{BUCKET}/{other}/*" for other in reads if other != prefix]
    # Names of objects are no secret: they are digests.
    return [*own, *others, f"List:{BUCKET}"]


def _given(name: str) -> str:
    """A key of somebody else's: from the file that <NAME>_FILE names, else from the environment."""
    file = os.environ.get(f"{name}_FILE")
    return Path(file).read_text(encoding="utf-8").strip() if file else os.environ.get(name, "")


def _drawn(path: Path) -> str:
    """The secret in the file, drawn where there is none yet."""
    if not path.exists():
        _write(path, secrets.token_hex(24))
    return path.read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main() -> int:
    """Does what the first argument says; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    write = steps.add_parser("write")
    write.add_argument("folder", type=Path)
    write.add_argument("--owner", type=int, default=-1, metavar="UID", help="whose the parts' files are to be")
    steps.add_parser("bucket")
    args = parser.parse_args()
    if args.step == "bucket":
        make_bucket(Settings())
        return 0
    os.umask(0o077)
    install(args.folder)
    for part in (*PREFIXES, ADMIN):
        for path in (args.folder / part, *(args.folder / part).iterdir()):
            os.chown(path, args.owner, args.owner)
    # These two run as users that their images choose, and each has its folder to itself.
    for part in ("object-store", "postgres"):
        for path in (args.folder / part, *(args.folder / part).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    return 0


if __name__ == "__main__":
    sys.exit(main())
