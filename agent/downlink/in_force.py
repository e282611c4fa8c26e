"""Which config and model are in force; trial and rollback.

What the utility sends is parsed in a process of its own (agent.downlink.examination) before this one reads it, and each
start is counted before the file on trial is parsed here.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.downlink.desired import Desired, DesiredRefused
from agent.downlink.examination import Examination, Kind, Verdict
from agent.site.errors import ConfigError
from agent.site.load import digest, load
from agent.site.tables import Config, Site
from agent.wire.topics import Address
from firmware_io.clock import Clock

VERDICTS_KEPT = 8  # of files examined


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
        self.model = Desired("model", self.folder, address, self._check_model, clock.now, monotonic)
        self._verdicts: dict[str, Verdict] = {}  # by SHA-256 of the content; the latest few
        self._examination: tuple[str, Examination] | None = None
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

    # -- what was sent, before it is believed -----------------------------------------------------------------------

    def examined(self, kind: Kind, content: bytes) -> bool:
        """Whether `content` has been read in a process of its own; if not, that goes on, or begins, meanwhile."""
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 in self._verdicts:
            return True
        if self._examination is None:
            self._examination = (sha256, self._examine(kind, content))
        name, examination = self._examination
        verdict = examination.verdict()
        if verdict is None:
            return False
        self._examination = None
        self._remember(name, verdict)
        return name == sha256

    def close(self) -> None:
        """End what is still being examined."""
        if self._examination is not None:
            self._examination[1].close()
            self._examination = None

    def _examine(self, kind: Kind, content: bytes) -> Examination:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".check-", suffix=f".{kind}", delete=False) as file:
            file.write(content)
        return Examination(kind, Path(file.name))

    def _remember(self, sha256: str, verdict: Verdict) -> None:
        if len(self._verdicts) >= VERDICTS_KEPT:
            self._verdicts.pop(next(iter(self._verdicts)))
        self._verdicts[sha256] = verdict

    def _verdict(self, kind: Kind, content: bytes) -> Verdict:
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self._verdicts:
            self._remember(sha256, self._examine(kind, content).wait())
        verdict = self._verdicts[sha256]
        if verdict.errors:
            raise DesiredRefused("; ".join(verdict.errors))
        return verdict

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
        verdict = self._verdict("config", content)
        if msgspec.json.decode(verdict.site, type=Site) != self._own.site:
            raise DesiredRefused("[site] differs: a gateway keeps its tenant, site, name and time zone")
        if verdict.store != self._own.store.path:
            raise DesiredRefused(f"[store] path differs from {self._own.store.path}, where this record is kept")

    def _check_model(self, content: bytes) -> None:
        try:
            self._verdict("model", content)
        except DesiredRefused as error:
            raise DesiredRefused(f"model {hashlib.sha256(content).hexdigest()[:12]}: {error}") from None
