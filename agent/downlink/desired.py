"""Desired state from the backend: a site file or a model, checked, on trial, kept or rolled back, reported.

It owns one folder with the files that were sent and a record of what runs. It does not know how a site file or a model
is checked, or what makes a gateway well: both come from outside. It restarts nothing: it says when to.

    none --offer--> on_trial --well at the end--> kept
                       |  not well at the end, or started too often --> rolled_back (to what ran before)
    offer refused: rejected (what runs stays)

Order on disk: the file, then the record that names it, each written beside, flushed and renamed. A kill between any
two steps leaves either the old state or the new one. A trial survives restarts; each start begins its time anew, and
after MAX_STARTS the file is rolled back, so that a file that makes the agent die cannot do so for ever.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec

from agent.keys.signing import KeyRing, Unauthorised
from agent.wire.codec import decode
from agent.wire.downlink import MAX_CONFIG_BYTES, MAX_MODEL_BYTES, DesiredConfig, DesiredModel, Reported
from agent.wire.topics import Address
from agent.wire.values import WireError, utc

log = logging.getLogger(__name__)

TRIAL_S = 600.0
MAX_STARTS = 3


class DesiredRefused(Exception):
    """The file cannot be used on this gateway; the text says why, fit to be sent back."""


class _Version(msgspec.Struct, frozen=True):
    """One file that was sent."""

    number: int
    sha256: str
    file: str


class _Record(msgspec.Struct, frozen=True):
    """What runs (None: the gateway's own file), what is on trial, and the highest version ever accepted."""

    state: Literal["none", "on_trial", "kept", "rejected", "rolled_back"] = "none"
    kept: _Version | None = None
    trial: _Version | None = None
    highest: int = 0
    spoken_of: int | None = None
    reason: str | None = None
    time_s: float = 0.0
    starts: int = 0
    baseline: list[str] = []  # meters that could be read when the trial began


class Desired:
    """The desired state of one kind.

    Args:
        folder: of the files and the record; must outlive a reinstall of the program.
        check: raises DesiredRefused for content that this gateway cannot use.
        now: UTC seconds, for stamping and expiry.
        monotonic: seconds, for the time of the trial.
    """

    def __init__(
        self,
        kind: Literal["config", "model"],
        folder: Path,
        address: Address,
        check: Callable[[bytes], None],
        now: Callable[[], float],
        monotonic: Callable[[], float],
        trial_s: float = TRIAL_S,
    ) -> None:
        self._kind = kind
        self._folder = folder
        self._address = address
        self._check = check
        self._now = now
        self._monotonic = monotonic
        self._trial_s = trial_s
        self._began_s = monotonic()
        self._path = folder / f"{kind}.json"
        self._record = self._read()

    @property
    def active(self) -> Path | None:
        """The file in force; None for the gateway's own."""
        version = self._record.trial or self._record.kept
        return None if version is None else self._folder / version.file

    @property
    def reported(self) -> Reported:
        """For `config/reported` or `model/reported`."""
        record = self._record
        runs = record.trial or record.kept
        return Reported(
            state=record.state,
            time=utc(record.time_s),
            version=None if runs is None else runs.number,
            sha256=None if runs is None else runs.sha256,
            desired=record.spoken_of,
            reason=record.reason,
        )

    def started(self) -> bool:
        """The agent starts with what `active` is. True: the trial was given up just now, `active` is another file."""
        self._began_s = self._monotonic()
        record = self._record
        if record.trial is None:
            return False
        if record.starts >= MAX_STARTS:
            self._roll_back(f"the agent started {record.starts} times during the trial")
            return True
        try:
            self._write(msgspec.structs.replace(record, starts=record.starts + 1))
        except OSError as error:  # a start that cannot be counted is not risked: what ran before runs now
            log.error("%s cannot be written (%s): the trial waits for the next start", self._path, error)
            self._record = msgspec.structs.replace(record, trial=None, reason=f"the trial waits: {error}")
            return True
        return False

    def wants(self, payload: bytes, keys: KeyRing) -> bytes | None:
        """The content of a message that `offer` would check and try; None if it would not come that far."""
        try:
            number, content = self._open(payload, keys)
        except (WireError, Unauthorised, DesiredRefused):
            return None
        return content if number > self._record.highest and self._record.trial is None else None

    def offer(self, payload: bytes, keys: KeyRing, readable: Iterable[str] = ()) -> bool:
        """Take what came on `config/desired` or `model/desired`. True: a trial begins, restart with `active`.

        `readable` are the meters that can be read now: the trial must not lose one of them.
        """
        number: int | None = None
        try:
            number, content = self._open(payload, keys)
            if number == self._record.highest and self._knows(content):
                return False  # retained: it comes again with every connect
            if number <= self._record.highest:
                raise DesiredRefused(f"version {number} is not above {self._record.highest}, which came before")
            if self._record.trial is not None:
                raise DesiredRefused(f"version {self._record.trial.number} is still on trial; send it again after that")
            self._check(content)
            version = self._keep_file(number, content)
            self._write(
                _Record(
                    state="on_trial",
                    kept=self._record.kept,
                    trial=version,
                    highest=number,
                    spoken_of=number,
                    time_s=self._now(),
                    baseline=sorted(readable),
                )
            )
        except (WireError, Unauthorised, DesiredRefused, OSError) as error:
            self._note("rejected", number, str(error))
            log.warning("desired %s refused: %s", self._kind, error)
            return False
        self._began_s = self._monotonic()
        log.info("desired %s version %d is on trial for %.0f s", self._kind, number, self._trial_s)
        return True

    def give_up(self, reason: str) -> None:
        """What is in force turned out unusable: back to what ran before, or to the gateway's own."""
        if self._record.trial is None:
            self._record = msgspec.structs.replace(self._record, kept=None)
        self._roll_back(reason)

    def judge(
        self, connected: bool, configured: Iterable[str], readable: Iterable[str]
    ) -> Literal["wait", "kept", "back"]:
        """Look at the trial, as often as one likes. "back": it was rolled back, restart with `active`.

        Well is a gateway that is connected and reads every meter that it read before and still has to read.
        """
        record = self._record
        if record.trial is None or self._monotonic() - self._began_s < self._trial_s:
            return "wait"
        lost = sorted(set(record.baseline) & set(configured) - set(readable))
        if connected and not lost:
            try:
                self._write(
                    msgspec.structs.replace(
                        record, state="kept", kept=record.trial, trial=None, reason=None, time_s=self._now(), starts=0
                    )
                )
            except OSError as error:
                log.error("%s cannot be written (%s): the trial goes on", self._path, error)
                self._began_s = self._monotonic()
                return "wait"
            log.info("desired %s version %d is kept", self._kind, record.trial.number)
            self._tidy()
            return "kept"
        self._roll_back(
            "the broker was not connected at the end of the trial" if not connected else f"lost: {', '.join(lost[:20])}"
        )
        return "back"

    # -- how ----------------------------------------------------------------------------------------------------------

    def _open(self, payload: bytes, keys: KeyRing) -> tuple[int, bytes]:
        """Version and content of a message that is signed, ours and in time."""
        limit = MAX_CONFIG_BYTES if self._kind == "config" else MAX_MODEL_BYTES
        text = keys.open(payload, self._kind, limit)
        message: DesiredConfig | DesiredModel
        if self._kind == "config":
            message = decode(DesiredConfig, text)
            content = message.toml.encode()
        else:
            message = decode(DesiredModel, text)
            content = message.tflite
            if hashlib.sha256(content).hexdigest() != message.sha256:
                raise DesiredRefused("the content does not have the SHA-256 that it is said to have")
        if message.target != self._address.target:
            raise DesiredRefused(f"it is for {message.target}, this is {self._address.target}")
        if message.expires is not None and message.expires <= utc(self._now()):
            raise DesiredRefused(f"expired at {message.expires.isoformat()}")
        return message.version, content

    def _knows(self, content: bytes) -> bool:
        sha256 = hashlib.sha256(content).hexdigest()
        record = self._record
        # A version that was rolled back is neither on trial nor kept any more, and must not be tried again.
        waiting = record.state == "on_trial" and record.trial is None  # for a disk that takes the count of starts
        return (
            waiting
            or record.state == "rolled_back"
            or any(v is not None and v.sha256 == sha256 for v in (record.trial, record.kept))
        )

    def _keep_file(self, number: int, content: bytes) -> _Version:
        suffix = "toml" if self._kind == "config" else "tflite"
        version = _Version(number, hashlib.sha256(content).hexdigest(), f"{self._kind}-{number}.{suffix}")
        _write_whole(self._folder / version.file, content)
        return version

    def _note(self, state: Literal["rejected"], number: int | None, reason: str) -> None:
        """A refusal changes what is reported and nothing else; a trial that runs stays what is spoken of."""
        said = msgspec.structs.replace(self._record, reason=reason[:500], time_s=self._now())
        if said.trial is None:
            said = msgspec.structs.replace(said, state=state, spoken_of=number)
        self._record = said

    def _roll_back(self, reason: str) -> None:
        record = self._record
        log.error("desired %s is rolled back: %s", self._kind, reason)
        rolled_back = msgspec.structs.replace(
            record, state="rolled_back", trial=None, reason=reason, time_s=self._now(), starts=0, baseline=[]
        )
        try:
            self._write(rolled_back)
        except OSError as error:  # it holds for this run; the next start rolls back again
            log.error("%s cannot be written: %s", self._path, error)
            self._record = rolled_back
            return
        self._tidy()

    def _tidy(self) -> None:
        """Remove the files that nothing names any more."""
        named = {v.file for v in (self._record.kept, self._record.trial) if v is not None}
        for path in self._folder.glob(f"{self._kind}-*.*"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _read(self) -> _Record:
        try:
            record = msgspec.json.decode(self._path.read_bytes(), type=_Record)
        except FileNotFoundError:
            return _Record(time_s=self._now())
        except (OSError, msgspec.DecodeError) as error:
            log.error("%s cannot be used (%s): the gateway's own %s is in force", self._path, error, self._kind)
            return _Record(time_s=self._now(), reason=f"the record was lost: {error}")
        for version in (record.trial, record.kept):
            if version is not None and not self._intact(version):
                log.error("%s is missing or changed: the gateway's own %s is in force", version.file, self._kind)
                return _Record(state="rolled_back", highest=record.highest, time_s=self._now(), reason="file lost")
        return record

    def _intact(self, version: _Version) -> bool:
        try:
            content = (self._folder / version.file).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == version.sha256

    def _write(self, record: _Record) -> None:
        _write_whole(self._path, msgspec.json.encode(record))
        self._record = record


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a power cut leaves the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
