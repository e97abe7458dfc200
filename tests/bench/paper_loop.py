"""The paper's multiplicative updates in plain numpy float32: the peer of the factorisation bench.

python3 paper_loop.py A.f32 N D K SPARSITY ITERATIONS -> "seconds relative_error": the seconds of the iterations (the k-means
start is not counted) and the best relative error, recomputed from the factors in float64.

Coefficients that decay towards zero are cut off before they become denormal numbers, with which a product takes many times
as long: a plain loop would be slower, by far, at the same error.
"""

import math
import sys
import time

import numpy as np

TINY = 1e-15


def kmeans(rows, k, rng, rounds=15):
    centres = rows[rng.permutation(len(rows))[:k]].copy()
    for _ in range(rounds):
        labels = ((centres * centres).sum(1) - 2 * rows @ centres.T).argmin(1)
        for j in range(k):
            mine = labels == j
            centres[j] = rows[mine].mean(0) if mine.any() else rows[rng.integers(len(rows))]
    y = np.full((len(rows), k), 1e-6, np.float32)
    y[np.arange(len(rows)), labels] = 1.0
    return y


def main(path, n, d, k, sparsity, iterations):
    rows = np.fromfile(path, "<f4").reshape(n, d)
    a = np.ascontiguousarray(rows.T)
    y = kmeans(rows, k, np.random.default_rng(42))
    keep = math.ceil(sparsity * d)
    best, best_loss = None, math.inf
    started = time.perf_counter()
    for _ in range(iterations):
        z = a @ y @ np.linalg.inv(y.T @ y + 1e-6 * np.eye(k, dtype=np.float32))
        size = np.abs(z)
        z *= size >= np.partition(size, d - keep, axis=0)[d - keep]
        norms = np.maximum(np.linalg.norm(y, axis=0), 1e-8)
        y = y / norms
        z *= norms
        p, q = a.T @ z, z.T @ z
        above = (np.abs(p) + p) / 2 + y @ ((np.abs(q) - q) / 2)
        below = (np.abs(p) - p) / 2 + y @ ((np.abs(q) + q) / 2)
        y = (y * np.sqrt(above / (below + 1e-6))).astype(np.float32)
        y[y < TINY] = 0
        loss = np.linalg.norm(a - z @ y.T) ** 2
        if loss < best_loss - 1e-4:
            best, best_loss = (z.copy(), y.copy()), loss
    seconds = time.perf_counter() - started
    z, y = (m.astype(np.float64) for m in best)
    total = residual = 0.0
    for first in range(0, n, 1024):
        block = rows[first : first + 1024].astype(np.float64)
        total += (block**2).sum()
        residual += ((block - y[first : first + 1024] @ z.T) ** 2).sum()
    print(seconds, residual / total)


main(sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5]), int(float(sys.argv[6])))
