"""The training report: one self-contained HTML page for whoever decides on a model.

It owns the words and the order: what was found, what the rows look like, how the model was made, how it did on
rows it had not seen. It opens no file and computes no statistic of its own but the data view.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from agent.offline import metrics
from agent.offline.training import train_plots
from agent.offline.training.table import FeatureTable
from agent.offline.training.train import HIDDEN, Trained

CSS = """
:root{--ink:#20262c;--soft:#5b646c;--line:#dfe3e7;--wash:#f5f7f8;--theft:#c8501e;--none:#2f6f9f}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff;font:15px/1.55 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 28px 72px}
h1{font-size:26px;line-height:1.25;margin:0 0 6px}
h2{font-size:19px;margin:44px 0 6px;padding-top:18px;border-top:1px solid var(--line)}
h3{font-size:15px;margin:22px 0 6px}
p{margin:6px 0 12px;max-width:78ch}.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(126px,1fr));gap:12px;margin:22px 0 8px}
.tile{background:var(--wash);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:24px;font-weight:650;line-height:1.2}.tile span{color:var(--soft);font-size:13px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:18px 26px;align-items:start}
figure{margin:8px 0}svg{width:100%;height:auto;display:block}
svg text{font-family:system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif!important}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600;vertical-align:bottom}th:first-child,td:first-child{text-align:left;padding-left:2px}
.matrix td,.matrix th{text-align:center}.matrix td{min-width:110px;font-size:20px}
.matrix td:first-child{font-size:13.5px;text-align:left}
.right{background:#e8f1f7}.wrong{background:#fbeee7}.matrix small{display:block;font-size:12px;color:var(--soft)}
td.theft{color:var(--theft);font-weight:600}code{font-size:13px;overflow-wrap:anywhere}
@media print{main{padding:0}h2{break-after:avoid}figure,.tile,table{break-inside:avoid}}
"""
SHOWN_ROWS = 20


def render(table: FeatureTable, result: Trained, name: str, model_sha256: str) -> str:
    """The page. `name` is the table's file name, `model_sha256` that of the model file it led to."""
    truth = table.target[result.held]
    curve = metrics.curve(truth, result.held_probability)
    parts = [
        _summary(table, result, name),
        _data_view(table),
        _correlation(table),
        _model(table, result),
        _evaluation(table, result, curve),
        _predictions(table, result),
        _provenance(table, result, name, model_sha256),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Theft model on {escape(name)}</title><style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


class _Html(str):
    """A table cell made here, tags and all."""

    __slots__ = ()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], classes: str = "") -> str:
    """Cells are escaped, but for those that are an `_Html` cell already."""

    def cell(text: str) -> str:
        return text if isinstance(text, _Html) else f"<td>{escape(text)}</td>"

    body = "".join("<tr>" + "".join(cell(text) for text in row) + "</tr>" for row in rows)
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    return (
        f'<div class="scroll"><table class="{classes}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _figures(*drawings: str) -> str:
    return '<div class="figures">' + "".join(f"<figure>{d}</figure>" for d in drawings) + "</div>"


def _model_name(result: Trained) -> str:
    return "logistic regression" if result.settings.model == "logistic" else f"neural network ({HIDDEN} hidden units)"


def _summary(table: FeatureTable, result: Trained, name: str) -> str:
    m = result.metrics
    thefts = int(table.target[result.held].sum())
    tiles = [
        (f"{m['auc']:.3f}", f"AUC, 95 %: {m['auc_low']:.3f} to {m['auc_high']:.3f}"),
        (f"{m['average_precision']:.3f}", "average precision"),
        (f"{m['ks']:.3f}", "KS"),
        (f"{m['f1']:.3f}", f"F1 at threshold {result.threshold:.2f}"),
        (f"{m['recall']:.0%}", "of the thefts named"),
        (f"{m['precision']:.0%}", "of the named are thefts"),
        (f"{m['ece']:.3f}", "calibration error (ECE)"),
    ]
    boxes = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(t)}</span></div>' for v, t in tiles)
    few = ""
    if thefts < 30:
        few = (
            f" There are only {thefts} thefts in the held part: read the figures with their intervals, and compare "
            "several seeds before a decision."
        )
    return (
        f"<h1>Theft model: {_model_name(result)} on {escape(name)}</h1>"
        f'<p class="soft">{len(table.target)} rows, {table.target.sum()} of them theft; trained on '
        f"{len(result.trained)}, judged on {len(result.held)} rows that the training never saw.{few}</p>"
        f'<div class="tiles">{boxes}</div>'
    )


def _data_view(table: FeatureTable) -> str:
    rows = []
    for place, name in enumerate(table.names):
        values = table.features[:, place]
        guilty, others = values[table.target == 1], values[table.target == 0]
        low, middle, high = np.percentile(values, [0, 50, 100])
        alone = metrics.auc(table.target, values)
        rows.append(
            [
                name,
                *(f"{v:.4g}" for v in (values.mean(), values.std(), low, middle, high)),
                str(len(np.unique(values))),
                *(f"{v:.4g}" for v in (others.mean(), guilty.mean())),
                f"{max(alone, 1 - alone):.3f}",
            ]
        )
    head = ["feature", "mean", "sd", "min", "median", "max", "distinct", "mean, no theft", "mean, theft", "AUC alone"]
    return (
        "<h2>Data view</h2><p>Every feature against the target. AUC alone: how well the feature by itself ranks "
        "thefts, whichever its direction; 0.5 is chance.</p>"
        + _table(head, rows)
        + f"<figure>{train_plots.distributions(table.names, table.features, table.target)}</figure>"
    )


