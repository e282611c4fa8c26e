"""The figures of the training report, each as an inline SVG. It knows how they look, not what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from agent.offline.metrics import F64, Calibration, Curve

NONE, THEFT, GREY = "#2f6f9f", "#c8501e", "#8a929a"  # blue and vermilion: apart for every kind of colour vision
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, searchable
    "svg.hashsalt": "checkmeter",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": "#b8bec4",
    "axes.linewidth": 0.8,
    "axes.labelcolor": "#3c444c",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ec",
    "grid.linewidth": 0.7,
    "xtick.color": "#5b646c",
    "ytick.color": "#5b646c",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
}
DIVERGING = LinearSegmentedColormap.from_list("blue-white-vermilion", [NONE, "#ffffff", THEFT])


def _svg(draw: Callable[[Figure], None], width: float, height: float, label: str) -> str:
    """The SVG element of one figure; `label` is read to those who cannot see it."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # Sizes by CSS, and identifiers that do not clash with those of the next figure on the page.
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    prefix = re.sub(r"\W+", "-", label.lower())[:40]
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" style="max-width:{width * 112:.0f}px" ', 1)


def _plain(name: str) -> str:
    """A column's name as text: Matplotlib would read dollar signs as mathematics."""
    return name.replace("$", r"\$")


def distributions(names: tuple[str, ...], features: F64, target: NDArray[np.intp]) -> str:
    """A histogram of every feature, of the rows of theft and of the others."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)

    def draw(figure: Figure) -> None:
        axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
        for place, name in enumerate(names):
            _histogram(axes[place], name, features[:, place], target)
        for empty in axes[len(names) :]:
            empty.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)

    return _svg(draw, 3.6 * columns, 2.3 * rows + 0.4, "Distribution of every feature")


def _histogram(axes: Axes, name: str, values: F64, target: NDArray[np.intp]) -> None:
    levels = np.unique(values)
    if len(levels) <= 15 and np.array_equal(levels, np.round(levels)) and levels[-1] - levels[0] <= 30:
        edges = np.arange(levels[0] - 0.5, levels[-1] + 1)
        ticks = np.arange(levels[0], levels[-1] + 1)
        axes.set_xticks(ticks[:: max(1, len(ticks) // 8)])
    else:
        low, high = np.percentile(values, [0.5, 99.5])
        edges = np.linspace(low, high if high > low else low + 1, 31)
        values = np.clip(values, edges[0], edges[-1])
    for kind, colour, label in ((0, NONE, "no theft"), (1, THEFT, "theft")):
        chosen = values[target == kind]
        axes.hist(
            chosen, edges.tolist(), weights=np.full(len(chosen), 1 / len(chosen)), color=colour, alpha=0.55, label=label
        )
    axes.set_title(_plain(name), fontsize=9)
    axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    axes.grid(axis="x", visible=False)


def correlation(names: tuple[str, ...], matrix: F64) -> str:
    """The correlation matrix as a heat map with its numbers."""
    size, names = len(names), tuple(_plain(name) for name in names)
    side = min(11.0, 2.6 + 0.62 * size)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        image = axes.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks(range(size), names, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), names)
        if size <= 20:
            for (row, column), value in np.ndenumerate(matrix):
                colour = "white" if abs(value) > 0.6 else "#3c444c"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8.5)
        figure.colorbar(image, shrink=0.8, aspect=30, label="Pearson correlation")

    return _svg(draw, side + 1.2, side * 0.82, "Correlation matrix")


def roc(curve: Curve, threshold: float, interval: tuple[float, float]) -> str:
    """Receiver operating characteristic with the chosen threshold on it."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        x, y = np.append(0, curve.false_positive_rate), np.append(0, curve.recall)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        axes.fill_between(x, y, alpha=0.08, color=THEFT, linewidth=0)
        label = f"AUC {curve.auc():.3f} (95 %: {interval[0]:.3f} to {interval[1]:.3f})"
        axes.plot(x, y, color=THEFT, label=label)
        _mark(axes, curve, curve.false_positive_rate, curve.recall, threshold)
        axes.set(xlabel="false-positive rate", ylabel="recall", title="ROC", xlim=(-0.01, 1.01), ylim=(0, 1.02))
        axes.legend(loc="lower right")

    return _svg(draw, 4.4, 3.8, "ROC curve")


