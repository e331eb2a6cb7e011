"""Model card of an export: a ``README.md`` with the metadata of the Hugging Face Hub.

What is not known, such as the licence of a source, is said to be unknown and left out of the
metadata, rather than guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from zoo_lightning.deployment.lineage import Ancestor, Origin
from zoo_lightning.deployment.manifest import Manifest, TaskName
from zoo_lightning.sources.stems import GREY

PIPELINE_TAGS: dict[TaskName, str] = {
    "classification": "image-classification",
    "multi-label": "image-classification",
    "landmarks": "keypoint-detection",
    "regression": "other",  # the Hub has no name for it
    "segmentation": "image-segmentation",
    "policy": "reinforcement-learning",
}
"""Tasks of the Hub."""

METRICS: dict[TaskName, tuple[str, str]] = {
    "classification": ("test/acc", "accuracy"),
    "multi-label": ("test/map", "mAP"),
    "landmarks": ("test/nme", "nme"),
    "regression": ("test/nmae", "nmae"),
    "segmentation": ("test/miou", "mean_iou"),
    "policy": ("test/episodic_return", "mean_reward"),
}
"""Metric that a task is judged by: its name here and on the Hub."""

USES: dict[TaskName, str] = {
    "classification": "Images of the classes above, taken as the training images were. Every image "
    "gets one of these classes, also one that shows something else.",
    "multi-label": "Images that may show several of the labels above, or none, taken as the "
    "training images were. What else an image shows is not said.",
    "landmarks": "Images in which what the points belong to is cut out as in training. Points are "
    "given for every image, also for one without.",
    "regression": "Images taken as the training images were, with targets in the range of theirs. "
    "Numbers are given for every image, also for one that shows something else.",
    "segmentation": "Images of the scenes it was trained on; every cell gets one of the classes.",
    "policy": "The game it was trained on, with the same preprocessing of its frames.",
}

OPENING = {
    "timm": 'import timm\n\nmodel = timm.create_model("local-dir:.", pretrained=True).eval()\n'
    "outputs = model(images)",
    "onnx": 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("model.onnx")\n'
    'outputs = session.run(None, {{"{input}": images}})',
    "torch-export": 'import torch\n\nmodel = torch.export.load("model.pt2").module()\n'
    "outputs = model(images)",
}
"""Code that opens an export, in its folder."""


def model_card(
    manifest: Manifest, formats: Sequence[str], origin: Origin, notes: Sequence[str] = ()
) -> str:
    """Format the ``README.md`` of an exported folder.

    Args:
        manifest: manifest of the model.
        formats: exported formats, ``timm``, ``onnx`` or ``torch-export``.
        origin: the model's run and sources.
        notes: in what the exported model differs from the run's own test.
    """
    parts = [
        f"---\n{metadata(manifest, formats, origin).to_yaml()}\n---",
        f"# {code(manifest.architecture)}, {manifest.task}",
        _about(manifest, origin),
        *_results(origin, notes),
        "## Use",
        *(f"```python\n{OPENING[name].format(input=manifest.input['name'])}\n```"
          for name in formats),
        _inputs(manifest),
        _outputs(manifest),
        "## Intended use and limits",
        f"{USES[manifest.task]} What else it is fit for was not measured.",
        *_lineage(origin),
        *_cost(origin),
        "## Licence",
        _license_line(origin),
    ]  # fmt: skip
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def metadata(manifest: Manifest, formats: Sequence[str], origin: Origin) -> ModelCardData:
    """Metadata of the Hub, without what is not known.

    Args:
        manifest: manifest of the model.
        formats: exported formats.
        origin: the model's run and sources.
    """
    library = next((name for name in ("timm", "onnx") if name in formats), "torch")
    bases = list(dict.fromkeys(each.hub for each in _everything(origin) if each.hub))
    given: dict[str, Any] = {}
    if bases:
        many = len(origin.sources) > 1
        given |= {"base_model": bases, "base_model_relation": "merge" if many else "finetune"}
    if (license := common_license(origin)) is not None:
        given["license"] = license
    name, on_hub = METRICS[manifest.task]
    if (value := _finite(_tests(origin).get(name))) is not None:
        given |= {
            "metrics": [on_hub],
            "model_name": f"{manifest.architecture} ({manifest.task})",
            "eval_results": [
                EvalResult(
                    task_type=PIPELINE_TAGS[manifest.task],
                    dataset_type="custom",
                    dataset_name=origin.data or "test data of the run",
                    dataset_split="test",
                    metric_type=on_hub,
                    metric_name=name,
                    metric_value=value,
                )
            ],
        }
    return ModelCardData(
        library_name=library,
        pipeline_tag=PIPELINE_TAGS[manifest.task],
        tags=["zoo_lightning", manifest.task],
        **given,
    )


def common_license(origin: Origin) -> str | None:
    """Licence that all sources have; ``None`` if they differ, one is unknown, or there are none."""
    found = {each.license for each in _leaves(origin) if each.license != ""}
    return found.pop() if len(found) == 1 else None


def _everything(origin: Origin) -> list[Ancestor]:
    return [each for source in origin.sources for each in source.everything()]


def _leaves(origin: Origin) -> list[Ancestor]:
    """Sources that were made from no other known ones."""
    return [each for each in _everything(origin) if not each.sources]


def _tests(origin: Origin) -> dict[str, Any]:
    found = origin.summary.get("test")
    return found if isinstance(found, dict) else {}


def _finite(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def code(text: object) -> str:
    """Format a text of the user's as code in one line, in which Markdown and HTML mean nothing."""
    plain = " ".join(str(text).replace("`", "'").split())
    return f"`{plain}`" if plain else ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _about(manifest: Manifest, origin: Origin) -> str:
    lines = [f"Trained by zoo_lightning {manifest.version}, method {manifest.method}"]
    if origin.data:
        lines[0] += f", on {code(origin.data)}"
    lines[0] += "."
    if classes := manifest.output.get("classes"):
        shown = ", ".join(code(name) for name in classes[:20])
        more = f" and {len(classes) - 20} more" if len(classes) > 20 else ""
        what = "labels" if manifest.task == "multi-label" else "classes"
        lines += ["", f"{len(classes)} {what}: {shown}{more}."]
    if points := manifest.output.get("num_points"):
        scheme = manifest.output.get("scheme")
        lines += ["", f"{points} points{f', order {code(scheme)}' if scheme else ''}."]
    if targets := manifest.output.get("targets"):
        lines += ["", f"Targets: {', '.join(code(name) for name in targets)}."]
    if game := manifest.output.get("game"):
        lines += ["", f"Game: {code(game)}."]
    if manifest.members:
        lines.append("")
    lines += [
        f"- network {number}: {each['architecture']}, method {each['method']}"
        for number, each in enumerate(manifest.members, 1)
    ]
    return "\n".join(lines)