def _correlation(table: FeatureTable) -> str:
    columns = np.column_stack([table.features, table.target])
    spread = columns.std(axis=0)
    scaled = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)
    matrix = scaled.T @ scaled / len(columns)
    return (
        "<h2>Correlation</h2><p>Pearson correlation of the features with each other and with the target (last row). "
        "Two features close to 1 or -1 say the same thing twice.</p>"
        f"<figure>{train_plots.correlation((*table.names, 'is_theft'), matrix)}</figure>"
    )


def _model(table: FeatureTable, result: Trained) -> str:
    settings = result.settings
    y = table.target
    split = _table(
        ["part", "rows", "thefts", "share"],
        [
            [part, str(len(r)), str(y[r].sum()), f"{y[r].mean():.1%}"]
            for part, r in (("training", result.trained), ("held", result.held))
        ],
    )
    how = (
        f"whole groups by {escape(table.group_name)}, the same share of groups with and without theft"
        if table.group_name
        else "stratified by the target"
    )
    text = (
        f"<h2>Split and model</h2><p>Split {settings.split:g} : {1 - settings.split:.3g}, {how}, seed {settings.seed}."
        f"</p>{split}<p>Features are standardised on the training part. The L2 penalty is the one of least log loss "
        "in cross-validation within the training part; so are the threshold (best F1) and the calibration (Platt: "
        f"slope {result.platt.slope:.3f}, intercept {result.platt.intercept:+.3f}; out-of-fold ECE "
        f"{result.platt.ece_before:.3f} before, {result.platt.ece_after:.3f} after).</p>"
    )
    plot = train_plots.penalties(result.penalty_losses, result.penalty)
    if settings.model == "mlp":
        return text + _figures(plot)
    weights, bias = result.network.layers[0]
    effect = weights[0] * result.scale
    rows = [
        [table.names[i], f"{effect[i]:+.3f}", f"{np.exp(effect[i]):.3g}", f"{weights[0, i]:+.4g}"]
        for i in np.argsort(-np.abs(effect))
    ]
    constant = float(bias[0] - weights[0] @ result.network.mean)
    rows.append(["(constant)", "", "", f"{constant:+.4g}"])
    head = ["feature", "log-odds a sd", "odds ratio a sd", "log-odds a unit"]
    return text + "<h3>Coefficients, calibration included</h3>" + _table(head, rows) + _figures(plot)


def _evaluation(table: FeatureTable, result: Trained, curve: metrics.Curve) -> str:
    truth = table.target[result.held]
    named = metrics.confusion(truth, result.held_probability, result.threshold)
    matrix = _table(
        ["", "named", "not named"],
        [
            [
                "theft",
                _Html(f'<td class="right">{named.true_positive}<small>found</small></td>'),
                _Html(f'<td class="wrong">{named.false_negative}<small>missed</small></td>'),
            ],
            [
                "no theft",
                _Html(f'<td class="wrong">{named.false_positive}<small>wrongly named</small></td>'),
                _Html(f'<td class="right">{named.true_negative}<small>left in peace</small></td>'),
            ],
        ],
        "matrix",
    )
    figures = [
        train_plots.roc(curve, result.threshold, (result.metrics["auc_low"], result.metrics["auc_high"])),
        train_plots.precision_recall(curve, result.threshold),
        train_plots.lift(curve),
        train_plots.kolmogorov_smirnov(curve),
        train_plots.calibration(metrics.calibration(truth, result.held_probability, 10 if len(truth) >= 500 else 5)),
        train_plots.importance(table.names, result.importance),
    ]
    drawn = "whole groups drawn" if table.group_name else "rows drawn"
    return (
        "<h2>Evaluation on the held part</h2>"
        f"<h3>Confusion at threshold {result.threshold:.3f}</h3>{matrix}"
        f"<p>Precision {named.precision:.3f}, recall {named.recall:.3f}, F1 {named.f1:.3f}, accuracy "
        f"{named.accuracy:.3f}. Recall at a false-positive rate of 0.1 %: "
        f"{result.metrics['recall_at_fpr_0.001']:.3f}. The AUC's interval is a bootstrap of 1000 ({drawn}).</p>"
        + _figures(*figures)
    )


def _predictions(table: FeatureTable, result: Trained) -> str:
    order = np.argsort(-result.held_probability, kind="stable")[:SHOWN_ROWS]
    rows = []
    for place in order:
        row = result.held[place]
        guilty = table.target[row] == 1
        rows.append(
            [str(row + 2), f"{result.held_probability[place]:.3f}"]
            + [_Html('<td class="theft">theft</td>') if guilty else "no theft"]
            + [f"{value:.4g}" for value in table.features[row]]
        )
    return (
        f"<h2>Prediction</h2><p>The {len(order)} most suspect rows of the held part, by their line in the file.</p>"
        + _table(["line", "probability", "truth", *table.names], rows)
    )


def _provenance(table: FeatureTable, result: Trained, name: str, model_sha256: str) -> str:
    group = f" --group {table.group_name}" if table.group_name else ""
    s = result.settings
    command = f"checkmeter train {name} --model {s.model} --split {s.split:g}{group} --seed {s.seed}"
    left_out = f"<p>Left out as identifiers: {escape(', '.join(table.identifiers))}.</p>" if table.identifiers else ""
    return (
        f"<h2>Where it comes from</h2>{left_out}<p>Table SHA-256<br><code>{table.sha256}</code></p>"
        f"<p>Model SHA-256<br><code>{model_sha256}</code></p><p>Command<br><code>{escape(command)}</code></p>"
    )