def precision_recall(curve: Curve, threshold: float) -> str:
    """Precision against recall, with the share of thefts as the floor."""
    floor = curve.true_positive[-1] / (curve.true_positive[-1] + curve.false_positive[-1])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(floor, color=GREY, linewidth=1, linestyle=":")
        axes.step(np.append(0, curve.recall), np.append(curve.precision[0], curve.precision), where="pre", color=THEFT)
        _mark(axes, curve, curve.recall, curve.precision, threshold)
        title = f"Precision and recall: average precision {curve.average_precision():.3f}"
        axes.set(xlabel="recall", ylabel="precision", title=title, xlim=(-0.01, 1.01), ylim=(0, 1.04))
        axes.legend(loc="lower left")

    return _svg(draw, 4.4, 3.8, "Precision-recall curve")


def _mark(axes: Axes, curve: Curve, x: F64, y: F64, threshold: float) -> None:
    named = np.flatnonzero(curve.threshold >= threshold)
    if len(named):
        label = f"threshold {threshold:.2f}"
        axes.plot(x[named[-1]], y[named[-1]], "o", color=NONE, markersize=7, label=label, zorder=5)


def lift(curve: Curve) -> str:
    """How many times better than a random choice the most suspect rows are."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(1, color=GREY, linewidth=1, linestyle=":")
        axes.step(np.append(0, curve.named_share), np.append(curve.lift[0], curve.lift), where="pre", color=THEFT)
        axes.set(xlabel="share of rows inspected, most suspect first", ylabel="lift", title="Lift", xlim=(-0.01, 1.01))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))

    return _svg(draw, 4.4, 3.4, "Lift curve")


def kolmogorov_smirnov(curve: Curve) -> str:
    """Both classes' cumulative shares over the share inspected, and where they are furthest apart."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        share = np.append(0, curve.named_share)
        axes.plot(share, np.append(0, curve.recall), color=THEFT, label="thefts found")
        axes.plot(share, np.append(0, curve.false_positive_rate), color=NONE, label="others named")
        best = int(np.argmax(curve.recall - curve.false_positive_rate))
        ends = curve.false_positive_rate[best], curve.recall[best]
        axes.plot([curve.named_share[best]] * 2, ends, color="#3c444c", linewidth=1.2, linestyle="--")
        at = curve.named_share[best] + 0.02, sum(ends) / 2
        axes.annotate(f"KS {curve.ks():.3f}", at, fontsize=9)
        axes.set(xlabel="share of rows inspected, most suspect first", ylabel="share of the class", title="KS")
        axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.02))
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        axes.legend(loc="lower right")

    return _svg(draw, 4.4, 3.4, "Kolmogorov-Smirnov curve")


def calibration(found: Calibration) -> str:
    """Share of thefts against the mean prediction, the size of a dot for the number of rows."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        # 95 % Wilson interval: honest also for the bins of three rows.
        n, p, z = found.count, found.observed, 1.96
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        axes.vlines(found.predicted, middle - half, middle + half, color=THEFT, linewidth=1.2, alpha=0.5)
        axes.scatter(found.predicted, p, s=18 + 160 * n / n.sum(), color=THEFT, zorder=4)
        axes.set(xlabel="predicted probability", ylabel="share of thefts", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_title("Calibration")

    return _svg(draw, 4.4, 3.6, "Calibration curve")


def importance(names: tuple[str, ...], lost: F64) -> str:
    """AUC lost when one feature is shuffled: mean and spread over the repeats, greatest on top."""
    order = np.argsort(lost.mean(axis=1))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.barh(range(len(order)), lost.mean(axis=1)[order], color=NONE, alpha=0.8, height=0.62)
        axes.errorbar(
            lost.mean(axis=1)[order], range(len(order)), xerr=lost.std(axis=1)[order], fmt="none", ecolor="#3c444c",
            elinewidth=1, capsize=2,
        )  # fmt: skip
        axes.set_yticks(range(len(order)), [_plain(names[i]) for i in order])
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="AUC lost when the feature is shuffled", title="Permutation importance")

    return _svg(draw, 5.6, 1.4 + 0.32 * len(order), "Permutation importance")


def penalties(losses: dict[float, float], chosen: float) -> str:
    """Cross-validated log loss over the strength of the regularisation."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(list(losses), list(losses.values()), "o-", color=NONE, markersize=4)
        axes.plot(chosen, losses[chosen], "o", color=THEFT, markersize=8, label=f"chosen: {chosen:g}")
        axes.set_xscale("log")
        axes.set(xlabel="L2 penalty", ylabel="log loss, out of fold", title="Choice of the regularisation")
        axes.legend()

    return _svg(draw, 4.4, 3.0, "Choice of the regularisation")
