"""Which config and model are in force; trial and rollback."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent import models
from agent.downlink.desired import Desired, DesiredRefused
from agent.site.errors import ConfigError
from agent.site.load import digest, load
from agent.site.tables import Config
from agent.wire.topics import Address
from core.scoring.model import ModelRefused
from firmware_io.clock import Clock


class InForce:
    """Which configuration and model run: the gateway's own, or what the utility sent. Outlives a reload.

    Raises:
        ConfigError: the gateway's own site file is wrong.
    """

    def __init__(self, site_file: Path, clock: Clock, monotonic: Callable[[], float]) -> None:
        self._site_file = site_file
        own = load(site_file, online=True)
        self._own = own
        address = Address(own.site.tenant, own.site.site, own.site.gateway)
        self.folder = Path(own.store.path).parent / "desired"
        self.config = Desired("config", self.folder, address, self._check_config, clock.now, monotonic)
        self.model = Desired("model", self.folder, address, _check_model, clock.now, monotonic)
        self.config.started()
        self.model.started()

    def load(self) -> tuple[Config, str]:
        """The configuration in force with the model in force, and its SHA-256.

        A desired site file that no longer loads (a key file is gone, say) is rolled back here.

        Raises:
            ConfigError: the gateway's own site file is wrong.
        """
        path = self.config.active
        if path is not None:
            try:
                return self._with_model(load(path, online=True)), digest(path)
            except ConfigError as error:
                self.config.give_up("; ".join(error.errors))
        return self._with_model(load(self._site_file, online=True)), digest(self._site_file)

    def give_up(self, reason: str) -> bool:
        """The agent cannot be built of what is in force: give up what was sent, what is on trial first.

        False: nothing of it was sent, so it is the gateway's own configuration that is wrong.
        """
        sent = [desired for desired in (self.model, self.config) if desired.active is not None]
        on_trial = [desired for desired in sent if desired.reported.state == "on_trial"]
        for desired in on_trial or sent:
            desired.give_up(reason)
        return bool(sent)

    def _with_model(self, config: Config) -> Config:
        if self.model.active is None:
            return config
        detection = msgspec.structs.replace(config.detection, model=str(self.model.active))
        return msgspec.structs.replace(config, detection=detection)

    def _check_config(self, content: bytes) -> None:
        """Refuse a site file that does not load here, or that makes another gateway of this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".check-", suffix=".toml") as file:
            file.write(content)
            file.flush()
            try:
                wanted = load(file.name, online=True)
            except ConfigError as error:
                raise DesiredRefused("; ".join(error.errors).replace(file.name, "site file")) from None
        if wanted.site != self._own.site:
            raise DesiredRefused("[site] differs: a gateway keeps its tenant, site, name and time zone")
        if wanted.store.path != self._own.store.path:
            raise DesiredRefused(f"[store] path differs from {self._own.store.path}, where this record is kept")


def _check_model(content: bytes) -> None:
    try:
        models.checked(content)
    except ModelRefused as error:
        raise DesiredRefused(f"model {hashlib.sha256(content).hexdigest()[:12]}: {error}") from None
