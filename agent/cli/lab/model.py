"""`checkmeter model`: what a model file holds, and whether a gateway would take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from core.scoring.model import CompactModel, ModelRefused, golden_error, load

MODEL = click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group(name="model")
def command() -> None:
    """Look at or check a .tflite theft model."""


@command.command()
@MODEL
@click.option("--json", "as_json", is_flag=True, help="The metadata as JSON.")
def show(model: Path, as_json: bool) -> None:
    """Show what MODEL is: features, training, measures, calibration."""
    checked = _load(model)
    if as_json:
        click.echo(json.dumps(checked.file.metadata, indent=2, sort_keys=True))
        return
    for line in _lines(checked):
        click.echo(line)


@command.command()
@MODEL
def verify(model: Path) -> None:
    """Check MODEL as a gateway does before it uses it; exit code 1 and the reason if it is refused."""
    checked = _load(model)
    click.echo(
        f"{model}: good. Structure, seal and {len(checked.file.golden.outputs)} golden vectors "
        f"(to {golden_error(checked):.1g}) hold; SHA-256 {checked.sha256}"
    )


def _load(path: Path) -> CompactModel:
    try:
        return load(path.read_bytes())
    except ModelRefused as error:
        raise click.ClickException(f"{path}: refused: {error}") from None


def _lines(model: CompactModel) -> list[str]:
    meta: dict[str, Any] = model.file.metadata
    widths = [len(model.features), *(len(bias) for _, bias in model.file.network.layers)]
    lines = [
        ("kind", f"{meta.get('model', '?')}, {' -> '.join(map(str, widths))}, float32"),
        ("made with", str(meta.get("created_with", "?"))),
        ("sha256", model.sha256),
        ("threshold", f"{model.threshold:.4g}"),
        *((f"{part}", _inline(meta.get(part))) for part in ("training", "metrics", "calibration")),
        (
            "golden",
            f"{len(model.file.golden.outputs)} vectors, repeated by {model.runtime} to {golden_error(model):.1g}",
        ),
    ]
    scaling = meta["scaling"]
    scales = scaling.get("scale") or [1.0] * len(model.features)
    wide = max(len(name) for name in model.features)
    return [
        *(f"{name:12s} {text}" for name, text in lines),
        f"{'features':12s} {'name':{wide}s} {'mean':>12s} {'scale':>12s}",
        *(
            f"{'':12s} {name:{wide}s} {mean:12.5g} {scale:12.5g}"
            for name, mean, scale in zip(model.features, scaling["mean"], scales, strict=True)
        ),
    ]


def _inline(part: Any) -> str:
    if not isinstance(part, dict):
        return "not told"
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in part.items())
