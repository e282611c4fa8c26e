"""`checkmeter train`: a feature table in, a .tflite model and a report out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from agent.process.exit_codes import INPUT_OUTPUT
from core.scoring.model import ModelRefused, golden_error, load


@click.command(name="train")
@click.argument("features", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The .tflite file."
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write a self-contained HTML report.")
@click.option("--model", type=click.Choice(["logistic", "mlp"]), default="logistic", show_default=True)
@click.option("--split", type=click.FloatRange(0.05, 0.95), default=0.8, show_default=True, help="Share to train on.")
@click.option("--group", help="Column whose rows stay on one side of the split [default: building, if there is one].")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the split and the fit.")
def command(
    features: Path,
    output: Path,
    report: Path | None,
    model: Literal["logistic", "mlp"],
    split: float,
    group: str | None,
    seed: int,
) -> None:
    """Train a theft model on a table of FEATURES (CSV with an is_theft column of 0 and 1).

    The model is judged on the part it was not trained on, written as .tflite, loaded again and checked.
    """
    try:
        from agent.offline.training.table import SplitError, TableError, read_table
        from agent.offline.training.train import Settings, encode, train
        from agent.offline.training.train_report import render
    except ModuleNotFoundError as error:
        raise click.ClickException(f"training needs {error.name}: pip install 'checkmeter[train]'") from None
    try:
        table = read_table(features, group)
        result = train(table, Settings(model, split, seed))
    except SplitError as error:
        raise click.ClickException(str(error)) from None
    except TableError as error:
        click.echo(str(error), err=True)
        raise SystemExit(INPUT_OUTPUT) from None
    if table.leaks is not None:
        click.echo(f"warning: {table.leaks}; use --group meter or --group building to judge it", err=True)
    content = encode(table, result)
    try:
        checked = load(content)
    except ModelRefused as error:
        raise click.ClickException(f"the trained model does not survive its own check: {error}") from None
    output.write_bytes(content)
    if report:
        report.write_text(render(table, result, features.name, checked.sha256), encoding="utf-8")
    m = result.metrics
    click.echo(
        f"{len(result.trained)} rows trained on, {len(result.held)} held: AUC {m['auc']:.3f} "
        f"({m['auc_low']:.3f} to {m['auc_high']:.3f}), KS {m['ks']:.3f}, F1 {m['f1']:.3f} at threshold "
        f"{result.threshold:.3f}, ECE {m['ece']:.3f}"
    )
    click.echo(f"{output}: {len(content)} octets, golden vectors repeated to {golden_error(checked):.1g}")
    if report:
        click.echo(f"{report}: the report")
