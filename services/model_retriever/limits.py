"""What a model must satisfy: size, time of an answer, licence, languages; and that the trainer can use it.

    checked(constraints)                 refuses what is no constraint
    Limits(index, constraints, settings)
        .allowed                         [entries], true where nothing known speaks against a model
        .reachable(number, entry)        whether it can be had from here; asked of the few that would be shown
        .refusal(number, entry)          why a model is left out, one sentence
        .flags(number, entry)            what is not known of it, one sentence each

A fact that is not known keeps a model in, and is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catalogue import architectures, languages
from catalogue.models import unfit
from services.kit import licences, locations
from services.kit.errors import InvalidArgument
from services.kit.index import Index
from services.kit.settings import Settings
from services.model_retriever.latency import TOKENS_WRITTEN, cpu_latency_ms

MAX_SIZE_BYTES = 3_000_000_000
NO_ARCHITECTURE = (
    "Its card does not name the architecture; an encoder-decoder is assumed and checked when it is loaded."
)

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Constraints:
    """What a model must satisfy, with the fields of the proto's message."""

    max_size_bytes: int = 0
    """Bytes of weights; 0: 3 GB."""
    model: str = ""
    """This one alone; "": any."""
    cpu_latency_ms: float = 0.0
    """Milliseconds of one answer, as estimated; 0: any."""
    licence: str = ""
    """As services/kit/licences.py has it; "": any."""
    languages: tuple[str, ...] = ()
    """ISO 639-1, each of them wanted."""


def checked(constraints: Constraints) -> Constraints:
    """The constraints, languages as codes; InvalidArgument names the field that is none."""
    if constraints.max_size_bytes < 0:
        raise InvalidArgument("BAD_SIZE", "max_size_bytes is negative.", field="constraints.max_size_bytes")
    if not (math.isfinite(constraints.cpu_latency_ms) and constraints.cpu_latency_ms >= 0):
        raise InvalidArgument(
            "BAD_LATENCY", f"cpu_latency_ms is {constraints.cpu_latency_ms}; wanted milliseconds, 0 or more.",
            field="constraints.cpu_latency_ms",
        )  # fmt: skip
    if constraints.licence:
        licences.check_wanted(constraints.licence, "constraints.licence")
    codes = []
    for language in constraints.languages:
        if not (code := languages.known((language,))):
            raise InvalidArgument(
                "BAD_LANGUAGE", f"{language[:40]!r} is no language: wanted an ISO 639-1 code, such as en or ja.",
                field="constraints.languages",
            )  # fmt: skip
        codes += code
    return Constraints(
        constraints.max_size_bytes or MAX_SIZE_BYTES,
        constraints.model,
        constraints.cpu_latency_ms,
        constraints.licence,
        tuple(dict.fromkeys(codes)),
    )