def _results(origin: Origin, notes: Sequence[str]) -> list[str]:
    found = {k: v for k, each in _tests(origin).items() if (v := _finite(each)) is not None}
    counted = origin.summary.get("test_images") or origin.summary.get("test_games")
    parts = []
    if found:
        rows = [_row("metric", "value"), "|---|---:|"]
        rows += [_row(code(name), f"{value:.4g}") for name, value in found.items()]
        what = "games" if "test_games" in origin.summary else "images"
        over = f", over {counted} {what}" if isinstance(counted, int) else ""
        parts = ["## Results", f"Of the run's own test, seed {origin.summary.get('seed')}{over}:"]
        parts.append("\n".join(rows))
    differences = [note.removeprefix("note: ") for note in notes]
    if differences:
        parts += ["The exported model and that test:" if parts else "About the exported model:"]
        parts.append("\n".join(f"- {each}" for each in differences))
    return parts


def preparation(given: Mapping[str, Any]) -> str:
    """Say in words how an image file becomes a model's input, before it is normalised.

    Args:
        given: ``input`` of a manifest, with ``size`` and ``preprocessing``.
    """
    told, side = given["preprocessing"], given["size"][-1]
    turned = "turn the image as its EXIF data specify"
    if told["kind"] == "square":
        margin = float(told.get("margin", 1))
        if told.get("around") == "face" or margin != 1:
            of = "face's box" if told.get("around") == "face" else "image"
            cut = (
                f"cut out the square around the {of}, {margin:g} times as large as its longer side"
            )
        else:
            cut = "pad it with black to a square, the image in the middle"
        return f"{turned}; {cut}; resize it to {side}x{side} pixels, bilinear with antialiasing."
    squeeze, crops = told.get("squeeze"), told.get("crops", 1)
    if squeeze:
        resized = f"resize it to {squeeze}x{squeeze} pixels, bicubic with antialiasing"
    else:
        resized = (
            f"resize it so that its shorter side has {side} pixels, bilinear with antialiasing"
        )
    centre = f"the {side}x{side} pixels in the middle"
    cut = f"cut out {centre}"
    if crops != 1:
        cut = (
            f"cut out {crops} crops of {side}x{side} pixels, the corners, the middle and the same "
            "of the mirror image, and average the outputs"
        )
    # As bands are read: grey bytes by Pillow, all others as tensors.
    bands = given.get("bands")
    as_tensors = bands and (bands["deep"] or bands["chosen"] != GREY)
    resizes = "torchvision's `resize` of tensors" if as_tensors else "Pillow's `Image.resize`"
    return f"{turned}; {resized}; {cut}. {resizes} resizes in this way."


