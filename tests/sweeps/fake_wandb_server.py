"""A server that speaks as much of W&B's GraphQL and file streams as sweeps need; for tests.

``python fake_wandb_server.py LOG`` prints its port. LOG gets a line of JSON for each request:
operations with their variables, and what runs stream.
"""

import base64
import gzip
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import sweeps
import yaml

ENTITY, PROJECT, SWEEP = "someone", "zoo_lightning", "swp12345"


class State:
    """What the server knows."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.lock = threading.Lock()
        self.config: dict = {}
        self.runs: dict[str, dict] = {}
        self.agents = 0
        self.url = ""

    def note(self, **request: object) -> None:
        """Write a request to the log."""
        with self.log.open("a") as stream:
            stream.write(json.dumps(request) + "\n")

    def suggest(self) -> list[dict]:
        """The command that an agent gets for its heartbeat."""
        given = [
            sweeps.SweepRun(
                name=name,
                state="finished" if run["done"] else "running",
                config=run["config"],
                summaryMetrics=run["summary"],
            )
            for name, run in self.runs.items()
        ]
        found = sweeps.next_run(self.config, given)
        if found is None:
            return [{"type": "exit"}]
        name = f"run{len(self.runs)}"
        config = json.loads(json.dumps(found.config, default=lambda value: value.item()))
        self.runs[name] = {"config": config, "summary": {}, "done": False}
        return [
            {
                "type": "run",
                "run_id": name,
                "program": self.config.get("program"),
                "args": config,
            }
        ]


def project(**more: object) -> dict:
    return {"id": "p1", "name": PROJECT, "entity": {"id": "e1", "name": ENTITY}, **more}


def run_node(state: State, name: str) -> dict:
    run = state.runs.setdefault(name, {"config": {}, "summary": {}, "done": False})
    second = list(state.runs).index(name)
    config = json.dumps({key: {"value": each["value"]} for key, each in run["config"].items()})
    summary = json.dumps(run["summary"])
    user = {"id": "u1", "name": ENTITY, "username": ENTITY}
    return {
        "id": base64.b64encode(f"Run:v1:{name}:{PROJECT}:{ENTITY}".encode()).decode(),
        "name": name, "displayName": name, "state": "finished" if run["done"] else "running",
        "config": config, "group": None, "jobType": None, "commit": None, "readOnly": False,
        "createdAt": f"2026-01-01T00:00:{second:02d}Z", "heartbeatAt": None,
        "description": "", "notes": "", "systemMetrics": "{}", "summaryMetrics": summary,
        "historyLineCount": 1, "historyKeys": {}, "tags": [], "user": user,
        "sweepName": SWEEP,
        "projectId": "1", "exitcode": 0, "shouldStop": False, "failed": False, "stopped": False,
        "running": not run["done"], "sampledHistory": [], "project": project(),
    }  # fmt: skip


def answer(state: State, operation: str, query: str, given: dict) -> dict:
    """Data of the answer to a GraphQL operation."""
    if "upsertSweep" in query:
        if given.get("config"):
            state.config = yaml.safe_load(given["config"])
        # The server checks, and warns.
        warnings = list(sweeps.schema_violations_from_proposed_config(state.config))
        sweep = {"name": SWEEP, "project": project()}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": warnings}}
    if "createAgent" in query:
        state.agents += 1
        return {"createAgent": {"agent": {"id": f"agent{state.agents}"}}}
    if "agentHeartbeat" in query:
        running = json.loads(given["runState"])
        commands = []
        if not running:
            # One run an agent: whatever it does not report as running has ended.
            owned = state.__dict__.setdefault("owner", {})
            for name in [n for n, agent in owned.items() if agent == given["id"]]:
                state.runs[name]["done"] = True
            commands = state.suggest()
            if commands[0]["type"] == "run":
                owned[commands[0]["run_id"]] = given["id"]
        text = json.dumps(commands)
        return {"agentHeartbeat": {"agent": {"id": given["id"]}, "commands": text}}
    if "upsertBucket" in query:
        name = given.get("name")
        inserted = {"bucket": run_node(state, name), "inserted": True}
        return {"upsertBucket": inserted}
    if "sampledHistory(specs" in query or "sweep(sweepName" in query:
        edges = [{"node": run_node(state, name), "cursor": name} for name in state.runs]
        sweep = {
            "id": "U3dlZXA6MQ==", "name": SWEEP, "displayName": SWEEP, "method": "grid",
            "state": "RUNNING", "description": "", "config": yaml.safe_dump(state.config),
            "createdAt": "2026-01-01T00:00:00", "heartbeatAt": None, "updatedAt": None,
            "earlyStopJobRunning": False, "bestLoss": None, "controller": None, "scheduler": None,
            "runCount": len(edges), "runCountExpected": len(edges), "order": None, "prior": None,
            "priorRuns": {"edges": []}, "runs": {"edges": edges},
        }  # fmt: skip
        return {"project": project(sweep=sweep)}
    if "runs(" in query:
        edges = [{"node": run_node(state, name), "cursor": name} for name in state.runs]
        page = {"endCursor": None, "hasNextPage": False}
        runs = {"edges": edges, "pageInfo": page, "totalCount": len(edges)}
        found = project(internalId="1", readOnly=False, runCount=len(edges), runs=runs)
        return {"project": found}
    if "createRunFiles" in query:
        files = [{"name": name, "uploadUrl": f"{state.url}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
    if "viewer" in query:
        teams = {"edges": [{"node": {"id": "e1", "name": ENTITY}}]}
        viewer = {"id": "u1", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": teams,
                  "email": "", "name": ENTITY, "admin": False}  # fmt: skip
        return {"viewer": viewer, "serverInfo": {"features": []}}
    return {"serverInfo": {"features": [], "cliVersionInfo": None}}


def handler(state: State) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def reply(self, content: object, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def body(self) -> bytes:
            found = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(found) if found[:2] == b"\x1f\x8b" else found

        def do_POST(self) -> None:
            body = self.body()
            with state.lock:
                if self.path.endswith("/file_stream"):
                    self.stream(json.loads(body))
                    return
                if self.path != "/graphql":  # the client's reports about itself
                    self.reply({})
                    return
                asked = json.loads(body)
                query, given = asked["query"], asked.get("variables") or {}
                named = re.search(r"(?:query|mutation)\s+(\w+)", query)
                operation = named[1] if named else ""
                state.note(operation=operation, variables=given, authorized=self.authorized())
                self.reply({"data": answer(state, operation, query, given)})

        def authorized(self) -> bool:
            given = self.headers.get("Authorization", "").partition(" ")[2]
            return base64.b64decode(given or "").decode().startswith("api:")

        def stream(self, content: dict) -> None:
            """What a run streams: its summary is kept, its exit ends it."""
            state.note(path=self.path, files=list(content.get("files") or {}),
                       exitcode=content.get("exitcode"))  # fmt: skip
            name = self.path.split("/")[-2]
            if name in state.runs:
                files = content.get("files") or {}
                for line in files.get("wandb-summary.json", {}).get("content", []):
                    state.runs[name]["summary"] |= json.loads(line)
                state.runs[name]["done"] |= content.get("exitcode") is not None
            self.reply({"exitcode": None, "limits": {}})

        def do_GET(self) -> None:
            self.reply({})

        def do_PUT(self) -> None:
            self.body()
            self.reply({})

    return Handler


def main() -> None:
    state = State(Path(sys.argv[1]))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.url = f"http://127.0.0.1:{server.server_address[1]}/files"
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
