"""`make bench-train TABLE=features.csv`: how much a training figure owes to the split.

It trains on many random splits and prints the AUC on the held parts beside that of scikit-learn's plain logistic
regression on the same splits, and the greatest difference between each trained model and its .tflite file.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from sklearn.linear_model import LogisticRegression

from agent.offline import metrics
from agent.offline.training.table import read_table
from agent.offline.training.train import Kind, Settings, encode, train
from core.scoring.model import load


@click.command()
@click.argument("features", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seeds", default=200, show_default=True)
@click.option("--model", type=click.Choice(["logistic", "mlp"]), default="logistic", show_default=True)
@click.option("--split", default=0.8, show_default=True)
def main(features: Path, seeds: int, model: Kind, split: float) -> None:
    """Train on many random splits of FEATURES."""
    table = read_table(features)
    ours, plain, error = [], [], 0.0
    with click.progressbar(range(seeds), label=f"{seeds} splits") as bar:
        for seed in bar:
            result = train(table, Settings(model, split, seed))
            ours.append(result.metrics["auc"])
            reference = LogisticRegression(max_iter=1000)
            reference.fit(table.features[result.trained], table.target[result.trained])
            score = reference.decision_function(table.features[result.held])
            plain.append(metrics.auc(table.target[result.held], score))
            runtime = load(encode(table, result)).score(table.features.astype(np.float32))
            error = max(error, float(np.abs(runtime - result.network.predict(table.features)).max()))
    for name, found in ((f"checkmeter, {model}", ours), ("scikit-learn, plain logistic regression", plain)):
        low, middle, high = np.percentile(found, [5, 50, 95])
        mean = np.mean(found)
        click.echo(f"{name:42s} AUC median {middle:.4f}, mean {mean:.4f}, 5 to 95 %: {low:.3f} to {high:.3f}")
    click.echo(f"{'.tflite against the trained model':42s} at most {error:.1e}")


if __name__ == "__main__":
    main()
