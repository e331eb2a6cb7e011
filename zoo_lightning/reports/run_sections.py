"""Sections of a report on one run: what was run, figures, curves, gates, pictures, costs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

from zoo_lightning.reports import charts
from zoo_lightning.reports.contents import (
    Chart,
    Code,
    Gallery,
    Section,
    Table,
    Text,
    Value,
    duration,
    facts,
    number,
    operations,
    value,
)
from zoo_lightning.reports.finished_run import Figure, RunFiles
from zoo_lightning.reports.folder import finite, within
from zoo_lightning.reports.gate_sections import gate_sections
from zoo_lightning.reports.pictures import pictures_in
from zoo_lightning.runs.run_folder import CLASSES, CONFIG, PAGE, PICTURES, PLAN
from zoo_lightning.sources.own_runs import SUMMARY

GATE_PICTURES = ("gates", "gates_over_time")
"""Stems of pictures that are shown with the gates."""

GATES = "gates/gates.json"
"""Report of the command ``gates`` in a run folder, at its usual place."""

DECISIONS, STAGES = "decisions.json", "stages"
"""File and folder of ``fit --method``; ``zoo_lightning.pipelines`` writes them."""

RELATIONS = f"{STAGES}/look.json"
"""File of the relations of the sources of ``fit --method auto``."""

MODEL_OPTIONS = ("mode", "align", "gate_init", "norm_weights", "gating", "weights", "output")
"""Options of the backbone that are shown with the run."""


def run_sections(run: RunFiles) -> list[Section]:
    """Make all sections on a run; those that its files say nothing of are left out."""
    pictures, unread = pictures_in(run.folder.path / PICTURES)
    of_gates = [each for each in pictures if each.name in GATE_PICTURES]
    others = [each for each in pictures if each.name not in GATE_PICTURES]
    sections = [
        Section("What was run", [facts(described(run))]),
        Section("Figures", _figures(run)),
        Section("Classes", _classes(run)),
        *_pipeline(run),
        Section("Curves", _gallery(training_curves([run]))),
        Section("Gates", _gallery([*gate_curves(run), *of_gates])),
        *gate_sections(run.folder, GATES),
        Section("Pictures", _gallery(others)),
        Section("Costs", _costs(run)),
        Section("Run it again", _again(run)),
    ]
    lines = [*run.folder.notes, *unread]
    if lines:
        sections.insert(0, Section("Left out", [Text(lines, warning=True)]))
    return [section for section in sections if section.blocks]


def lead(run: RunFiles) -> str:
    """Describe a run's result in a sentence."""
    if not run.ended:
        return f"This run has not ended: it has written no {SUMMARY} yet."
    words = [] if run.main is None else [with_interval(run.main)]
    method, steps = run.summary.get("method"), finite(run.summary.get("steps"))
    if method:
        words.append(f"method {method}")
    if steps is not None:
        words.append(f"{number(steps)} steps")
    if run.seconds is not None:
        words.append(duration(run.seconds))
    return ", ".join(words)


def with_interval(figure: Figure) -> str:
    """Format a metric with its 95 % interval and what it stands for."""
    name, _, unit = figure.label.partition(", ")
    text = f"{name} {number(figure.mean)}{unit and f' {unit}'}"
    what = "games" if "return" in figure.label else "images"
    if figure.has_interval:
        return f"{text} (95 %: {interval(figure)}, {number(figure.samples)} {what})"
    return f"{text} ({number(figure.samples)} {what})" if figure.samples else text


def interval(figure: Figure) -> str:
    """Format the 95 % interval of a metric; empty if it is unknown."""
    return f"{number(figure.low, 3)} to {number(figure.high, 3)}" if figure.has_interval else ""


def described(run: RunFiles) -> list[tuple[str, Any]]:
    """Names and values of what a run was: experiment, method, data, sources."""
    summary, options = run.summary, run.backbone
    model = {name: options[name] for name in MODEL_OPTIONS if options.get(name) is not None}
    return [
        ("experiment", summary.get("experiment")),
        ("method", summary.get("method")),
        ("made by", f"fit --method {p}" if (p := summary.get("pipeline")) else None),
        ("task", run.task),
        ("game", summary.get("game")),
        ("architecture", options.get("architecture")),
        ("sources", ", ".join(_source(*each) for each in run.sources)),
        ("teachers", ", ".join(_source(*each) for each in run.teachers)),
        ("backbone", ", ".join(f"{name} {_short(each)}" for name, each in model.items())),
        ("data", data_of(run)),
        ("seed", summary.get("seed", within(run.config, "seed_everything"))),
        ("steps", summary.get("steps")),
        ("agent steps", summary.get("agent_steps")),
        ("best checkpoint", summary.get("checkpoint")),
        ("folder", str(run.folder.path)),
    ]


