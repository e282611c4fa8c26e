"""What the alerts of `run` are worth to a utility.

Owns the definitions of right, wrong and nonsense, and the tables. Refuses to know how buildings or alerts are made.

A *name* is a suspect of a loss alert with a probability of 0.9 or more. An alert belongs to the case when it was raised
after the truth began; an earlier one, and every loss alert where nothing is missing, is a false alarm. "Three days" is
the last word of each alert of the case three days after the first was raised; "last" its last word before it ended.
`loss_w` is held against the true mean between the alert's own onset and its time: it is what the alert says.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

LOSS = frozenset({"bypass", "under_registration", "upstream_tap", "non_technical_loss"})
NAME = 0.9
DAY = 1440
LEGEND = """first, 3 days, last: names (0.9 or more) that are right / all names
1st: the thief is the first flat in rank (ahead: nobody is the likeliest of all), in the last word of the main alert
innoc.: buildings that ever named an innocent; false: loss alarms before the truth or without one
al.: alerts a case; surp., fault: surpluses and meters' faults told, wherever"""
Record = dict[str, Any]
Word = dict[str, Any]


def wilson(hits: int, of: int) -> str:
    """A share with its 95 % interval (Wilson 1927)."""
    if not of:
        return "-"
    z, p = 1.96, hits / of
    mid, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    low, high = ((mid - half) / (1 + z * z / of), (mid + half) / (1 + z * z / of))
    return f"{hits}/{of} ({max(low, 0):.2f} to {min(high, 1):.2f})"


def poisson(hits: int, years: float) -> str:
    """A rate a year with its exact 95 % interval (Garwood 1936), by bisection."""

    def below(rate: float, k: int) -> float:
        return sum(math.exp(-rate + i * math.log(rate) - math.lgamma(i + 1)) for i in range(k + 1)) if rate > 0 else 1.0

    def solve(k: int, target: float) -> float:
        low, high = 1e-9, 10.0 + 3 * k
        for _ in range(80):
            mid = (low + high) / 2
            low, high = (mid, high) if below(mid, k) > target else (low, mid)
        return low

    if years <= 0:
        return "-"
    least = solve(hits - 1, 0.975) if hits else 0.0
    return f"{hits} in {years:.1f} a ({least / years:.2f} to {solve(hits, 0.025) / years:.2f} a year)"


def names(words: Sequence[Word]) -> set[str]:
    return {meter for word in words for meter, probability in word["suspects"] if probability >= NAME}


def last_words(alerts: dict[str, list[Word]], until: float = math.inf) -> list[Word]:
    """Of each alert its last word that is not its end."""
    kept = []
    for words in alerts.values():
        spoken = [word for word in words if word["state"] != "cleared" and word["at"] <= until]
        if spoken:
            kept.append(spoken[-1])
    return kept


def top(word: Word) -> tuple[str, float]:
    """The likeliest of flats, "upstream" and "unexplained"."""
    rows = [
        *map(tuple, word["suspects"]),
        ("upstream", word["upstream"] or 0.0),
        ("unexplained", word["unexplained"] or 0.0),
    ]
    return max(rows, key=lambda row: row[1])


