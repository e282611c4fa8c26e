"""A gateway has none of the workstation's libraries (armhf cannot have some): every verb is there without them."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys

MISSING = {"pandas", "sklearn", "scipy", "matplotlib", "pyarrow", "amqtt", "psutil", "pymysql", "babel", "jinja2",
           "starlette", "uvicorn"}

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
import click
from agent.cli.main import cli

context = click.Context(cli)
for verb in cli.list_commands(context):
    assert cli.get_command(context, verb).get_help(context)
    print(verb)
"""


def test_every_verb_can_be_asked_for_help() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    assert {"run", "features", "train"} <= set(done.stdout.split())