def _source(name: str, weights: str) -> str:
    return weights if not name or weights.endswith((name, name.replace("-", ":"))) else (
        f"{name} ({weights})"
    )  # fmt: skip


def data_of(run: RunFiles) -> str:
    """Describe the data of a run: class, place, size of the images; empty if unknown."""
    path, options = (within(run.config, "data", key) for key in ("class_path", "init_args"))
    if not isinstance(path, str):
        return ""
    known = options if isinstance(options, dict) else {}
    place = [str(known[key]) for key in ("root", "name", "game") if known.get(key)]
    size = [f"{known['image_size']} pixels"] if known.get("image_size") else []
    return ", ".join([path.rpartition(".")[2], *place, *size])


def _short(content: Any) -> str:
    """Value of an option in at most 60 characters."""
    if isinstance(content, list):
        content = f"[{', '.join(number(each, 3) for each in content)}]"
    text = number(content)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _figures(run: RunFiles) -> list[Any]:
    rows = []
    if (main := run.main) is not None:
        rows.append([Value(main.label), value(main.mean), Value(interval(main)),
                     value(main.samples or None)])  # fmt: skip
    for name, found in {**run.test, **run.validation}.items():
        rows.append([Value(name), value(found), Value(""), Value("")])
    if not rows:
        return []
    blocks: list[Any] = [
        Table(
            ["metric", "value", "95 % interval", "samples"],
            rows,
            note=_note(run),
            marked=0 if run.main is not None else None,
        )
    ]
    return blocks


def _classes(run: RunFiles) -> list[Any]:
    """Table of the test's precision, recall and F1 of each class."""
    heads = ["class", "images", "precision", "recall", "f1"]
    found = [row for row in run.folder.rows(CLASSES) if set(heads) <= set(row)]
    rows = [
        [Value(row["class"]), *(value(finite(row[head])) for head in heads[1:])] for row in found
    ]
    note = (
        "Of the test images. Precision is the share of right ones among the images that were taken "
        "for the class, recall among those of the class; F1 is their harmonic mean."
    )
    return [Table(heads, rows, note=note)] if rows else []


def _note(run: RunFiles) -> str:
    main = run.main
    if main is None or not main.has_interval:
        return "val/ metrics are those of the checkpoint that was kept."
    kind = "Wilson's" if run.metric is not None and run.metric.name == "test/acc" else "the normal"
    return (
        f"The interval is {kind}, over the samples of the test: it says how much other samples "
        "would change the figure, not how much another seed would. val/ metrics are those of the "
        "checkpoint that was kept."
    )


def training_curves(runs: list[RunFiles]) -> list[Chart]:
    """Draw how the validation's metric, the losses and a policy's returns went, run by run.

    Args:
        runs: runs to draw into the same charts.
    """
    drawn: list[Chart | None] = []
    steps = runs[0].steps_are
    metrics = dict.fromkeys(run.metric for run in runs if run.metric is not None)
    for metric in metrics:
        judged = metric.in_validation
        lines = {
            run.name: {s: judged.scale * v for s, v in run.curves.get(judged.name, {}).items()}
            for run in runs
            if run.metric == metric
        }
        drawn.append(charts.curves(judged.unit[:1].upper() + judged.unit[1:], lines, steps))
    for title, names in (
        ("Loss", ("train/loss", "val/loss")),
        ("Episodic return in training", ("charts/episodic_return",)),
        ("Losses of the policy", ("losses/policy_loss", "losses/value_loss")),
        ("Entropy of the policy", ("losses/entropy",)),
    ):
        lines = {
            " ".join([*([run.name] if len(runs) > 1 else []), *([name] if len(names) > 1 else [])])
            or name: run.curves[name]
            for run in runs
            for name in names
            if name in run.curves
        }
        drawn.append(charts.curves(title, lines, steps))
    return [chart for chart in drawn if chart is not None]