def judge(record: Record) -> Record:
    """One building's score."""
    guilty, onset = set(record["guilty"]), record["onset"]
    alerts: dict[str, list[Word]] = defaultdict(list)
    for word in sorted((w for w in record["words"] if w["kind"] in LOSS), key=lambda w: (w["at"], w["revision"])):
        alerts[word["alert"]].append(word)
    missing = onset is not None and record["balance"]
    since = {key: words for key, words in alerts.items() if onset is not None and words[0]["at"] >= onset}
    case = since if missing else {}
    every = [word for words in alerts.values() for word in words]
    out: Record = {"false": len(alerts) - len(since), "found": bool(case), "alerts": len(case), "missing": missing}
    out["innocent"] = names(every) - guilty
    out["surplus"] = len({w["alert"] for w in record["words"] if w["kind"] == "balance_surplus"})
    out["fault"] = len({w["alert"] for w in record["words"] if w["kind"] in ("meter_fault", "tamper")})
    out["slandered"] = names([w for w in record["words"] if w["kind"] == "balance_surplus"]) - set(record["over"])
    surpluses: dict[str, list[Word]] = defaultdict(list)
    for word in record["words"]:
        if word["kind"] == "balance_surplus":
            surpluses[word["alert"]].append(word)
    out["nonsense"] = nonsense(alerts) + nonsense(surpluses, "surplus: ")
    out["stated"] = [(max((p for _, p in w["suspects"]), default=0.0), guilty, w) for w in last_words(alerts)]
    if not case:
        return out
    first = min((words[0] for words in case.values()), key=lambda word: word["at"])
    final = last_words(case)
    out["delay"] = (first["at"] - onset) / DAY
    out["first"] = names([first])
    out["three"] = names(last_words(case, first["at"] + 3 * DAY))
    out["last"] = names(final)
    main = max(final, key=lambda word: word["loss_kwh"] or 0.0)
    out["top"] = max(main["suspects"], key=lambda row: row[1])[0] if main["suspects"] else ""
    out["top_of_all"] = top(main)[0]
    out["heads"] = {max(w["suspects"], key=lambda row: row[1])[0] for w in final if w["suspects"]} & guilty
    if record["thieves"] == 1 and main["true_w"] > 1:
        out["error"] = abs(main["loss_w"] - main["true_w"]) / main["true_w"]
        out["covered"] = main["interval"][0] <= main["true_w"] <= main["interval"][1]
        out["energy"] = (main["loss_kwh"] or 0.0) / max(main["ever_kwh"], 0.1)
    return out


def nonsense(alerts: dict[str, list[Word]], what: str = "") -> Counter[str]:
    """What no alert may say, whatever the truth is; one count an alert and fault."""
    seen: Counter[str] = Counter()
    ends = [words[-1] for words in alerts.values() if words[-1]["state"] == "cleared"]
    for words in alerts.values():
        found = set()
        later, back, peak = 0, 0.0, 0.0
        for before, word in zip([words[0], *words], words, strict=False):
            low, high = word["interval"] or (word["loss_w"], word["loss_w"])
            energy, hours = word["loss_kwh"], (word["at"] - word["onset"]) / 60
            if word["loss_w"] < 0:
                found.add("negative watts")
            if low > high or not low - 0.5 <= word["loss_w"] <= high + 0.5:
                found.add("watts outside their own interval")
            if low <= 0 and names([word]) and word["state"] != "cleared":
                found.add("names while zero is in the interval")
            if sum(p for _, p in word["suspects"]) + (word["upstream"] or 0) + (word["unexplained"] or 0) > 1.005:
                found.add("probabilities above 1")
            if word["onset"] > word["at"] or word["onset"] < -1:
                found.add("onset outside the recording")
            moved = word["onset"] - before["onset"]
            later += moved > 360
            back += max(moved, 0)
            if later >= 3 and back > 3 * DAY:
                found.add("onset slides")
            if energy is not None and word["state"] != "cleared":
                if energy < 0.7 * peak - 5:
                    found.add("energy shrinks")
                peak = max(peak, energy)
                if hours > 24 and not 0.5 < (energy + 2) / (word["loss_w"] * hours / 1000 + 2) < 2:
                    found.add("energy is not power by time")
        end = words[-1]
        if end["state"] == "cleared" and (end["loss_kwh"] or 0) > 2 * max(end["ever_kwh"], 0) + 5:
            found.add("ended with energy that never was")
        if words[0]["interval"] and words[0]["interval"][0] <= 0:
            found.add("raised with zero in its interval")
        if any(
            0 <= words[0]["at"] - end["at"] < 2 * DAY and abs(end["onset"] - words[0]["onset"]) < DAY for end in ends
        ):
            found.add("raised again within two days of its end")
        if what:
            found.discard("ended with energy that never was")  # no truth of a surplus is drawn
        seen.update(what + name for name in found)
    return seen


