"""Progress and advice of the verbs, on standard error; `checkmeter --quiet` leaves them out.

Results, errors and warnings are not notes: they are always told.
"""

from __future__ import annotations

import click

_KEY = "checkmeter.quiet"


def quiet_option(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """Keep `--quiet` for the verbs below."""
    ctx.meta[_KEY] = value


def quiet() -> bool:
    """Whether the user wants no notes."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_KEY))


def note(text: str) -> None:
    """Tell one line of progress or advice."""
    if not quiet():
        click.echo(text, err=True)
