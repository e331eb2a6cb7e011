"""Hosted sweeps: created once on W&B's server, and run by W&B's agents."""

from __future__ import annotations

import json
import netrc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from zoo_lightning.errors import ConfigError
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.sweeps.report import Result
from zoo_lightning.sweeps.schema import Sweep, SweepMetric, changed_keys

HOSTED = "hosted.json"

PROJECT = "zoo_lightning"
"""Default W&B project, if neither the file nor ``WANDB_PROJECT`` sets one."""

OFFICIAL = ("api.wandb.ai", "api.forge.coreweave.com")
"""Hosts of W&B's public server, the old and the new one."""

STATES = {"finished": "done", "running": "running", "killed": "pruned"}
"""State of a result by state of the W&B run; other states count as failed."""


@dataclass(frozen=True)
class Hosted:
    """Sweep that exists on W&B's server.

    Attributes:
        id: id of the sweep.
        entity: user or team; empty for the default entity.
        project: project of the runs.
    """

    id: str
    entity: str
    project: str

    @property
    def path(self) -> str:
        """Path of the sweep for ``wandb agent``."""
        return "/".join(part for part in (self.entity, self.project, self.id) if part)


def logged_in() -> bool:
    """Whether to use W&B's server: the user has an API key and W&B is not offline or disabled."""
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared", "run"):
        return False
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    given = os.environ.get("NETRC")
    files = [Path(given)] if given else [Path.home() / name for name in (".netrc", "_netrc")]
    for file in filter(Path.is_file, files):
        import wandb

        host = urlparse(wandb.setup().settings.base_url).netloc
        try:
            known = netrc.netrc(str(file))
        except (netrc.NetrcParseError, OSError):
            continue
        names = OFFICIAL if host in OFFICIAL else (host,)
        return any(known.authenticators(name) for name in names)
    return False


def open_hosted(sweep: Sweep, folder: Path, extra: Sequence[str]) -> Hosted:
    """Create a sweep on W&B's server, or open the one that was created for a folder.

    Args:
        sweep: sweep file.
        folder: folder of the sweep.
        extra: command-line words added to every trial.

    Raises:
        ConfigError: the existing sweep has other options, or the server refuses the sweep.
    """
    content = {**sweep.content, "command": [*sweep.command, *extra]}
    path = folder / HOSTED
    if path.is_file():
        before = json.loads(path.read_text(**TEXT))
        if changed := changed_keys(before.pop("content"), json.loads(json.dumps(content))):
            raise ConfigError(
                f"{sweep.file}: the sweep in {folder} was begun with other {', '.join(changed)}; "
                "restore them, or give another --run_dir"
            )
        return Hosted(**before)
    import wandb

    project = os.environ.get("WANDB_PROJECT") or sweep.text("project") or PROJECT
    entity = os.environ.get("WANDB_ENTITY") or sweep.text("entity") or None
    try:
        found = wandb.sweep(content, entity=entity, project=project)
    except Exception as error:  # the client raises errors of many kinds
        raise ConfigError(
            f"{sweep.file}: W&B's server refuses the sweep: {' '.join(str(error).split())}; "
            "--local runs it locally"
        ) from error
    # The client sets these variables to where the server has put the sweep.
    entity = os.environ.get("WANDB_ENTITY") or entity or ""
    hosted = Hosted(found, entity, os.environ.get("WANDB_PROJECT") or project)
    with atomic_file(path) as part:
        part.write_text(json.dumps({**vars(hosted), "content": content}, indent=2) + "\n", **TEXT)
    return hosted


def agent_words(hosted: Hosted, count: int | None) -> list[str]:
    """Build the command line of a W&B agent."""
    words = [sys.executable, "-m", "wandb", "agent"]
    if count is not None:
        words += ["--count", str(count)]
    return [*words, hosted.path]


def counts_of_agents(count: int | None, workers: int) -> list[int | None]:
    """Split a number of runs evenly among agents; agents without a run are left out."""
    if count is None:
        return [None] * workers
    each, rest = divmod(count, workers)
    return [n for n in (each + (i < rest) for i in range(workers)) if n]


def run_agents(hosted: Hosted, workers: int, count: int | None) -> int:
    """Run W&B agents until they end.

    Args:
        hosted: sweep on the server.
        workers: number of concurrent agents.
        count: largest number of runs of all agents together; ``None`` runs until the sweep ends.

    Returns:
        The largest exit status of the agents; 0 without agents.
    """
    # Agents call the first python on the path, which must be this one.
    first = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = os.environ | {"PATH": first}
    agents = [
        subprocess.Popen(agent_words(hosted, each), env=environment)
        for each in counts_of_agents(count, workers)
    ]
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while any(agent.poll() is None for agent in agents):
            try:
                for agent in agents:
                    agent.wait()
            except _Terminated:
                _end(agents)
            except KeyboardInterrupt:
                continue  # the agents got it, too, and say what they wait for
    finally:
        signal.signal(signal.SIGTERM, before)
    return max((agent.returncode for agent in agents), default=0)


def _end(agents: Sequence[subprocess.Popen[bytes]]) -> None:
    """Make agents end their runs, for which they need two interrupts."""
    for _ in range(2):
        for agent in agents:
            if agent.poll() is None:
                agent.send_signal(signal.SIGINT)
        time.sleep(1)


class _Terminated(Exception):
    pass


def _interrupt(number: int, frame: Any) -> None:
    raise _Terminated


def hosted_results(hosted: Hosted, sweep: Sweep, metric: SweepMetric) -> list[Result]:
    """Fetch the results of a hosted sweep, oldest run first, with the last logged values.

    Raises:
        ConfigError: the request to the server fails.
    """
    import wandb

    found = []
    try:
        runs = sorted(wandb.Api().sweep(hosted.path).runs, key=lambda run: run.created_at)
        for index, run in enumerate(runs):
            value = run.summary.get(metric.name)
            parameters = {name: run.config[name] for name in sweep.varied if name in run.config}
            state = STATES.get(run.state, "failed")
            if len(parameters) == len(sweep.varied):
                number = float(value) if isinstance(value, (int, float)) else None
                found.append(Result(index, state, number, parameters, note=run.name))
    except Exception as error:  # the client raises errors of many kinds
        raise ConfigError(
            f"W&B's server gave no results of {hosted.path}: {' '.join(str(error).split())}"
        ) from error
    return found