def share(judged: Sequence[Record], key: str, guilty: Sequence[set[str]]) -> str:
    """Names that are right, of all names, over buildings."""
    right = sum(len(j[key] & g) for j, g in zip(judged, guilty, strict=True) if key in j)
    return wilson(right, sum(len(j[key]) for j in judged if key in j))


def median(values: Sequence[float]) -> str:
    return f"{sorted(values)[len(values) // 2]:.2f}" if values else "-"


def calibration(judged: Sequence[Record]) -> str:
    """Expected calibration error of the first flat in rank in last words, ten bins."""
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for j in judged:
        for probability, guilty, word in j["stated"]:
            first = max(word["suspects"], key=lambda row: row[1])[0] if word["suspects"] else ""
            bins[min(int(probability * 10), 9)].append((probability, first in guilty))
    total = sum(map(len, bins.values()))
    gaps = [abs(sum(p for p, _ in rows) - sum(right for _, right in rows)) for rows in bins.values()]
    return f"{sum(gaps) / total:.3f} of {total} last words" if total else "-"


def tables(records: Sequence[Record]) -> str:
    """All tables as text."""
    out: list[str] = []
    by_kind: dict[tuple[str, str], list[tuple[Record, Record]]] = defaultdict(list)
    for record in records:
        by_kind[record["group"], record["kind"]].append((record, judge(record)))
    groups = {
        g: [pair for (group, _), pairs in by_kind.items() if group == g for pair in pairs]
        for g in ("theft", "ahead", "honest")
    }
    head = (
        f"{'kind':34}{'n':>4}{'found':>7}{'days':>7}{'W':>6}{'first':>7}{'3 days':>7}{'last':>7}{'1st':>7}{'innoc.':>7}"
    )
    head += f"{'false':>6}{'w err':>7}{'cover':>7}{'al.':>5}{'surp.':>6}{'fault':>6}"
    for group, title in (("theft", "Thefts"), ("ahead", "Loads ahead of the sub-meters"), ("honest", "Honest houses")):
        if not groups[group]:
            continue
        out += [f"\n{title}", head]
        out += [row(kind, pairs) for (g, kind), pairs in by_kind.items() if g == group]
    out += ["", LEGEND]
    for group, pairs in groups.items():
        if pairs:
            out += ["", *summary(group, pairs)]
    every = [pair for pairs in groups.values() for pair in pairs]
    out.append(f"\nAll: calibration error of the first flat in rank {calibration([j for _, j in every])}")
    counts: Counter[str] = sum((j["nonsense"] for _, j in every), Counter())
    alerts = sum(len({w["alert"] for w in r["words"] if w["kind"] in LOSS}) for r, _ in every)
    out.append(
        f"Nonsense in {alerts} loss alerts: " + (", ".join(f"{k} {v}" for k, v in counts.most_common()) or "none")
    )
    for record, j in every:
        if j["innocent"]:
            out.append(
                f"  innocent named: {record['kind']}:{record['number']} seed {record['seed']}: {sorted(j['innocent'])}"
            )
    return "\n".join(out)


