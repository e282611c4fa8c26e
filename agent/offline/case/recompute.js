"use strict";
// The arithmetic of this page again, in the reader's browser, from the attached readings alone (docs/recompute.py).
(() => {
  const DAY = 86400, file = name => {
    const link = document.querySelector(`a.raw[download="${name}"]`);
    return new TextDecoder().decode(Uint8Array.from(atob(link.href.split(",")[1]), c => c.charCodeAt(0)));
  };
  const sum = values => { // Neumaier: as good as exact here
    let total = 0, rest = 0;
    for (const v of values) {
      const t = total + v;
      rest += Math.abs(total) >= Math.abs(v) ? total - t + v : v - t + total;
      total = t;
    }
    return total + rest;
  };
  const mean = values => values.length ? sum(values) / values.length : NaN;
  const known = values => values.filter(v => !Number.isNaN(v));
  const offset = (zone, utc) => {
    const form = new Intl.DateTimeFormat("en-US", {timeZone: zone, hourCycle: "h23", year: "numeric", month: "numeric",
      day: "numeric", hour: "numeric", minute: "numeric", second: "numeric"});
    const p = Object.fromEntries(form.formatToParts(new Date(utc * 1000)).map(x => [x.type, Number(x.value)]));
    return Date.UTC(p.year, p.month - 1, p.day, p.hour, p.minute, p.second) / 1000 - utc;
  };

  function recompute() {
    const rows = file("readings.csv").trim().split("\n").map(line => line.split(","));
    const names = rows[0].slice(1), times = rows.slice(1).map(r => Date.parse(r[0]) / 1000);
    const step = times[1] - times[0], toW = 1000 * 3600 / step;
    const column = names.map((_, k) => rows.slice(1).map(r => r[k + 1] ? Number(r[k + 1]) : NaN));
    const main = column[0], subs = column.slice(1);
    const alert = JSON.parse(file("alert.json").trim().split("\n").pop()).data;
    const zone = JSON.parse(file("page.json")).timezone;
    const [from, until] = (alert.onset_window || [alert.onset, alert.onset]).map(t => Date.parse(t) / 1000);
    const before = times.map(t => t + step <= from), after = times.map(t => t >= until);
    const total = times.map((_, k) => sum(subs.map(s => s[k]))), gap = times.map((_, k) => main[k] - total[k]);
    const use = times.map((_, k) => k).filter(k => before[k] && !Number.isNaN(gap[k]));
    const fitted = use.length * step >= 5 * DAY;
    let a = 0, c = 0;
    if (fitted) {
      const sq = use.map(k => total[k] ** 2), y = use.map(k => gap[k]), ms = mean(sq), my = mean(y);
      const spread = sum(sq.map(s => (s - ms) ** 2));
      c = spread > 0 ? sum(sq.map((s, i) => (s - ms) * (y[i] - my))) / spread : 0;
      a = my - c * ms;
    }
    const technical = total.map(t => fitted ? a + c * t ** 2 : 0), rest = gap.map((g, k) => g - technical[k]);
    const offsets = new Map();
    const day = times.map(t => {
      const utc = Math.floor(t / DAY);
      if (!offsets.has(utc)) offsets.set(utc, offset(zone, utc * DAY + DAY / 2));
      return Math.floor((t + offsets.get(utc)) / DAY);
    });
    const days = [...new Set(day)].sort((x, y) => x - y), rowsOf = new Map(days.map(d => [d, []]));
    day.forEach((d, k) => rowsOf.get(d).push(k));
    const aDay = Math.round(DAY / step);
    const byDay = values => days.map(d => {
      const r = rowsOf.get(d).map(k => values[k]);
      return r.length >= aDay - Math.floor(aDay / 24) && !r.some(Number.isNaN) ? sum(r) : NaN;
    });
    const restDay = byDay(rest);
    const balance = flags => {
      const kept = days.map((d, k) => k).filter(k => rowsOf.get(days[k]).every(i => flags[i]) && !Number.isNaN(restDay[k]));
      if (!kept.length) return null;
      const there = kept.flatMap(k => rowsOf.get(days[k])), w = kept.map(k => restDay[k] * 1000 / 24), m = mean(w);
      return {days: kept.length, main_w: mean(there.map(k => main[k])) * toW, subs_w: mean(there.map(k => total[k])) * toW,
        technical_w: mean(there.map(k => technical[k])) * toW, residual_w: m,
        residual_sd_w: kept.length > 1 ? Math.sqrt(sum(w.map(v => (v - m) ** 2)) / (kept.length - 1)) : NaN};
    };
    const b = balance(before), f = balance(after);
    const missing = f.residual_w - (b ? b.residual_w : 0), bs = b ? b.residual_sd_w : NaN,
      fs = Number.isNaN(f.residual_sd_w) ? bs : f.residual_sd_w, sd = b ? Math.sqrt(fs ** 2 / f.days + bs ** 2 / b.days) : NaN;
    const list = alert.suspects || [], nobody = alert.upstream_probability || 0;
    const best = list.reduce((x, s) => !x || s.probability > x.probability ? s : x, null);
    let suspect = null;
    if (best && best.probability > nobody && names.indexOf(best.meter) > 0) {
      const own = column[names.indexOf(best.meter)];
      const bw = mean(known(own.filter((_, k) => before[k]))) * toW, aw = mean(known(own.filter((_, k) => after[k]))) * toW;
      suspect = {meter: best.meter, before_w: bw, after_w: aw,
        share_of_fall: Number.isFinite(bw - aw) && bw - aw > 1 ? missing / (bw - aw) : null, by_day_kwh: byDay(own)};
    }
    return {technical_loss: {fitted, offset_kwh: a, copper_per_kwh: c}, before: b, after: f, missing_w: missing,
      missing_interval_w: [missing - 2 * sd, missing + 2 * sd], missing_kwh: sum(known(rest.filter((_, k) => after[k]))),
      remainder_by_day_kwh: restDay, sums_kwh: Object.fromEntries(names.map((n, k) => [n, sum(known(column[k]))])),
      suspect, probability_sum: sum([...list.map(s => s.probability), nobody])};
  }

  const leaves = (value, path = "") => value !== null && typeof value === "object"
    ? Object.entries(value).flatMap(([k, v]) => leaves(v, `${path}.${k}`)) : [[path, Number.isNaN(value) ? null : value]];
  const said = document.getElementById("recomputed");
  const tell = (name, values) => { // the page's own words, with figures in them
    said.textContent = said.dataset[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
  };
  try {
    const one = new Map(leaves(JSON.parse(file("result.json")))), two = new Map(leaves(recompute()));
    let wrong = 0, largest = 0;
    for (const path of new Set([...one.keys(), ...two.keys()])) {
      const x = one.get(path), y = two.get(path);
      const off = typeof x === "number" && typeof y === "number" ? Math.abs(x - y) / Math.max(1, Math.abs(x)) : x === y ? 0 : Infinity;
      largest = Math.max(largest, off);
      if (!(off <= 1e-9)) wrong += 1;
    }
    tell(wrong ? "differ" : "agree", {wrong, count: one.size, largest: largest.toExponential(1)});
  } catch (error) {
    tell("failed", {reason: error.message});
  }
})();