def gate_curves(run: RunFiles) -> list[Chart]:
    """Draw the mean gate of each source over the training."""
    lines = {
        name.partition("/")[2]: points
        for name, points in run.curves.items()
        if name.startswith("gates/") and name.count("/") == 1
    }
    chart = charts.curves("Mean gate of each source", lines, run.steps_are)
    return [] if chart is None else [chart]


def _costs(run: RunFiles) -> list[Any]:
    summary, parts = run.summary, run.compute.get("parts")
    named: list[tuple[str, Any]] = []
    if run.seconds is not None:
        named.append(("time, with all that the training needed", duration(run.seconds)))
    if (alone := finite(summary.get("seconds"))) is not None and alone != run.seconds:
        own = "without that of the stages" if "pipeline" in summary else "of the training itself"
        named.append((f"time {own}", duration(alone)))
    if (whole := finite(run.compute.get("multiply_adds"))) is not None:
        named.append(("multiply-adds", operations(whole)))
    if (memory := finite(summary.get("peak_memory_mb"))) is not None:
        named.append(("peak memory", f"{number(memory)} MiB"))
    counts = summary.get("parameters")
    for name, count in counts.items() if isinstance(counts, dict) else ():
        named.append((f"parameters, {name}", count))
    blocks: list[Any] = [facts(named)] if named else []
    known = {
        str(name): count
        for name, each in (parts.items() if isinstance(parts, dict) else ())
        if (count := finite(each))
    }
    rows = [(name, count / 1e9) for name, count in known.items()]
    chart = charts.bars("Multiply-adds by part", rows, "thousand millions of multiply-adds")
    return blocks + _gallery([chart] if chart is not None and len(rows) > 1 else [])


def _again(run: RunFiles) -> list[Any]:
    """Commands that repeat the run, and its configuration."""
    path = run.folder.path
    if plan := run.folder.yaml(PLAN):
        words = ["fit", "--config", "options.yaml", "--method", str(plan.get("method"))]
        for name, default in (("budget", None), ("inference", 1.0)):
            if (limit := finite(plan.get(name))) not in (None, default):
                words += [f"--{name}", f"{limit:g}"]
        words += ["--run_test", "false"] if plan.get("run_test") is False else []
        options = plan.get("options")
        return [
            Text(["With the options below, saved as options.yaml:"]),
            Code(command(*words, "--run_dir", "runs/again")),
            Code(_yaml(options if isinstance(options, dict) else {}), "options.yaml"),
        ]
    if not run.folder.has(CONFIG):
        return []
    words = ["fit", "--config", str(path / CONFIG), "--run_dir", "runs/again"]
    return [
        Text([f"With {CONFIG} of the run, which is also below:"]),
        Code(command(*words)),
        Code(run.folder.text(CONFIG), CONFIG),
    ]


def command(*words: str) -> str:
    """Format a command line of this package, quoted for a shell."""
    return f"python -m zoo_lightning {shlex.join(words)}"


def _yaml(options: dict[str, Any]) -> str:
    return yaml.safe_dump(options, sort_keys=False, allow_unicode=True)


def _pipeline(run: RunFiles) -> list[Section]:
    """Sections on the stages of ``fit --method`` and on what ``auto`` decided."""
    sections = [Section("Stages", _stages(run.folder.path / STAGES))]
    sections += _sources(run.folder.mapping(RELATIONS).get("relations"))
    found = run.folder.mapping(DECISIONS)
    course = found.get("course")
    if isinstance(course, list) and course:
        sections.append(Section("How it was decided", [Text([str(line) for line in course])]))
    candidates = _rows(found.get("candidates"))
    if candidates:
        rows = [
            [Value(str(each.get("name"))), value(each.get("value")), value(each.get("loss"))]
            for each in candidates
        ]
        raced = _rows(found.get("race"))
        if raced:
            loss = str(found.get("loss"))
            columns = ["of its training", f"{loss} after half of that", "after it", "expected"]
            keys = ("fraction", "half", "loss", "expected")
            table = Table(
                ["candidate", *columns],
                [
                    [Value(str(each.get("name"))), *map(value, map(each.get, keys))]
                    for each in raced
                ],
                marked=0,
            )
            sections.append(Section("Race" if len(raced) > 1 else "Learning curve", [table]))
        gains = found.get("gains")
        lines = [
            _compared(name, gained, found)
            for name, gained in (gains.items() if isinstance(gains, dict) else ())
        ]
        result = found.get("result")
        chosen = " + ".join(map(str, result)) if isinstance(result, list) else str(result)
        marked = next((i for i, each in enumerate(candidates) if each.get("name") == chosen), None)
        table = Table(
            ["candidate", f"{found.get('measure')} on validation images", str(found.get("loss"))],
            rows,
            marked=marked,
        )
        sections.append(Section("Decision", [Text([f"The result is {chosen}.", *lines]), table]))
    return sections


