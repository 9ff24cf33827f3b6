"""Fit the factors of a sum of products to measured times: robust, with priors, in plain Python.

The model of one observation is  t = sum of terms,  term = base x product of factors x product of x ** exponent. So
d ln t / d ln factor is the share of the terms that contain the factor (for an exponent: the share times ln x).
Parameters are fitted by Gauss-Newton on ln t, with pseudo-Huber residuals and a Gaussian prior on each parameter. A
random effect (of a card, a model) is a parameter around 1 whose prior width is the spread of such effects: few data
leave it near 1, many move it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import exp, log, sqrt
from operator import mul
from typing import NamedTuple

from fitcheck.estimate.speed_model import Term

HUBER = 0.07  # residuals of ln t beyond this count linearly, not squared
NOISE = 0.15  # sd of ln t of one observation of weight 1, against which priors count


class Observation(NamedTuple):
    """A measured time, and the terms that should explain it."""

    terms: Sequence[Term]
    seconds: float
    weight: float


class Prior(NamedTuple):
    """What is believed of a parameter before the data: for a factor the median and the sd of its ln, for an exponent
    the mean and the sd."""

    value: float
    sd: float
    exponent: bool = False


Priors = Callable[[str], Prior]


def fit(
    observations: Sequence[Observation], priors: Priors, iterations: int = 12, huber: float = HUBER
) -> dict[str, float]:
    """The parameters (factors as such, exponents as such) that explain the observations best, sorted by key."""
    names = sorted({name for row in observations for name in _names(row)})
    index = {name: i for i, name in enumerate(names)}
    prior = [priors(name) for name in names]
    means = [p.value if p.exponent else log(p.value) for p in prior]
    x = list(means)
    rows = [_compile(row, index) for row in observations]
    previous = float("inf")
    for _ in range(iterations):
        matrix, gradient, cost = _normal_equations(rows, x, means, prior, huber)
        step = solve(matrix, gradient)
        x = [value - max(-1.0, min(1.0, delta)) for value, delta in zip(x, step, strict=True)]
        if abs(previous - cost) < 1e-4 * abs(cost):
            break
        previous = cost
    return {name: (x[i] if prior[i].exponent else exp(x[i])) for name, i in index.items()}


class _Row(NamedTuple):
    terms: list[tuple[float, list[tuple[int, float]]]]  # ln base, (parameter, coefficient)
    ln_seconds: float
    weight: float


def _names(row: Observation) -> Iterable[str]:
    for term in row.terms:
        yield from term.keys
        for key, _ in term.powers:
            yield key


def _compile(row: Observation, index: dict[str, int]) -> _Row:
    terms = []
    for term in row.terms:
        if term.base_s > 0.0:
            coefficients = [(index[key], 1.0) for key in term.keys]
            coefficients += [(index[key], log(x)) for key, x in term.powers]
            terms.append((log(term.base_s), coefficients))
    return _Row(terms, log(row.seconds), row.weight)


def _normal_equations(
    rows: list[_Row], x: list[float], means: list[float], prior: list[Prior], huber: float
) -> tuple[list[list[float]], list[float], float]:
    n = len(x)
    matrix = [[0.0] * n for _ in range(n)]
    gradient = [0.0] * n
    cost = 0.0
    for i, p in enumerate(prior):
        precision = (NOISE / p.sd) ** 2
        matrix[i][i] = precision
        gradient[i] = precision * (x[i] - means[i])
        cost += 0.5 * precision * (x[i] - means[i]) ** 2
    for row in rows:
        values = [exp(base + sum(c * x[i] for i, c in coefficients)) for base, coefficients in row.terms]
        total = sum(values)
        slope: dict[int, float] = {}
        for value, (_, coefficients) in zip(values, row.terms, strict=True):
            for i, c in coefficients:
                slope[i] = slope.get(i, 0.0) + c * value / total
        residual = log(total) - row.ln_seconds
        root = sqrt(1.0 + (residual / huber) ** 2)
        weight = row.weight / root
        cost += row.weight * huber**2 * (root - 1.0)
        items = sorted(slope.items())
        for i, a in items:
            gradient[i] += weight * a * residual
            line = matrix[i]
            a *= weight
            for j, b in items:
                if j > i:
                    break
                line[j] += a * b
    return matrix, gradient, cost


def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve a symmetric positive definite system given by its lower triangle, by Cholesky's method."""
    lower: list[list[float]] = []
    solution: list[float] = []
    for i, line in enumerate(matrix):
        own: list[float] = []
        for j in range(i):
            other = lower[j]
            own.append((line[j] - sum(map(mul, own, other))) / other[j])
        own.append(sqrt(line[i] - sum(map(mul, own, own))))
        lower.append(own)
        solution.append((right[i] - sum(map(mul, own, solution))) / own[i])
    for i in range(len(solution) - 1, -1, -1):
        solution[i] /= lower[i][i]
        value = solution[i]
        own = lower[i]
        for j in range(i):
            solution[j] -= own[j] * value
    return solution
