"""What a told loss may add to the rows, by rows and by stretches of them."""

from __future__ import annotations

import numpy as np

from core.monitor.alarm import SLOTS, Alarm, slot_of


def test_by_stretches_it_adds_what_its_rows_add(house):
    rows = house(12).rows()
    loss = Alarm(1, 1.0, 100, 104, 110, 120, loss_w=90.0, fading=400, ended=430)
    loss.swing_w2 = [float(k) for k in range(SLOTS)]
    columns, swing = loss.columns(rows, 30, 0.5), loss.swing_wh2(rows, 30, 0.5)
    on, at = np.zeros(len(rows), np.bool_), 30 + np.arange(len(rows))
    on[(at >= 104) & (at < 400)] = True
    slot = slot_of(rows.ends_s, 0.5)
    assert np.array_equal(columns[:, :SLOTS] > 0, on[:, None] & (slot[:, None] == np.arange(SLOTS)))
    assert np.array_equal(columns[:, SLOTS + 1] > 0, (at >= 100) & (at < 110))
    assert np.array_equal(columns[:, SLOTS + 2] > 0, (at >= 400) & (at < 430))
    assert np.array_equal(swing > 0, (at >= 100) & (at < 430) & (slot > 0))
    start, stop = np.array([0, 60, 395], np.intp), np.array([90, 60, len(rows)], np.intp)
    added, variance = loss.errors(slot, 30, 0.5).over(start, stop)
    for w in range(3):
        np.testing.assert_allclose(added[w], columns[start[w] : stop[w]].sum(axis=0), rtol=1e-9)
        np.testing.assert_allclose(variance[w], swing[start[w] : stop[w]].sum(), rtol=1e-9)