def row(kind: str, pairs: Sequence[tuple[Record, Record]]) -> str:
    judged = [j for _, j in pairs]
    guilty = [set(r["guilty"]) for r, _ in pairs]

    def names_of(key: str) -> str:
        right = sum(len(j[key] & g) for j, g in zip(judged, guilty, strict=True) if key in j)
        return f"{right}/{sum(len(j[key]) for j in judged if key in j)}"

    found = [j for j in judged if j["found"]]
    if pairs[0][0]["group"] == "ahead":
        first = sum(j["top_of_all"] in ("upstream", "unexplained") for j in found)
    else:
        first = sum(j["top"] in g for j, g in zip(judged, guilty, strict=True) if j["found"])
    line = kind.ljust(34) + str(len(pairs)).rjust(4) + f"{len(found)}/{sum(j['missing'] for j in judged)}".rjust(7)
    line += median([j["delay"] for j in found]).rjust(
        7
    ) + f"{sum(r['true_w'] for r, _ in pairs) / len(pairs):.0f}".rjust(6)
    for key in ("first", "three", "last"):
        line += names_of(key).rjust(7)
    line += f"{first}/{len(found)}".rjust(7) + str(sum(bool(j["innocent"]) for j in judged)).rjust(7)
    line += str(sum(j["false"] for j in judged)).rjust(6) + median([j["error"] for j in found if "error" in j]).rjust(7)
    line += f"{sum(j['covered'] for j in found if 'covered' in j)}/{sum('covered' in j for j in found)}".rjust(7)
    line += (f"{sum(j['alerts'] for j in found) / len(found):.1f}" if found else "-").rjust(5)
    return line + str(sum(j["surplus"] for j in judged)).rjust(6) + str(sum(j["fault"] for j in judged)).rjust(6)


def summary(group: str, pairs: Sequence[tuple[Record, Record]]) -> list[str]:
    judged = [j for _, j in pairs]
    guilty = [set(r["guilty"]) for r, _ in pairs]
    missing, found = [j for j in judged if j["missing"]], [j for j in judged if j["found"]]
    before = sum(
        (r["onset"] if r["onset"] is not None and r["balance"] else r["days"] * DAY) / DAY / 365.25 for r, _ in pairs
    )
    out = [f"{group}: {len(pairs)} buildings, {sum(r['days'] for r, _ in pairs) / 365.25:.1f} building-years"]
    if missing:
        out.append(
            f"  found                              {wilson(len(found), len(missing))}, median delay "
            f"{median([j['delay'] for j in found])} d"
        )
    if group == "theft":
        for key, what in (("first", "first alert"), ("three", "three days on"), ("last", "last word")):
            out.append(f"  names that are right, {what:15}{share(judged, key, guilty)}")
        named = sum(bool(j["last"] & g) for j, g in zip(judged, guilty, strict=True) if j["found"])
        out.append(f"  a thief named by the last word     {wilson(named, len(missing))}")
        right = sum(j["top"] in g for j, g in zip(judged, guilty, strict=True) if j["found"])
        out.append(f"  thief first in rank, last word     {wilson(right, len(found))}")
        several = [(r, j) for r, j in pairs if r["thieves"] > 1]
        two = sum(len(j.get("heads", ())) > 1 for _, j in several)
        out.append(f"  several thieves: two told apart    {wilson(two, len(several))}")
    if group == "ahead":
        nobody = sum(j["top_of_all"] in ("upstream", "unexplained") for j in found)
        out.append(f"  nobody first, last word            {wilson(nobody, len(found))}")
    errors = [j["error"] for j in found if "error" in j]
    if errors:
        out.append(
            f"  loss_w, median relative error      {median(errors)}, within its interval "
            f"{wilson(sum(j['covered'] for j in found if 'covered' in j), len(errors))}, energy over the truth "
            f"{median([j['energy'] for j in found if 'energy' in j])}"
        )
    out.append(f"  an innocent named at any time      {wilson(sum(bool(j['innocent']) for j in judged), len(judged))}")
    out.append(f"  a surplus put on a right meter     {wilson(sum(bool(j['slandered']) for j in judged), len(judged))}")
    out.append(f"  false loss alarms                  {poisson(sum(j['false'] for j in judged), before)}")
    out.append(
        f"  surpluses told / meters' faults    {sum(j['surplus'] for j in judged)} / {sum(j['fault'] for j in judged)}"
    )
    return out