class Facts:
    """What limits look at, of one index, read once."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.size_bytes = index.fact("size_bytes")
        self.parameters = index.fact("parameters")
        self.unfit: _Mask = index.fact("unfit") > 0
        self.located: _Mask = index.fact("located") > 0
        self._licence = index.fact("licence")
        self._languages = [index.fact(f"languages_{place}") for place in range(languages.BITS)]
        self._licences: tuple[list[str], npt.NDArray[np.int64]] | None = None

    def licence(self, number: int) -> str:
        """The licence of the model with this number; "" where it is not known."""
        return bytes(self._licence[number]).decode(errors="replace")

    def languages(self, number: int) -> tuple[str, ...]:
        """Its languages, in no order of importance; none where they are not known."""
        return languages.of_bits(*(int(column[number]) for column in self._languages))

    def licensed(self, wanted: str) -> _Mask:
        """Where the licence does not say no."""
        if self._licences is None:
            distinct, inverse = np.unique(self._licence, return_inverse=True)
            self._licences = [bytes(name).decode(errors="replace") for name in distinct], inverse.reshape(-1)
        names, which = self._licences
        verdicts = np.asarray([licences.allows(name, wanted) is not False for name in names], np.bool_)
        found: _Mask = verdicts[which]
        return found

    def speaks(self, codes: Sequence[str]) -> _Mask:
        """Where the model knows all of these languages, or is multilingual, or says nothing of languages."""
        knows = np.ones(len(self.index), np.bool_)
        many, says = np.zeros_like(knows), np.zeros_like(knows)
        bits = zip(self._languages, languages.bits(codes), languages.bits((languages.MULTILINGUAL,)), strict=True)
        for column, wanted, multilingual in bits:
            knows &= (column & np.uint64(wanted)) == np.uint64(wanted)
            many |= (column & np.uint64(multilingual)) > 0
            says |= column > 0
        return knows | many | ~says


class Limits:
    """Checked constraints, on the models of an index."""

    def __init__(self, facts: Facts, constraints: Constraints, settings: Settings) -> None:
        self._facts, self._constraints, self._settings = facts, constraints, settings

    def allowed(self) -> _Mask:
        """[entries], true where nothing known speaks against a model. Of located ones `reachable` is still to ask."""
        facts, wanted = self._facts, self._constraints
        allowed: _Mask = ~facts.unfit & (facts.size_bytes <= wanted.max_size_bytes)
        if wanted.licence:
            allowed &= facts.licensed(wanted.licence)
        if wanted.languages:
            allowed &= facts.speaks(wanted.languages)
        if wanted.cpu_latency_ms:
            allowed &= cpu_latency_ms(facts.parameters) <= wanted.cpu_latency_ms
        if self._settings.hub_offline:
            allowed &= facts.located | self._downloaded()
        return allowed

    def too_fast(self) -> str:
        """What could be asked for instead, one sentence, where no model is fast enough; "" where one is."""
        known = self._facts.parameters[self._facts.parameters > 0]
        least = float(cpu_latency_ms(known.min())) if len(known) else 0.0
        if not 0 < self._constraints.cpu_latency_ms < least:
            return ""
        return (
            f"No model answers within {self._constraints.cpu_latency_ms:,.0f} ms. That is estimated for an answer of "
            f"{TOKENS_WRITTEN} tokens on one CPU; the catalogue's smallest takes about {least:,.0f} ms."
        )

    def refusal(self, number: int | None, entry: Mapping[str, Any]) -> str:
        """Why the model is left out; "" where nothing known speaks against it. `number`: None of one not indexed."""
        wanted = self._constraints
        size, location = entry.get("size_bytes") or 0, location_of(entry)
        if size > wanted.max_size_bytes:
            return f"Its weights take {size / 1e9:.2f} GB; the limit is {wanted.max_size_bytes / 1e9:.2f} GB."
        if kind := unfit(entry):
            return _unfit(kind, entry)
        reason = "" if number is None else self._beyond(number)
        if reason or locations.reachable(location, self._settings):
            return reason
        return _out_of_reach(location)

    def flags(self, number: int | None, entry: Mapping[str, Any]) -> tuple[str, ...]:
        """What is not known of the model and is asked for; then what the trainer has to check."""
        facts, wanted, said = self._facts, self._constraints, []
        if number is not None:
            spoken = facts.languages(number) if wanted.languages else ()
            missing = [code for code in wanted.languages if code not in spoken]
            if missing:
                names = " and ".join(languages.NAMES.get(code, code) for code in missing)
                what = "is multilingual and does not name" if spoken else "says nothing of languages, so not of"
                said.append(f"Its card {what} {names}.")
            if wanted.licence and licences.allows(facts.licence(number), wanted.licence) is None:
                shown = facts.licence(number)
                said.append(f"Its licence is {shown!r}, which is not known." if shown else "Its licence is not known.")
            if wanted.cpu_latency_ms and not facts.parameters[number]:
                said.append("How long it takes to answer is not known, since its size is not.")
        return (*said, *unknowns(entry))

    def _beyond(self, number: int) -> str:
        facts, wanted = self._facts, self._constraints
        latency = float(cpu_latency_ms(facts.parameters[number]))
        if wanted.cpu_latency_ms and latency > wanted.cpu_latency_ms:
            millions = facts.parameters[number] / 1e6
            return (
                f"With its {millions:,.0f} million weights an answer takes about {latency:,.0f} ms on a CPU; "
                f"the limit is {wanted.cpu_latency_ms:,.0f} ms."
            )
        if wanted.licence and licences.allows(facts.licence(number), wanted.licence) is False:
            return f"Its licence is {facts.licence(number)}; wanted {wanted.licence}."
        spoken = facts.languages(number)
        if wanted.languages and spoken and languages.MULTILINGUAL not in spoken:
            missing = [code for code in wanted.languages if code not in spoken]
            if missing:
                return f"It is for {', '.join(spoken[:8])}; wanted {', '.join(missing)}."
        return ""

    def _downloaded(self) -> _Mask:
        """Hub models of which this machine's cache has a folder."""
        here = np.zeros(len(self._facts.index), np.bool_)
        for name in locations.cached_names(self._settings):
            number = self._facts.index.number(name)
            if number is not None:
                here[number] = True
        return here


def location_of(entry: Mapping[str, Any]) -> str:
    """What the trainer loads: the entry's own location, else its id on the hub."""
    return entry.get("location") or f"hub:{entry['id']}"


def architecture_of(entry: Mapping[str, Any]) -> str:
    """The kind of training that fits, as far as the entry tells."""
    return entry.get("architecture") or architectures.kind({"model_type": entry.get("model_type")})


def unknowns(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """What the card does not say, one sentence each; it is checked before the model is downloaded."""
    said = []
    if not entry.get("size_bytes"):
        said.append("Its size is not known; it is checked before the download.")
    if entry.get("safetensors") is None and location_of(entry).startswith("hub:"):
        said.append("Whether it has safetensors weights is not known; it is checked before the download.")
    if not architecture_of(entry):
        said.append(NO_ARCHITECTURE)
    return tuple(said)


def _unfit(kind: str, entry: Mapping[str, Any]) -> str:
    if entry.get("safetensors") is False:
        return "It has no safetensors weights; other formats can run code and are not read."
    if entry.get("architecture"):
        return f"Its architecture is not supported: {kind}; wanted {', '.join(architectures.KINDS)}."
    return f"Its architecture is not supported: {kind}; wanted one that reads and writes text."


def _out_of_reach(location: str) -> str:
    kind, rest = locations.split(location)
    if kind == "hub":
        return "It is not on this machine, and the hub is switched off."
    return f"There is no {'Python package' if kind == 'package' else 'model folder'} {rest} on this machine."
