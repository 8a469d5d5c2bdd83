"""One-to-one matching of predicted and true objects: the assignment of the largest sum.

The assignment problem of Kuhn, "The Hungarian Method for the Assignment Problem" (1955), solved by
shortest augmenting paths (Jonker and Volgenant, "A Shortest Augmenting Path Algorithm for Dense and
Sparse Linear Assignment Problems", 1987). SciPy's ``linear_sum_assignment`` does the same; scoring
runs where SciPy is not installed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["largest_matching"]


def largest_matching(values: npt.ArrayLike) -> float:
    """The largest sum of values over pairs of which no two share a row or a column.

    Args:
        values: finite, at least 0, shape (P, T): what pairing p with t is worth.

    Returns:
        The sum, 0.0 without pairs. Steps: min(P, T)^2, each over max(P, T) numbers at once.

    Raises:
        ValueError: the array does not have two axes.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"values have shape {table.shape}; expected (P, T)")
    worth = table > 0
    if worth.sum(axis=0).max(initial=0) <= 1 and worth.sum(axis=1).max(initial=0) <= 1:
        return float(table.sum())  # nothing shares a row or a column: the usual case
    table = table if table.shape[0] <= table.shape[1] else table.T
    n_rows, n_columns = table.shape
    # A dual solution: every cost is at least row_price + column_price, with equality where paired.
    row_price, column_price = np.zeros(n_rows), np.zeros(n_columns)
    row_of = np.full(n_columns, -1)
    for free_row in range(n_rows):
        distance = np.full(n_columns, np.inf)
        reached_from = np.full(n_columns, -1)
        done = np.zeros(n_columns, dtype=bool)
        row, column, length = free_row, -1, 0.0
        while row >= 0:
            slack = length - table[row] - row_price[row] - column_price
            nearer = ~done & (slack < distance)
            distance[nearer], reached_from[nearer] = slack[nearer], column
            column = int(np.argmin(np.where(done, np.inf, distance)))
            length, row = float(distance[column]), int(row_of[column])
            done[column] = True
        passed = done.copy()
        passed[column] = False
        row_price[free_row] += length
        row_price[row_of[passed]] += length - distance[passed]
        column_price[passed] -= length - distance[passed]
        while column >= 0:  # along the path, each column takes the row of the one before
            before = int(reached_from[column])
            row_of[column] = free_row if before < 0 else row_of[before]
            column = before
    paired = np.flatnonzero(row_of >= 0)
    return float(table[row_of[paired], paired].sum())
