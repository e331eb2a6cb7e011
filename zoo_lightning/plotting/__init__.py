"""Figures of a run: landmarks and errors, confusion matrices, gates; readable in greyscale.

Functions return matplotlib figures, drawn without a display; ``save_figure`` writes them.
"""

from zoo_lightning.plotting.classification import plot_confusion, plot_mistakes
from zoo_lightning.plotting.figures import (
    Faces,
    plot_error_curve,
    plot_landmarks,
    plot_ranked_faces,
    save_figure,
)
from zoo_lightning.plotting.gates import plot_gate_history, plot_gates_now
from zoo_lightning.plotting.landmarks import plot_heatmaps, plot_point_errors
from zoo_lightning.plotting.masks import plot_masks
from zoo_lightning.plotting.multi_label import plot_label_scores, plot_labels

__all__ = [
    "Faces",
    "plot_confusion",
    "plot_error_curve",
    "plot_gate_history",
    "plot_gates_now",
    "plot_heatmaps",
    "plot_label_scores",
    "plot_labels",
    "plot_landmarks",
    "plot_masks",
    "plot_mistakes",
    "plot_point_errors",
    "plot_ranked_faces",
    "save_figure",
]
