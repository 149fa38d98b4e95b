"""A stand-in for W&B's server, on this machine: it notes what the real client sends, and keeps its artifacts."""

import base64
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KEY = "0123456789" * 4
NOW = "2026-01-01T00:00:00Z"

RUN: dict[str, Any] = {
    "id": "UnVuOjE=",
    "name": "r1",
    "displayName": "init=he",
    "state": "finished",
    "tags": [],
    "config": "{}",
    "systemMetrics": "{}",
    "summaryMetrics": json.dumps({"val/psnr": {"max": 31.0}, "pictures/chelsea": {"path": "x.png"}}),
    "createdAt": NOW,
    "historyLineCount": 1,
}
VIEWER: dict[str, Any] = {
    "id": "VXNlcjox",
    "entity": "me",
    "username": "me",
    "email": None,
    "flags": "{}",
    "teams": {"edges": []},
}
VIEW = {
    "id": "Vmlldzox",
    "type": "runs",
    "name": "abc",
    "displayName": "upsweep",
    "description": "",
    "project": {"id": "UDox", "name": "mine", "entityName": "me"},
    "createdAt": "2026-01-01T00:00:00",
    "updatedAt": "2026-01-01T00:00:00",
    "spec": '{"blocks": []}',
    "previewUrl": None,
    "user": {"name": "me", "username": "me", "userInfo": {}},
}
BUCKET = {
    "id": "UnVuOjE=",
    "name": "r1",
    "displayName": "r1",
    "description": None,
    "config": "{}",
    "sweepName": None,
    "project": {"id": "UDox", "name": "mine", "entity": {"id": "RTox", "name": "me"}},
    "historyLineCount": 0,
}
PROJECT = {
    "id": "UDox",
    "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ==",
    "name": "mine",
    "entityName": "me",
    "createdAt": "2026-01-01T00:00:00",
    "isBenchmark": False,
    "user": None,
}
ORGANIZATION = {"name": "Our Lab", "orgEntity": {"name": "our-lab"}}
NO_MORE = {"hasNextPage": False, "endCursor": None}


@dataclass
class Kept:
    """A version of an artifact."""

    id: str
    collection: str
    kind: str
    version: int
    digest: str
    metadata: dict[str, Any]
    aliases: list[str]
    manifest: dict[str, Any] = field(default_factory=dict)
    committed: bool = False

    @property
    def entries(self) -> dict[str, Any]:
        """Of its manifest: path -> digest, reference, ..."""
        contents: dict[str, Any] = self.manifest["contents"]
        return contents

    def node(self, collection: dict[str, Any]) -> dict[str, Any]:
        """As GraphQL tells it."""
        return {
            "__typename": "Artifact",
            "id": self.id,
            "artifactSequence": collection,
            "versionIndex": self.version,
            "artifactType": {"name": self.kind},
            "description": None,
            "metadata": json.dumps(self.metadata),
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": "COMMITTED" if self.committed else "PENDING",
            "size": 1,
            "digest": self.digest,
            "digestAlgorithm": "MANIFEST_MD5",
            "commitHash": self.id,
            "fileCount": 1,
            "createdAt": NOW,
            "updatedAt": NOW,
            "aliases": [{**_alias(alias), "artifactCollection": collection} for alias in self.aliases],
        }


def _alias(alias: str) -> dict[str, str]:
    return {"__typename": "ArtifactAlias", "id": alias, "alias": alias}


def _collection(name: str, project: str = "mine", entity: str = "me") -> dict[str, Any]:
    place = {"id": "UDox", "internalId": PROJECT["internalId"], "name": project, "entity": {"name": entity}}
    return {"__typename": "ArtifactSequence", "name": name, "project": place}


