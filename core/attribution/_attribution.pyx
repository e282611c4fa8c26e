# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The attribution kernel: the robust evidence of many explanations of one residual, by a small Kalman filter each.

Bounds checks are off here: the wrapper checks every shape, and `make bench-core` shows the loop is all that counts.
"""

from libc.math cimport erfc, fmax, lgamma, log, sqrt

cdef double LOG_PI = 1.1447298858494002


cdef struct Law:
    double rho        # correlation of the hidden load's deviation from row to row
    double slow_var   # stationary variance of the slow error of the balance
    double slow_phi   # its correlation from row to row
    double nu         # degrees of freedom of an innovation
    double log_norm   # log of Student's normalising constant
    double drift      # variance that theta gains per row, in parts of its prior variance


cdef double one(const double[::1] y, const double[::1] v, const double[::1] slow, const double[::1] mean,
                const double[::1] scale, const double[::1] design, double theta, double theta_var,
                double design_var, const Law *law, double *theta_out, double *var_out) noexcept nogil:
    """Evidence of y_t = mean + scale*x + design*theta + slow*q + e_t - e_(t-1); states e_(t-1), x, theta, q."""
    cdef Py_ssize_t t, rows = y.shape[0], used = 0
    cdef double z0, z1 = 0.0, z2 = theta, z3 = 0.0
    cdef double p00, p01, p02, p03, p11, p12, p13, p22, p23, p33
    cdef double h1, h2, h3, c0, c1, c2, c3, f, r, u, g, ve, ll = 0.0, widths = 1.0, tails = 1.0
    cdef double rho = law.rho, phi = law.slow_phi
    cdef double drift = law.drift * theta_var
    z0 = 0.0
    p00 = v[0] + design_var * theta * theta
    p01 = p02 = p03 = p12 = p13 = p23 = 0.0
    p11 = 1.0
    p22 = theta_var
    p33 = law.slow_var
    for t in range(rows):
        if t > 0:
            z1 *= rho
            z3 *= phi
            p01 *= rho
            p03 *= phi
            p11 = rho * rho * p11 + 1.0 - rho * rho
            p12 *= rho
            p13 *= rho * phi
            p23 *= phi
            p33 = phi * phi * p33 + (1.0 - phi * phi) * law.slow_var
            p22 += drift
        ve = v[t + 1] + design_var * z2 * z2
        if y[t] != y[t]:
            z0 = 0.0
            p00 = ve
            p01 = p02 = p03 = 0.0
            continue
        h1 = scale[t]
        h2 = design[t]
        h3 = slow[t]
        c0 = -p00 + h1 * p01 + h2 * p02 + h3 * p03
        c1 = -p01 + h1 * p11 + h2 * p12 + h3 * p13
        c2 = -p02 + h1 * p12 + h2 * p22 + h3 * p23
        c3 = -p03 + h1 * p13 + h2 * p23 + h3 * p33
        f = -c0 + h1 * c1 + h2 * c2 + h3 * c3 + ve
        r = y[t] - mean[t] - (-z0 + h1 * z1 + h2 * z2 + h3 * z3)
        u = r * r / f
        # Logarithms of products of eight rows: they are half of the work otherwise, and the products stay in range.
        widths *= f
        tails *= 1.0 + u / law.nu
        used += 1
        if used % 8 == 0:
            ll -= 0.5 * log(widths) + 0.5 * (law.nu + 1.0) * log(tails)
            widths = tails = 1.0
        # A far-out row counts as if its variance were larger: the weight of Student's law.
        f *= (law.nu + u) / (law.nu + 1.0) if u > 1.0 else 1.0
        g = r / f
        # The boundary's own error becomes the state that the next row starts from.
        z0 = ve * g
        z1 += c1 * g
        z2 += c2 * g
        z3 += c3 * g
        p00 = ve - ve * ve / f
        p01 = -ve * c1 / f
        p02 = -ve * c2 / f
        p03 = -ve * c3 / f
        p11 -= c1 * c1 / f
        p12 -= c1 * c2 / f
        p13 -= c1 * c3 / f
        p22 -= c2 * c2 / f
        p23 -= c2 * c3 / f
        p33 -= c3 * c3 / f
    ll += used * law.log_norm - 0.5 * log(widths) - 0.5 * (law.nu + 1.0) * log(tails)
    theta_out[0] = z2
    var_out[0] = p22
    return ll


cdef double quiet(const double[::1] y, const double[::1] v, const double[::1] slow, double factor, double slow_var,
                  double phi, double nu, double log_norm) noexcept nogil:
    """`one` where nothing is missing: of the states only the boundary's error and the slow one are left."""
    cdef Py_ssize_t t, rows = y.shape[0], used = 0
    cdef double z0 = 0.0, z3 = 0.0, p00 = factor * v[0], p03 = 0.0, p33 = slow_var
    cdef double h3, c0, c3, f, r, u, g, ve, ll = 0.0, widths = 1.0, tails = 1.0
    for t in range(rows):
        if t > 0:
            z3 *= phi
            p03 *= phi
            p33 = phi * phi * p33 + (1.0 - phi * phi) * slow_var
        ve = factor * v[t + 1]
        if y[t] != y[t]:
            z0 = 0.0
            p00 = ve
            p03 = 0.0
            continue
        h3 = slow[t]
        c0 = -p00 + h3 * p03
        c3 = -p03 + h3 * p33
        f = -c0 + h3 * c3 + ve
        r = y[t] - (-z0 + h3 * z3)
        u = r * r / f
        widths *= f
        tails *= 1.0 + u / nu
        used += 1
        if used % 8 == 0:
            ll -= 0.5 * log(widths) + 0.5 * (nu + 1.0) * log(tails)
            widths = tails = 1.0
        f *= (nu + u) / (nu + 1.0) if u > 1.0 else 1.0
        g = r / f
        z0 = ve * g
        z3 += c3 * g
        p00 = ve - ve * ve / f
        p03 = -ve * c3 / f
        p33 -= c3 * c3 / f
    return ll + used * log_norm - 0.5 * log(widths) - 0.5 * (nu + 1.0) * log(tails)


