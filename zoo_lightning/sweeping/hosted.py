"""A sweep on W&B's server: created once, then worked on by W&B's own agents."""

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
from zoo_lightning.sweeping.outcome import Result
from zoo_lightning.sweeping.schema import Metric, Sweep
from zoo_lightning.sweeping.study import changes
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

HOSTED = "hosted.json"

PROJECT = "zoo_lightning"
"""Where runs go if neither the file nor ``WANDB_PROJECT`` says."""

OFFICIAL = ("api.wandb.ai", "api.forge.coreweave.com")
"""Old and new name of W&B's own server."""

STATES = {"finished": "done", "running": "running", "killed": "pruned"}
"""Of W&B's runs; all others failed."""


@dataclass(frozen=True)
class Hosted:
    """A sweep that the server knows.

    Attributes:
        id: the server's for it.
        entity: user or team; empty for the user's own.
        project: of its runs.
    """

    id: str
    entity: str
    project: str

    @property
    def path(self) -> str:
        """As ``wandb agent`` takes it."""
        return "/".join(part for part in (self.entity, self.project, self.id) if part)


def logged_in() -> bool:
    """Whether W&B's server is to be used: the user has a key for it and has not switched it off."""
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
    """Create a sweep on the server, or find the one that this folder's was created as.

    Args:
        sweep: the file.
        folder: of the sweep.
        extra: words that every command line has besides.

    Raises:
        ConfigError: the sweep was begun with other options, or the server does not take it.
    """
    content = {**sweep.content, "command": [*sweep.command, *extra]}
    path = folder / HOSTED
    if path.is_file():
        before = json.loads(path.read_text(**TEXT))
        if changed := changes(before.pop("content"), json.loads(json.dumps(content))):
            raise ConfigError(
                f"{sweep.file}: the sweep in {folder} was begun with other {', '.join(changed)}; "
                "go on with those, or give another --run_dir"
            )
        return Hosted(**before)
    import wandb

    project = os.environ.get("WANDB_PROJECT") or sweep.text("project") or PROJECT
    entity = os.environ.get("WANDB_ENTITY") or sweep.text("entity") or None
    try:
        found = wandb.sweep(content, entity=entity, project=project)
    except Exception as error:  # whatever the client raises for a server that says no
        raise ConfigError(
            f"{sweep.file}: W&B's server does not take it: {' '.join(str(error).split())}; "
            "--local runs it here"
        ) from error
    # The client notes there where the server has put the sweep.
    entity = os.environ.get("WANDB_ENTITY") or entity or ""
    hosted = Hosted(found, entity, os.environ.get("WANDB_PROJECT") or project)
    with whole_file(path) as part:
        part.write_text(json.dumps({**vars(hosted), "content": content}, indent=2) + "\n", **TEXT)
    return hosted


def agent_words(hosted: Hosted, count: int | None) -> list[str]:
    """Command line of one of W&B's agents."""
    words = [sys.executable, "-m", "wandb", "agent"]
    if count is not None:
        words += ["--count", str(count)]
    return [*words, hosted.path]


def shares(count: int | None, workers: int) -> list[int | None]:
    """How many runs each agent is to do; those without any are left out."""
    if count is None:
        return [None] * workers
    each, rest = divmod(count, workers)
    return [n for n in (each + (i < rest) for i in range(workers)) if n]


def run_agents(hosted: Hosted, workers: int, count: int | None) -> int:
    """Run W&B's agents until they end.

    Args:
        hosted: the sweep.
        workers: agents at a time.
        count: runs at most, of all agents together; ``None`` until the sweep ends.

    Returns:
        The worst of their exit statuses.
    """
    # Agents call what they find as python; it has to be this one.
    first = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = os.environ | {"PATH": first}
    agents = [
        subprocess.Popen(agent_words(hosted, each), env=environment)
        for each in shares(count, workers)
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
                continue  # the agents got it, too; they say what they wait for
    finally:
        signal.signal(signal.SIGTERM, before)
    return max((agent.returncode for agent in agents), default=0)


def _end(agents: Sequence[subprocess.Popen]) -> None:
    """Have agents end their runs, which takes them two interrupts."""
    for _ in range(2):
        for agent in agents:
            if agent.poll() is None:
                agent.send_signal(signal.SIGINT)
        time.sleep(1)


class _Terminated(Exception):
    pass


def _interrupt(number: int, frame: Any) -> None:
    raise _Terminated


def hosted_results(hosted: Hosted, sweep: Sweep, metric: Metric) -> list[Result]:
    """Runs of a sweep as the server has them, oldest first; their figures are the last ones.

    Raises:
        ConfigError: the server does not tell.
    """
    import wandb

    searched = [".".join(p) for p, each in sweep.parameters.items() if each.kind != "constant"]
    found = []
    try:
        runs = sorted(wandb.Api().sweep(hosted.path).runs, key=lambda run: run.created_at)
        for index, run in enumerate(runs):
            value = run.summary.get(metric.name)
            parameters = {name: run.config[name] for name in searched if name in run.config}
            state = STATES.get(run.state, "failed")
            if len(parameters) == len(searched):
                number = float(value) if isinstance(value, (int, float)) else None
                found.append(Result(index, state, number, parameters, note=run.name))
    except Exception as error:  # whatever the client raises
        raise ConfigError(
            f"W&B's server does not tell of {hosted.path}: {' '.join(str(error).split())}"
        ) from error
    return found