class Loopback:
    """W&B's server, as far as the client asks for it: answers GraphQL by the operation's name, takes every file."""

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.paths: list[str] = []
        self.streamed: list[dict[str, Any]] = []
        self.artifacts: list[Kept] = []
        self.files: dict[str, bytes] = {}  # of artifacts, by their MD5
        self.runs = runs
        self._ids = itertools.count(1)
        noted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                noted.paths.append(self.path)
                self.reply(json.dumps(noted.answer(self.path, body)).encode())

            def do_PUT(self) -> None:
                self.do_POST()

            def do_GET(self) -> None:
                noted.paths.append(self.path)
                self.reply(noted.file(self.path))

            def reply(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def file(self, path: str) -> bytes:
        """What a GET gives: a manifest, a file of an artifact, or nothing."""
        if path.startswith("/manifest/"):
            return json.dumps(self._by_id(path.rpartition("/")[2]).manifest).encode()
        return next((content for digest, content in self.files.items() if digest in path), b"{}")

    def answer(self, path: str, body: bytes) -> Any:
        if path.endswith("/file_stream"):
            self.streamed.append(json.loads(body))
            return {}
        if path.startswith("/manifest/"):
            self._by_id(path.rpartition("/")[2]).manifest = json.loads(body)
        elif path.startswith("/blob/"):
            self.files[path.rpartition("/")[2]] = body
        if path != "/graphql":
            return {}
        asked = json.loads(body)
        query, variables = asked["query"], asked.get("variables") or {}
        named = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = asked.get("operationName") or (named[1] if named else "")
        self.operations.append((name, variables))
        if hasattr(self, f"_{name}"):
            return {"data": getattr(self, f"_{name}")(variables)}
        edges = [{"node": {**RUN, **run}, "cursor": "c"} for run in self.runs]
        known: dict[str, Any] = {
            "upsertView": {"view": VIEW, "inserted": True},
            "upsertBucket": {"bucket": {**BUCKET, "name": variables.get("name", "r1")}, "inserted": True},
            "createRunFiles": {
                "runID": "UnVuOjE=",
                "uploadHeaders": [],
                "files": [
                    {"name": file, "uploadUrl": f"{self.url}/upload/{file}"} for file in variables.get("files", [])
                ],
            },
            "useArtifact": {"artifact": {"id": variables.get("artifactID")}},
            "viewer": VIEWER,
            "models": {"edges": [{"node": PROJECT, "cursor": "c"}], "pageInfo": NO_MORE},
            "project": {**PROJECT, "runCount": len(edges), "runs": {"edges": edges, "pageInfo": NO_MORE}},
        }
        return {"data": {field: value for field, value in known.items() if re.search(rf"\b{field}\s*[({{]", query)}}

    def sent(self, operation: str) -> list[dict[str, Any]]:
        return [variables for name, variables in self.operations if name.lower() == operation.lower()]

    def of(self, collection: str) -> list[Kept]:
        """The versions of an artifact, in the order in which they came."""
        return [each for each in self.artifacts if each.collection == collection]

    # artifacts: a method an operation

    def _by_id(self, number: str) -> Kept:
        return next(each for each in self.artifacts if each.id == number)

    def _CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        asked = variables["input"]
        name, aliases = asked["artifactCollectionName"], [each["alias"] for each in asked["aliases"]]
        versions = self.of(name)
        for each in versions:
            each.aliases = [alias for alias in each.aliases if alias not in aliases]
        made = next((each for each in versions if each.digest == asked["digest"]), None)
        if made is None:
            number, metadata = str(next(self._ids)), json.loads(asked["metadata"] or "{}")
            made = Kept(number, name, asked["artifactTypeName"], len(versions), asked["digest"], metadata, [])
            self.artifacts.append(made)
        made.aliases += aliases
        latest = {"latestArtifact": {"id": versions[-1].id} if versions else None}
        state = "COMMITTED" if made.committed else "PENDING"
        return {"createArtifact": {"artifact": {"id": made.id, "state": state, "artifactSequence": latest}}}

    def _CreateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        number = variables["artifactID"]
        file = {"id": number, "uploadUrl": f"{self.url}/manifest/{number}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": number, "file": file}}}

    def _UpdateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        made = self._CreateArtifactManifest({"artifactID": variables["artifactManifestID"]})
        return {"updateArtifactManifest": made["createArtifactManifest"]}

    def _CreateArtifactFiles(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        nodes: list[dict[str, Any]] = [
            {
                "storagePath": f"blob/{file['md5']}",
                "uploadUrl": f"{self.url}/blob/{base64.b64decode(file['md5']).hex()}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in variables["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CommitArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        made = self._by_id(variables["artifactID"])
        made.committed = True
        return {"commitArtifact": {"artifact": {"id": made.id, "digest": made.digest}}}

    def _UseArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"useArtifact": {"artifact": {"id": (variables.get("input") or variables)["artifactID"]}}}

    def _ArtifactType(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        versions = self.of(variables["name"].partition(":")[0])
        return {"project": {"artifact": {"artifactType": {"name": versions[-1].kind}} if versions else None}}

    def _ArtifactByID(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        made = self._by_id(variables["id"])
        return {"artifact": made.node(_collection(made.collection))}

    def _ArtifactMembershipByName(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        collection, _, alias = variables["name"].partition(":")
        made = next((each for each in self.of(collection) if alias in (*each.aliases, f"v{each.version}")), None)
        found = made and self._membership(made, _collection(collection, variables["project"], variables["entity"]))
        return {"project": {"artifactCollectionMembership": found}}

    def _membership(self, made: Kept, collection: dict[str, Any]) -> dict[str, Any]:
        return {
            "__typename": "ArtifactCollectionMembership",
            "id": made.id,
            "versionIndex": made.version,
            "createdAt": NOW,
            "aliases": [_alias(alias) for alias in made.aliases],
            "artifactCollection": collection,
            "artifact": made.node(_collection(made.collection)),
        }

    def _FetchArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"artifact": {"currentManifest": {"file": {"directUrl": f"{self.url}/manifest/{variables['id']}"}}}}

    def _ProjectArtifacts(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = variables["collection"]
        edges = [{"version": f"v{each.version}", "node": each.node(_collection(name))} for each in self.of(name)]
        listed = {"totalCount": len(edges), "pageInfo": {"__typename": "PageInfo", **NO_MORE}, "edges": edges}
        found = {"__typename": "ArtifactSequence", "artifacts": listed}
        return {"project": {"artifactType": {"artifactCollection": found}}}

    def _FetchLinkedArtifacts(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        made = self._by_id(variables["artifactID"])
        return {
            "artifact": {
                "artifactMemberships": {"edges": [{"node": self._membership(made, _collection(made.collection))}]}
            }
        }

    def _DeleteArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.artifacts.remove(self._by_id(variables["input"]["artifactID"]))
        return {"result": {"artifact": {"id": variables["input"]["artifactID"]}}}

    def _FetchOrgInfoFromEntity(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"entity": {"organization": ORGANIZATION, "user": None}}

    def _LinkArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        asked = variables["input"]
        collection = _collection(asked["artifactPortfolioName"], asked["projectName"], asked["entityName"])
        made = self._by_id(asked["artifactID"])
        return {"result": {"versionIndex": 0, "artifactMembership": self._membership(made, collection)}}


@contextmanager
def loopback(*runs: dict[str, Any]) -> Iterator[Loopback]:
    server = Loopback([*runs])
    try:
        yield server
    finally:
        server._server.shutdown()
        server._server.server_close()


def environment(home: Path, url: str, key: str | None = KEY) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and "proxy" not in k.lower()}
    more = {"HOME": str(home), "NETRC": str(home / ".netrc"), "WANDB_BASE_URL": url, "WANDB_ERROR_REPORTING": "false"}
    return {**kept, **more, "PYTHONPATH": str(ROOT / "src"), **({"WANDB_API_KEY": key} if key else {})}


def call(folder: Path, command: list[str], url: str, key: str | None = KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment(folder, url, key), capture_output=True, text=True
    )
