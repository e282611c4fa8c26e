"""From a site file, and what stands in `conf.d` beside it, to one checked `Config`.

Every error is reported at once, each with file, line, key and what to do. Arrays of tables are joined over the files,
and no key may be set twice.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from agent.site import rules
from agent.site.parse import parse_table
from agent.site.source import Source, octets_of, read
from agent.site.tables import Config


def files_of(path: Path) -> list[Path]:
    """The site file and those of `conf.d` beside it, in the order of their names."""
    return [path, *sorted((path.parent / "conf.d").glob("*.toml"))]


def digest(path: Path) -> str:
    """SHA-256 of all that `load` reads, in hex: which configuration this is."""
    sha = hashlib.sha256()
    for file in files_of(path):
        sha.update(octets_of(file))
    return sha.hexdigest()


def read_site(path: Path) -> Source:
    """The merged tree of a site file with the lines of its keys, for those who parse a table of their own.

    Raises:
        ConfigError: unreadable, not TOML, or a key set twice.
    """
    return read(files_of(path))


def load(path: str | Path, *, online: bool = False) -> Config:
    """Read and check a site file. With `online`, also that each meter can be reached: a bus and an address.

    Relative paths in the file count from its folder.

    Raises:
        ConfigError: with all the errors.
    """
    return load_and_doubt(path, online=online)[0]


def load_and_doubt(path: str | Path, *, online: bool = False) -> tuple[Config, list[str]]:
    """As `load`, and what is allowed and most likely not meant, one line each.

    Raises:
        ConfigError: with all the errors.
    """
    path = Path(path)
    source = read_site(path)
    config = parse_table(source, (), source.tree, Config)
    rules.check(config, source, online=online)
    source.check()
    return _from_folder(config, path.resolve().parent), source.warnings()


def _from_folder(config: Config, folder: Path) -> Config:
    """The same with relative paths made absolute."""

    def absolute(text: str | None) -> str | None:
        return text if text is None or text.startswith("credential:") else str(folder / text)

    replace = msgspec.structs.replace
    mqtt = config.mqtt and replace(
        config.mqtt,
        ca=absolute(config.mqtt.ca),
        certificate=absolute(config.mqtt.certificate),
        key=absolute(config.mqtt.key),
        password=absolute(config.mqtt.password),
        command_keys=[str(folder / key) for key in config.mqtt.command_keys],
    )
    meters = [
        replace(
            meter,
            password=absolute(meter.password),
            authentication_key=absolute(meter.authentication_key),
            encryption_key=absolute(meter.encryption_key),
            profile=absolute(meter.profile) if (meter.profile or "").endswith(".toml") else meter.profile,
        )
        for meter in config.meter
    ]
    return replace(
        config,
        meter=meters,
        mqtt=mqtt,
        detection=replace(config.detection, model=absolute(config.detection.model)),
        store=replace(config.store, path=str(folder / config.store.path)),
        service=replace(
            config.service,
            socket=str(folder / config.service.socket),
            metrics_textfile=absolute(config.service.metrics_textfile),
        ),
    )