def log_quiet(const double[::1] residual, const double[::1] variance, const double[::1] slow,
              const double[::1] factors, const double[::1] shares, double slow_phi, double nu,
              double[:, ::1] evidence):
    """Fill evidence [F, S] of nothing missing, for each factor on the variance and each slow share; see the .pyi."""
    cdef Py_ssize_t i, j, rows = residual.shape[0]
    cdef double log_norm = lgamma(0.5 * (nu + 1)) - lgamma(0.5 * nu) - 0.5 * (log(nu) + LOG_PI)
    if (variance.shape[0] != rows + 1 or slow.shape[0] != rows or evidence.shape[0] != factors.shape[0]
            or evidence.shape[1] != shares.shape[0]):
        raise ValueError(f"residual has {rows} rows: one variance more, slow and the table must agree")
    with nogil:
        for i in range(factors.shape[0]):
            for j in range(shares.shape[0]):
                evidence[i, j] = quiet(residual, variance, slow, factors[i], shares[j] * shares[j], slow_phi, nu,
                                       log_norm)


def log_positive(const double[::1] mean, const double[::1] sd, double[::1] out):
    """Fill out [H] with the log probability that a Gaussian is positive, held above that of 1e-6."""
    cdef Py_ssize_t h, count = mean.shape[0]
    if sd.shape[0] != count or out.shape[0] != count:
        raise ValueError(f"{count} means: as many standard deviations and places are needed")
    with nogil:
        for h in range(count):
            out[h] = log(fmax(0.5 * erfc(-mean[h] / (fmax(sd[h], 1e-12) * sqrt(2.0))), 1e-6))


def log_evidence(const double[::1] residual, const double[::1] variance, const double[::1] slow,
                 const double[:, ::1] mean, const double[:, ::1] scale, const double[:, ::1] design,
                 const double[::1] theta, const double[::1] theta_var, const double[::1] design_var,
                 double rho, double slow_var, double slow_phi, double nu, double drift,
                 double[::1] evidence, double[::1] theta_mean, double[::1] theta_after):
    """Fill evidence [H], and theta's mean and variance after the rows; see the .pyi for the shapes."""
    cdef Py_ssize_t h, count = mean.shape[0], rows = residual.shape[0]
    cdef Law law
    if (variance.shape[0] != rows + 1 or slow.shape[0] != rows
            or mean.shape[1] != rows or scale.shape[1] != rows or design.shape[1] != rows):
        raise ValueError(f"residual has {rows} rows: one variance more, and slow, mean, scale, design must agree")
    if (scale.shape[0] != count or design.shape[0] != count or theta.shape[0] != count
            or theta_var.shape[0] != count or design_var.shape[0] != count or evidence.shape[0] != count
            or theta_mean.shape[0] != count or theta_after.shape[0] != count):
        raise ValueError(f"mean has {count} explanations: every other argument by explanation must agree")
    law.rho, law.slow_var, law.slow_phi, law.nu, law.drift = rho, slow_var, slow_phi, nu, drift
    law.log_norm = lgamma(0.5 * (nu + 1)) - lgamma(0.5 * nu) - 0.5 * (log(nu) + LOG_PI)
    with nogil:
        for h in range(count):
            evidence[h] = one(residual, variance, slow, mean[h], scale[h], design[h], theta[h], theta_var[h],
                              design_var[h], &law, &theta_mean[h], &theta_after[h])
