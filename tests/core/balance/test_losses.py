"""The loss model: what it learns of copper that follows a flat's own power, and how sure it says it is."""

from __future__ import annotations

import numpy as np
import pytest

from core.balance.losses import OWN, OWN_SCATTER, OWN_SD, WEATHER

FLATS = 12


def test_where_no_flat_loses_by_its_own_power_none_is_suspected_of_it(house):
    honest = house(30)
    model = honest.model()
    assert model.own_sd > 0.9 * OWN_SCATTER * OWN_SD
    model.absorb(honest.rows())
    assert model.own_sd < 0.2 * OWN_SCATTER * OWN_SD


def test_copper_of_single_phases_is_learned_and_its_scatter_with_it(house):
    riser = house(30, own=0.01)
    model = riser.model()
    model.absorb(riser.rows())
    weight = np.square(riser.subs_wh).var(axis=0)
    common = 0.01 * float(weight @ np.linspace(0, 2, FLATS)) / weight.sum()  # of those whose loss tells most
    # The building's square and the flats' squares look alike: a part of it is told by the other coefficient.
    assert model.x[1 + OWN] == pytest.approx(common, rel=0.4)
    assert model.own_sd == pytest.approx(OWN_SCATTER * model.x[1 + OWN], rel=0.1)


def test_errors_of_the_coefficients_are_their_covariance_in_rows(house):
    honest = house(6)
    model, rows = honest.model(), honest.rows()
    model.absorb(rows[: 4 * 48])
    phi = model.design(rows)
    phi[:, WEATHER] = 0.0
    at = np.arange(len(rows))
    errors = model.errors_in(rows, at, at + 1)
    np.testing.assert_allclose(errors @ errors.T, phi @ model.p[1:, 1:] @ phi.T, rtol=1e-6, atol=1e-6)