def _compared(name: str, gained: Any, found: dict[str, Any]) -> str:
    """Sentence on the comparison of a candidate with what was selected before it."""
    by_error, needed = within(gained, "error"), finite(found.get("sure"))
    verdict = {True: "replaces", False: "does not replace"}.get(
        within(gained, "replaces"), "beside"
    )
    text = (
        f"{name} {verdict} what was selected before: "
        f"{number(within(gained, 'mean'), 3)} less {found.get('loss')} "
        f"({number(within(gained, 'low'), 3)} to {number(within(gained, 'high'), 3)}), better in "
        f"{_percent(gained)} of the bootstrap samples"
    )
    if by_error is not None and within(by_error, "mean") != within(gained, "mean"):
        text += f", by error in {_percent(by_error)}"
    return text if needed is None else f"{text}; needed are {100 * needed:.0f} %"


def _percent(gained: Any) -> str:
    return f"{100 * (finite(within(gained, 'share')) or 0):.0f} %"


def _sources(relations: Any) -> list[Section]:
    """Section on what the sources explain as frozen features, and on every pair of them."""
    alone, pairs = (_rows(within(relations, name)) for name in ("sources", "pairs"))
    if not alone:
        return []
    section = Section("Sources")
    section.add(
        Table(
            ["source", "score", "over random weights", "±"],
            [
                [
                    Value(str(each.get("name"))),
                    value(each.get("score")),
                    *_with_error(each, "over_random"),
                ]
                for each in alone
            ],
            note="Score: share of the targets that a linear probe of the frozen features explains, "
            "before any training.",
        )
    )
    rows = [
        [
            Value(f"{each.get('first')}, {each.get('second')}"),
            value(each.get("cosine")),
            Value(str(each.get("relation"))),
            value(each.get("kept")),
            *_with_error(each, "complementarity"),
        ]
        for each in pairs
    ]
    if rows:
        heads = ["pair", "cosine", "are", "kept by their average", "complementarity D", "±"]
        section.add(
            Table(
                heads,
                rows,
                note="Cosine of the kernels, median over the layers; share of the better one's "
                "score above random weights that their average keeps; score of the concatenated "
                "features minus the better one's.",
            )
        )
    return [section]


def _rows(content: Any) -> list[dict[str, Any]]:
    """Objects in a list that is expected to have only those."""
    return [each for each in content if isinstance(each, dict)] if isinstance(content, list) else []


def _with_error(row: dict[str, Any], name: str) -> list[Value]:
    """Cells of a number and its standard error."""
    return [value(within(row.get(name), part)) for part in ("value", "error")]


def _stages(folder: Path) -> list[Any]:
    rows = []
    for path in sorted(folder.glob("*/")):
        stage = RunFiles(path)
        if not stage.ended:
            continue
        name, best = next(iter(stage.validation.items()), ("", None))
        # Without the runs that it begins from or that teach it, which are stages, too.
        alone = finite(stage.summary.get("seconds"))
        seconds = (
            None if alone is None else alone + (finite(stage.summary.get("start_seconds")) or 0)
        )
        link = f"{STAGES}/{path.name}/{PAGE}" if (path / PAGE).is_file() else ""
        rows.append(
            [
                Value(path.name, link=link),
                Value(name),
                value(best),
                value(finite(stage.summary.get("steps"))),
                Value("" if seconds is None else duration(seconds), seconds),
            ]
        )
    return [Table(["stage", "metric", "validation", "steps", "time"], rows)] if rows else []


def _gallery(shown: list[Any]) -> list[Any]:
    return [Gallery(shown)] if shown else []