def _inputs(manifest: Manifest) -> str:
    size = ", ".join(map(str, manifest.input["size"]))
    lines = [f"Input `{manifest.input['name']}`: {manifest.input['dtype']} (B, {size})"]
    if manifest.task != "policy":
        lines += [
            f"in [0, 1], minus the mean {manifest.input['mean']}, divided by the standard "
            f"deviation {manifest.input['std']}.",
            f"Preprocessing: {preparation(manifest.input)}",
        ]
        if bands := manifest.input.get("bands"):
            names = ", ".join(code(name) for name in bands["names"])
            lines.append(f"Channels, in order: {names}.")
            if bands["deep"]:
                low, high = manifest.input["value_range"]
                lines.append(f"[0, 1] stands for values from {low:g} to {high:g}, not clipped.")
        elif values := manifest.input.get("value_range"):
            lines.append(
                f"Images with more than 8 bits or floating numbers: {values[0]:g} becomes 0, "
                f"{values[1]:g} becomes 1."
            )
    return "\n".join(lines)


def _outputs(manifest: Manifest) -> str:
    names = manifest.output["names"].items()
    lines = [f"- `{name}` {meaning}" for name, meaning in names]
    if thresholds := manifest.output.get("thresholds"):
        pairs = zip(manifest.output["classes"], thresholds, strict=True)
        rows = [_row(code(name), f"{value:.4g}") for name, value in pairs]
        lines += ["", "\n".join([_row("label", "threshold"), "|---|---:|", *rows])]
    return "Outputs:\n\n" + "\n".join(lines)


def _lineage(origin: Origin) -> list[str]:
    """Table of the sources, and of what they were made from."""
    if not origin.sources:
        return ["## Sources", "None are recorded: it began with random weights or a checkpoint."]
    rows = [_row("source", "weights", "about", "licence"), "|---|---|---|---|"]

    def put(sources: Sequence[Ancestor], above: str) -> None:
        for each in sources:
            place = f"{above} < {each.name}" if above else each.name
            known = {None: "unknown", "": "none needed"}.get(each.license, str(each.license))
            said = "as its sources" if each.sources else known
            weights = code(each.weights)
            if each.hub:
                weights = f"[{weights}](https://huggingface.co/{each.hub})"
            rows.append(_row(code(place), weights, code(each.about), said))
            put(each.sources, place)

    put(origin.sources, "")
    return ["## Sources", "\n".join(rows)]


def _cost(origin: Origin) -> list[str]:
    summary = origin.summary
    found = summary.get("compute")
    compute = found if isinstance(found, dict) else {}
    lines = []
    if (steps := _finite(summary.get("steps"))) is not None:
        lines.append(f"- steps: {steps:.0f}")
    seconds = _finite(compute.get("seconds"))
    if seconds is None:
        seconds = _finite(summary.get("seconds"))
    if seconds is not None:
        lines.append(f"- seconds, with all that the training needed: {seconds:.0f}")
    if (spent := _finite(compute.get("multiply_adds"))) is not None:
        lines.append(f"- multiply-adds: {spent:.3g}")
    if (memory := _finite(summary.get("peak_memory_mb"))) is not None:
        lines.append(f"- peak memory: {memory:.0f} MiB")
    return ["## Training cost", "\n".join(lines)] if lines else []


def _license_line(origin: Origin) -> str:
    license = common_license(origin)
    if license is not None:
        return (
            f"{code(license)}, which all sources have. The training data have their own: see "
            "whether it allows this one before passing the model on."
        )
    return (
        "Not recorded. It depends on those of the sources and of the training data: see to them "
        "before passing the model on, and then add `license` to the metadata above."
    )
