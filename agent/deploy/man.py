"""Man pages and shell completion, made from the command line itself: `python -m agent.deploy.man FOLDER`.

One page for `checkmeter` and one for each verb, a verb's own verbs within it. Nothing of a page is written by hand: the
text is what `--help` says. It knows roff and click's commands; it does not know what a verb does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import click
from click.shell_completion import BashComplete, ZshComplete

from agent.cli.main import VERBS, cli

PROGRAM = "checkmeter"
_COMPLETE = "_CHECKMETER_COMPLETE"
# sysexits.h; the same for every verb (agent.cli.main).
_EXITS = (
    ("0", "Done."),
    ("1", "The verb's own negative answer."),
    ("2", "Wrong usage."),
    ("69", "A device or the broker is unavailable."),
    ("74", "Input or output failed."),
    ("78", "Configuration error."),
)
_FILES = (
    ("/etc/checkmeter/site.toml", "What is in the building; the service reads it."),
    ("/etc/checkmeter/credentials", "One file for each secret, which the site file names."),
    ("/var/lib/checkmeter", "What the gateway has read, learned and raised."),
)
_ENVIRONMENT = (("NO_COLOR", "Where it is set and not empty, nothing is coloured."),)


def pages(day: datetime, release: str) -> dict[str, str]:
    """File name -> the page in roff's man macros."""
    root = click.Context(cli, info_name=PROGRAM)
    made = {f"{PROGRAM}.1": _page(root, PROGRAM, str(cli.help), day, release, listed=False)}
    for verb, (_, summary) in VERBS.items():
        command = cli.get_command(root, verb)
        assert command is not None
        context = click.Context(command, info_name=verb, parent=root)
        made[f"{PROGRAM}-{verb}.1"] = _page(context, f"{PROGRAM}-{verb}", summary, day, release, listed=True)
    return made


def completions() -> dict[str, str]:
    """Shell -> the script that asks `checkmeter` itself what may follow."""
    return {
        "bash": BashComplete.source_template % _variables("bash"),
        "zsh": ZshComplete.source_template % _variables("zsh"),
    }


def _variables(shell: str) -> dict[str, str]:
    return {"complete_func": f"_{PROGRAM}_completion", "complete_var": _COMPLETE, "prog_name": PROGRAM}


def _page(context: click.Context, name: str, summary: str, day: datetime, release: str, *, listed: bool) -> str:
    lines = [
        f'.TH {_text(name.upper())} 1 {day:%Y-%m-%d} "{PROGRAM} {_text(release)}" "{PROGRAM}"',
        ".ad l",
        ".nh",
        ".SH NAME",
        f"{_text(name)} \\- {_text(summary.rstrip('.'))}",
        ".SH SYNOPSIS",
        *_synopsis(context),
        ".SH DESCRIPTION",
        *_paragraphs(context.command.help or summary),
    ]
    lines += _options(context, ".SH OPTIONS")
    if not listed:
        lines += [".SH VERBS", *(line for verb, (_, text) in VERBS.items() for line in _entry(verb, text))]
    elif isinstance(context.command, click.Group):
        for verb, inner in _verbs(context):
            lines += [f".SH {_text(verb.upper())}", *_synopsis(inner), ".PP", *_paragraphs(inner.command.help or "")]
            lines += _options(inner, "")
    lines += [".SH EXIT STATUS", *(line for code, text in _EXITS for line in _entry(code, text))]
    lines += [".SH ENVIRONMENT", *(line for what, text in _ENVIRONMENT for line in _entry(what, text))]
    lines += [".SH FILES", *(line for path, text in _FILES for line in _entry(path, text))]
    others = [f"{PROGRAM}-{verb}" for verb in VERBS] if not listed else [PROGRAM]
    lines += [".SH SEE ALSO", ",\n".join(f".BR {_text(other)} (1)" for other in others)]
    return "\n".join(lines) + "\n"


def _verbs(context: click.Context, above: str = "") -> Iterator[tuple[str, click.Context]]:
    """The verbs below a group, its sub-groups' too, each with its full name."""
    group = context.command
    assert isinstance(group, click.Group)
    for verb in group.list_commands(context):
        command = group.get_command(context, verb)
        if command is None:
            continue
        inner = click.Context(command, info_name=verb, parent=context)
        if isinstance(command, click.Group):
            yield from _verbs(inner, f"{above}{verb} ")
        else:
            yield f"{above}{verb}", inner


def _synopsis(context: click.Context) -> list[str]:
    rest = " ".join(context.command.collect_usage_pieces(context))
    return [f".B {_text(context.command_path)}", _text(rest)]


def _options(context: click.Context, heading: str) -> list[str]:
    records = [
        record
        for parameter in context.command.get_params(context)
        if (record := parameter.get_help_record(context)) and record[1]  # an argument without a word stands above
    ]
    entries = [line for names, text in records for line in _entry(names, text)]
    return [heading, *entries] if heading and entries else entries


def _entry(term: str, text: str) -> list[str]:
    return [".TP", f".B {_text(term)}", *(_paragraphs(text) or ["\\&"])]


def _paragraphs(text: str) -> list[str]:
    """Help text as roff; click's \\b keeps a paragraph's lines as they are."""
    lines: list[str] = []
    for block in text.replace("\f", "").strip().split("\n\n"):
        if lines:
            lines.append(".PP")
        if block.lstrip().startswith("\b"):
            kept = [line.rstrip() for line in block.splitlines() if line.strip() not in ("", "\b")]
            lines += [".nf", *map(_text, kept), ".fi"]
        else:
            lines += [_text(" ".join(block.split()))]
    return lines


def _text(text: str) -> str:
    """Text as roff takes it: no escape, hyphens that can be copied into a shell, no request at a line's start."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main(argv: list[str], day: datetime | None = None) -> int:
    """Write pages and completions into a folder; the pages are of today, or of `day`."""
    if len(argv) != 2:
        print("usage: python -m agent.deploy.man FOLDER", file=sys.stderr)
        return 2
    folder = Path(argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages(day or datetime.now(UTC), version(PROGRAM)).items():
        (folder / name).write_text(text, encoding="utf-8")
    for shell, text in completions().items():
        (folder / f"{PROGRAM}.{shell}").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
