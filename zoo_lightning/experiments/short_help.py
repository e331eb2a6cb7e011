"""Short help of the Trainer's subcommands: our own options, a line each, on one screen.

The help of all options has over 600 lines, most of them Lightning's; ``--help_all`` shows it.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence

HELP_ALL = "--help_all"

WIDEST, NARROWEST = 100, 60
"""Columns that a help takes at most, and at least."""

GROUPS: Mapping[str, Sequence[str]] = {
    "What": ("config", "sources", "architecture", "seed_everything"),
    "Run": ("ckpt_path", "run_dir", "init_from", "run_test", "length", "budget", "stop_after",
            "average_weights", "select", "on_nonfinite"),
    "Records": ("pictures", "gradient_norms"),
}  # fmt: skip
"""Options by the place they are kept under, in the order of the help; others of ours follow."""

ALWAYS_LEFT_OUT = (
    "help", "print_config", "weights_only", "trainer", "model", "data", "length_from_data",
)  # fmt: skip
"""Options that are Lightning's, that are explained at the end, or that experiments set."""

END = """\
Anything else, in an experiment or here:
  --trainer.KEY VALUE   Lightning's Trainer, such as --trainer.max_steps 500
  --model.KEY VALUE     the task (--model.help LandmarkTask; the backbone: --model.backbone.KEY)
  --data.KEY VALUE      the data (--data.help ImageFolders)
  --print_config        print the resolved configuration and exit
  --help_all            all of these options, with their types and defaults
"""


def asks_for_all(word: str) -> bool:
    """Whether a word of a command line is ``--help_all``, in either spelling."""
    return word.startswith("--") and word.replace("-", "_") == HELP_ALL.replace("-", "_")


def help_width() -> int:
    """Number of columns for a help text in the present terminal."""
    columns = shutil.get_terminal_size((WIDEST + 2, 24)).columns
    return min(max(columns - 2, NARROWEST), WIDEST)


def short_help(actions: Iterable[argparse.Action], subcommand: str, appendix: str = "") -> str:
    """Format the options of a subcommand that are this package's own, a line each.

    Args:
        actions: all options of the subcommand's parser.
        subcommand: name of the subcommand.
        appendix: text after the options, such as those of another parser.
    """
    ours = {action.dest: action for action in actions if _is_ours(action)}
    groups = {title: [ours.pop(dest) for dest in dests if dest in ours]
              for title, dests in GROUPS.items()}  # fmt: skip
    groups["Weights & Biases"] = [ours.pop(dest) for dest in [*ours] if dest.startswith("wandb")]
    groups["Run"] += ours.values()
    parts = [f"usage: python -m zoo_lightning {subcommand} --experiment NAME [options]\n"]
    for title, found in groups.items():
        if found:
            parts.append(f"{title}:\n{''.join(map(_line, found))}")
    return "\n".join(parts) + appendix.rstrip("\n") + "\n" + END


def _is_ours(action: argparse.Action) -> bool:
    named = [word for word in action.option_strings if word.startswith("--")]
    own = action.dest.partition(".")[0] not in ALWAYS_LEFT_OUT
    return own and bool(named) and not any(word.endswith(".help") for word in named)


def first_clause(text: str | None) -> str:
    """First clause of an explanation, without its full stop."""
    words = " ".join(str(text or "").split())
    return re.split(r"(?<=\w)[.;:] |\.$| \(", words, maxsplit=1)[0]


def _line(action: argparse.Action) -> str:
    """Option with the first clause of its explanation, in one line."""
    name = next(word for word in action.option_strings[::-1] if not word.endswith("+"))
    width = help_width()
    clause = first_clause(action.help)
    room = width - 22
    if len(clause) > room:
        clause = clause[: room - 1].rsplit(" ", 1)[0] + "…"
    return f"  {name:<19} {clause}\n"
