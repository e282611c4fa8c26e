"""What is told of a latched loss: how much, since when, whose; and what is kept of each sub-meter to tell it by.

It owns the suspicion that each sub-meter is under, its tamper signs and its features. Whether there is a loss, and
since when, the monitor says; who it is, attribution weighs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from core.arrays import Z95, Bools, Floats
from core.attribution.attribute import Attribution, Onset, Rows
from core.attribution.tamper_signs import sign_log_ratios
from core.balance.history import History
from core.detection.search import SearchWindow
from core.evidence import Evidence, LossKind, Residual, Suspect
from core.monitor.alarm import Alarm, Posterior
from core.monitor.spec import Settings, ZoneSpec
from core.registers import _align
from core.scoring import posterior
from core.scoring.features import FEATURES, Loss
from core.scoring.zone_scores import Scorer, ZoneScores
from core.signs import MeterSign, SignKind

BEFORE_DAYS, AFTER_DAYS = 56, 28  # rows around an onset that attribution sees
BEFORE_LEAST_DAYS = 21  # with fewer left before the onset, it is not asked again
FEATURES_OF = 3  # so many suspects' features go with the evidence
SIGNS_MAX = 256  # per zone: bounds what a meter that floods its event log can make us keep
RETURN_LIMIT = 3.0  # nat: what a flat's part in a loss before its break may add
SAME_FLAT = 0.3  # a flat at least this probable behind each of two losses makes them one
HELD_MAX = 8  # losses of which it is remembered who they were
COMMON_MOST = 0.3  # of the probability: where a common load would explain it, it takes no more from the first flat
BYPASS_W = 4.0  # a meter that shows less is bypassed, not just slow


class SuspectList:
    """One zone's suspects."""

    def __init__(
        self,
        zone: ZoneSpec,
        row_h: float,
        settings: Settings,
        judge: Callable[..., Attribution],
        scorer: Scorer | None,
        states: Scorer | None = None,
    ) -> None:
        self.zone, self.row_h, self.settings = zone, row_h, settings
        self._judge = judge
        self._states = states  # the model whose probability is stated; without it, the likelihoods' own
        self._memory: dict[int, posterior.Memory] = {}  # by loss and by surplus: what their last revisions said
        self.held: dict[int, Posterior] = {}  # by loss; not of a surplus
        self.signs: list[MeterSign] = []
        self.scores = ZoneScores(zone.subs, row_h, settings.offset_s, scorer)
        self.suspicion = np.zeros(len(zone.subs))  # highest probability of each sub-meter in an alarm; fades

    def sign(self, sign: MeterSign) -> None:
        """Keep a tamper sign of one of the zone's meters; others are ignored."""
        if sign.meter in self.zone.subs:
            self.signs = [*self.signs, sign][-SIGNS_MAX:]

    def follow(self, history: History, latched: Alarm | None, kept: float) -> None:
        """Look at the sub-meters' new rows; without a latched loss, suspicion fades to a share of `kept`."""
        self.scores.follow(history, self.signs, None if latched is None else latched.onset)
        if latched is None:
            self.suspicion *= kept

    def standing(self, latched: Alarm | None) -> tuple[Floats, Floats]:
        """Features of all sub-meters [N, len(FEATURES)], and how likely each steals [N]."""
        rows = self.scores.rows(self._loss(latched), self.suspicion)
        judged = self.scores.probability(rows)
        return rows, self.suspicion if judged is None else judged

    def same_flat(self, one: Alarm, other: Alarm) -> bool:
        """Whether the same flat is the likeliest behind both losses."""
        first, second = (self.held.get(loss.whose) for loss in (one, other))
        if first is None or second is None or not len(first.probability):
            return False
        flat = int(np.argmax(second.probability))
        return (
            flat == int(np.argmax(first.probability))
            and min(first.probability[flat], second.probability[flat]) > SAME_FLAT
        )

    def forget(self, loss: Alarm) -> None:
        """Forget what was said of a loss that is not told after all."""
        self.held.pop(loss.whose, None)
        self._memory.pop(loss.whose, None)

    def absolve(self, loss: Alarm) -> None:
        """Forget a loss that was none: its energy is back, and nobody is under suspicion of it."""
        self.forget(loss)
        self.suspicion[:] = 0.0

    # -- evidence -----------------------------------------------------------------------------------------------------

    def evidence(
        self,
        alarm: Alarm,
        at_s: float,
        history: History,
        since: SearchWindow,
        active: bool,
        others_wh: Callable[[int, int], Floats],
    ) -> Evidence:
        """A revision of `alarm`. While it is `active` it is asked who it is.

        `since`: the balance from the onset on, and `others_wh`: what rows start .. stop - 1 lose by other losses.
        """
        alarm.revisions += 1
        start, stop = since.first, since.settled(history.count)
        hours = (stop - start) * self.row_h
        w, sd = since.power_w(start, stop)
        kwh = w * hours / 1000.0
        w *= alarm.sign
        stated = self.held.get(alarm.whose) if alarm.sign > 0 else None
        if active:
            alarm.loss_w = max(w, 1.0)
            stated = self._attribute(alarm, history, others_wh)
            if alarm.sign > 0:
                self.held.pop(alarm.whose, None)
                self.held[alarm.whose] = stated
                while len(self.held) > HELD_MAX:
                    del self.held[next(iter(self.held))]
        rows = history.rows(start, stop)
        main = float(rows.main_wh.sum())
        if stated is not None and w <= Z95 * sd:
            stated = stated.doubted()
        suspects = () if stated is None else stated.suspects(self.zone.subs)
        upstream, unexplained = (0.0, 0.0) if stated is None else (stated.nobody, stated.none)
        return Evidence(
            zone=self.zone.id,
            time_s=at_s,
            active=active,
            episode=alarm.episode,
            kind=self._kind(alarm, history, suspects, upstream),
            onset_s=alarm.onset_s,
            onset_window_s=(alarm.lo_s, alarm.hi_s),
            loss_w=w,
            loss_w_interval=(w - Z95 * sd, w + Z95 * sd),
            loss_kwh=alarm.sign * (kwh + alarm.past_wh / 1000.0),
            suspects=suspects,
            upstream_probability=upstream,
            unexplained_probability=unexplained,
            residual=Residual(
                energy_kwh=kwh,
                percent=100_000.0 * kwh / main if main > 0 else 0.0,
                uncertainty_kwh=Z95 * sd * hours / 1000.0,
                technical_loss_kwh=float(history.expected(start, stop).sum()) / 1000.0,
            ),
            coverage=float(history.read(start, stop).mean()),
            question=alarm.question,
            **self._scored(alarm, suspects),
        )

    def _scored(self, alarm: Alarm, suspects: Sequence[Suspect]) -> dict[str, Any]:
        """Features of the most suspect meters, and the model's probability of the first."""
        if not suspects:
            return {}
        rows = self.scores.rows(self._loss(alarm if alarm.sign > 0 else None), self.suspicion)
        probability = self.scores.probability(rows)
        place = {meter: j for j, meter in enumerate(self.zone.subs)}
        named = [s.meter for s in suspects[:FEATURES_OF]]
        score = None if probability is None else float(probability[place[named[0]]])
        return {
            "features": {m: dict(zip(FEATURES, rows[place[m]].tolist(), strict=True)) for m in named},
            "model_score": suspects[0].probability if self._states is not None else score,
        }

    def _loss(self, latched: Alarm | None) -> Loss | None:
        """The latched loss as the compact model's features see it."""
        if latched is None:
            return None
        found = self.held.get(latched.whose)
        if found is None:
            return Loss(latched.loss_w)
        return Loss(latched.loss_w, found.probability, found.nobody, found.statistics)

    def _kind(self, alarm: Alarm, history: History, suspects: Sequence[Suspect], upstream: float) -> LossKind:
        if alarm.sign < 0:
            return LossKind.BALANCE_SURPLUS
        if alarm.question:
            return LossKind.NON_TECHNICAL_LOSS
        if upstream >= self.settings.confidence:
            return LossKind.UPSTREAM_TAP
        if suspects and suspects[0].probability >= self.settings.confidence:
            start = max(alarm.onset, history.first)
            j = self.zone.subs.index(suspects[0].meter)
            shown = float(history.rows(start, history.count).subs_wh[:, j].mean()) / self.row_h
            return LossKind.BYPASS if shown < BYPASS_W else LossKind.UNDER_REGISTRATION
        return LossKind.NON_TECHNICAL_LOSS

    def _attribute(self, alarm: Alarm, history: History, others_wh: Callable[[int, int], Floats]) -> Posterior:
        """Ask who it is, with the rows around the onset; energy of a gap is spread over it."""
        day_rows = round(24 / self.row_h)
        least = 0 if alarm.from_start else BEFORE_LEAST_DAYS * day_rows
        held = self.held.get(alarm.whose) if alarm.sign > 0 else None
        if held is not None and history.first > max(0, alarm.onset - least):
            return held  # the rows around the onset are sliding away: it was known better before
        # An alarm before this one does not hide what the flats used: a loss that swings raises several.
        start = max(history.first, alarm.onset - BEFORE_DAYS * day_rows)
        stop = min(history.count, max(start, alarm.onset) + AFTER_DAYS * day_rows)
        kept = _without(start, stop, alarm.returned, day_rows)
        rows, missed = history.rows(start, stop).where(kept), history.missed(start, stop)[kept]
        residual = rows.residual_wh - (history.expected(start, stop) + others_wh(start, stop))[kept]
        local_s = rows.ends_s - 1800.0 * self.row_h + self.settings.offset_s
        boundary = rows.boundary_wh2 + rows.gap_wh2
        boundary = np.concatenate([boundary[:1], boundary])
        subs_wh = rows.subs_wh.copy()
        _align.spread_gaps(subs_wh, np.ascontiguousarray(missed).view(np.uint8))
        lo, onset, hi = (max(0, int(kept[: max(0, row - start)].sum())) for row in (alarm.lo, alarm.onset, alarm.hi))
        prior = self.scores.prior()
        if held is not None and alarm.returned:  # it is back: who it was before is more than anyone
            usual = np.log(np.maximum(held.probability, 1e-6) * len(self.zone.subs))
            prior = np.clip(usual, -RETURN_LIMIT, RETURN_LIMIT) + (0.0 if prior is None else prior)
        signs = self._sign_evidence(alarm, history)
        judged = self._judge(
            Rows(
                sub_wh=subs_wh,
                residual_wh=residual,
                boundary_variance_wh2=boundary,
                day=(local_s // 86_400).astype(np.intp),
                slot=(local_s % 86_400 // (3600 * self.row_h)).astype(np.intp),
                slots_per_day=day_rows,
                estimated=missed.copy(),
                resolution_wh=None if self.zone.sub_steps_wh is None else np.array(self.zone.sub_steps_wh),
            ),
            Onset(lo, onset, hi),
            signs=signs,
            prior_log_odds=prior,
            surplus=alarm.sign < 0,
        )
        stated = self._stated(judged, signs, alarm)
        said = stated.probability
        # A word that was taken back does not go on as a suspicion; likelihoods alone swing, and their highest is kept.
        self.suspicion = np.maximum(self.suspicion, said) if self._states is None else said.copy()
        return stated

    def _stated(self, judged: Attribution, signs: Floats, alarm: Alarm) -> Posterior:
        """What is stated of attribution's findings: by the model, or by the likelihoods themselves."""
        named, nobody, none = judged.probability, judged.nobody, 0.0
        if self._states is not None and judged.evidence is not None:
            found = posterior.Findings(
                judged.evidence, judged.statistics, named, nobody, judged.taps, signs, alarm.sign < 0
            )
            memory = self._memory.pop(alarm.whose, None) or posterior.Memory()
            self._memory[alarm.whose] = memory
            while len(self._memory) > HELD_MAX:
                del self._memory[next(iter(self._memory))]
            said = posterior.state(self._states, posterior.rows_of(found, memory))
            named, nobody, none = said.probability, said.nobody, said.none
        # A common load is nobody's theft, and no flat is named where one would do. The model has seen such loads.
        if alarm.question and self._states is None:
            share = 1.0 - min(alarm.common, COMMON_MOST)
            named, none = share * named, share * none
            nobody = 1.0 - float(named.sum()) - none
        return Posterior(named, nobody, judged.mechanism, judged.statistics, none)

    def _sign_evidence(self, alarm: Alarm, history: History) -> Floats:
        """Log-likelihood ratios of the meters' own signs."""

        def ends_s(row: int) -> float:
            at = min(max(row, history.first), history.count - 1)
            return float(history.rows(at, at + 1).ends_s[0])

        onset_s = ends_s(min(alarm.lo, alarm.onset)), ends_s(max(alarm.hi, alarm.onset))
        return sign_log_ratios(self.signs, self.zone.subs, onset_s, ends_s(history.count), alarm.loss_w)

    # -- state --------------------------------------------------------------------------------------------------------

    def pack(self) -> dict[str, Any]:
        """All that is not in the rows."""
        return {
            "suspicion": self.suspicion,
            "before": self.scores.features.before,
            "held": [
                [
                    key,
                    found.probability.tolist(),
                    found.nobody,
                    list(found.mechanism),
                    found.statistics.tolist(),
                    found.none,
                ]
                for key, found in self.held.items()
            ],
            "memory": [[key, [kept.tolist() for kept in memory.kept]] for key, memory in self._memory.items()],
            "signs": [[s.meter, s.time_s, s.kind, s.value] for s in self.signs],
        }

    def restore(self, values: Mapping[str, Any], history: History, latched: Alarm | None) -> None:
        """Go on where `values` were packed, over the rows that `history` was given again."""
        self.suspicion[:] = values["suspicion"]
        self.signs = [MeterSign(meter, time_s, SignKind(kind), value) for meter, time_s, kind, value in values["signs"]]
        self.held = {
            key: Posterior(np.array(probability), nobody, tuple(mechanism), np.array(statistics), none)
            for key, probability, nobody, mechanism, statistics, none in values["held"]
        }
        self._memory = {key: posterior.Memory.of(map(np.array, kept)) for key, kept in values["memory"]}
        self.scores.restore(history, self.signs, None if latched is None else latched.onset, values["before"])


def _without(start: int, stop: int, spans: Sequence[tuple[int, int]], day_rows: int) -> Bools:
    """Which of rows start .. stop - 1 lie in no day of `spans` (rows of all time) [T]."""
    kept = np.ones(stop - start, np.bool_)
    for first, end in spans:
        a = max(0, (first - start) // day_rows * day_rows)
        b = max(0, -(-(end - start) // day_rows) * day_rows)
        kept[a:b] = False
    return kept
