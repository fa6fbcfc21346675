"""What an overlay of deploy/ applies, and what its network policies let through.

rendered("trial")                the objects, as kubectl's own Kustomize makes them
one(objects, "Deployment", "parser")
lets(objects, "generator", "trainer", 50055)     whether pods of one part may speak to another's port
"""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
Objects = list[dict[str, Any]]


def kubectl() -> str:
    """The one that the environment's packages bring, so that all see the same."""
    return str(Path(sys.executable).with_name("kubectl"))


@cache
def _text(overlay: str) -> str:
    made = subprocess.run(
        [kubectl(), "kustomize", str(DEPLOY / "overlays" / overlay)], capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


def rendered(overlay: str) -> Objects:
    """All objects of an overlay."""
    return list(yaml.safe_load_all(_text(overlay)))


def of_kind(objects: Objects, kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def one(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    """An object."""
    return of_kind(objects, kind)[name]


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """The pod templates, by what makes the pods."""
    kinds = ("Deployment", "StatefulSet", "Job")
    found = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] in kinds}
    found |= {name: one["spec"]["jobTemplate"]["spec"] for name, one in of_kind(objects, "CronJob").items()}
    return {name: spec["template"] for name, spec in found.items()}


def container(template: dict[str, Any]) -> dict[str, Any]:
    """A pod's only container."""
    (found,) = template["spec"]["containers"]
    return dict(found)


def lets(objects: Objects, source: str, target: str, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies let a part's pods speak to another's; `target` may be an address instead."""
    labels = {name: template["metadata"]["labels"] for name, template in pods(objects).items()}
    policies = [one["spec"] for one in objects if one["kind"] == "NetworkPolicy"]
    out = _allowed(policies, "Egress", labels[source], target, labels.get(target), port, protocol)
    if target not in labels:
        return out
    return out and _allowed(policies, "Ingress", labels[target], source, labels[source], port, protocol)


def _allowed(
    policies: list[dict[str, Any]], way: str, mine: dict[str, str], name: str, peer: dict[str, str] | None,
    port: int, protocol: str,
) -> bool:  # fmt: skip
    concerning = [one for one in policies if way in one["policyTypes"] and _selects(one["podSelector"], mine)]
    rules = [rule for one in concerning for rule in one.get(way.lower(), [])]
    peers = "to" if way == "Egress" else "from"
    return not concerning or any(
        _ports(rule.get("ports"), port, protocol) and _peers(rule.get(peers), name, peer) for rule in rules
    )


def _ports(ports: list[dict[str, Any]] | None, port: int, protocol: str) -> bool:
    return ports is None or any(
        one.get("protocol", "TCP") == protocol and one["port"] <= port <= one.get("endPort", one["port"])
        for one in ports
    )


def _peers(peers: list[dict[str, Any]] | None, name: str, labels: dict[str, str] | None) -> bool:
    return peers is None or any(_is(one, name, labels) for one in peers)


def _is(peer: dict[str, Any], name: str, labels: dict[str, str] | None) -> bool:
    if "ipBlock" in peer:
        # Addresses of pods are not told by blocks: a cluster's own networks are private.
        block = peer["ipBlock"]
        address = ipaddress.ip_address(name if labels is None else "10.1.2.3")
        within = address in ipaddress.ip_network(block["cidr"])
        return within and not any(address in ipaddress.ip_network(one) for one in block.get("except", []))
    if labels is None or "namespaceSelector" in peer:
        return False
    return _selects(peer["podSelector"], labels)


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    among = (one for one in selector.get("matchExpressions", []))
    return wanted and all(one["operator"] == "In" and labels.get(one["key"]) in one["values"] for one in among)
