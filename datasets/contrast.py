"""Contrast normalisations and ZCA."""

from dataclasses import dataclass

import numpy as np

PREPROCESSING_VERSION = 1  # raised whenever preprocessing.py gives other numbers
ZCA_BIAS = 0.1
BLOCK = 5000  # images read, normalised and written at a time
CACHED = 250  # images whose float64 copy stays in the cache


def _blocks(n, size):
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def global_contrast_normalize(x, scale):
    """Subtract each image's mean, divide by sqrt(sum of squares)/scale; a divisor below 1e-8 becomes 1.

    Parameters
    ----------
    x : (n, features) array of any numbers
    scale : float, the length of every row afterwards

    Returns
    -------
    float32 (n, features), from sums in float64. Source: SPEC section 12.
    """
    out = np.empty(np.shape(x), np.float32)
    for rows in _blocks(len(out), CACHED):
        centred = x[rows] - np.mean(x[rows], axis=1, keepdims=True, dtype=np.float64)
        divisor = np.sqrt(np.einsum("ij,ij->i", centred, centred)) / scale
        divisor[divisor < 1e-8] = 1
        np.divide(centred, divisor[:, None], out=out[rows], casting="same_kind")
    return out


@dataclass(frozen=True)
class ZCA:
    """Whitening that stays closest to the image: x -> (x - mean) P (SPEC section 12).

    mean : float64 (d,)
    P : float64 (d, d), symmetric: V diag(lambda^-1/2) V^T of the covariance plus bias I
    """

    mean: np.ndarray
    P: np.ndarray

    @classmethod
    def fit(cls, x, bias=ZCA_BIAS, progress=lambda images: None):
        """Mean and covariance of x (n, d) in float64, a block at a time; progress(images) is called after each."""
        mean = np.mean(x, axis=0, dtype=np.float64)
        if len(x) < x.shape[1]:
            progress(len(x))
            return cls(mean, _inverse_root_of_few(x - mean, bias))
        covariance = np.zeros((x.shape[1],) * 2)
        for rows in _blocks(len(x), BLOCK):
            centred = x[rows] - mean
            covariance += centred.T @ centred
            progress(len(centred))
        covariance /= len(x)
        covariance[np.diag_indices_from(covariance)] += bias
        eigenvalues, V = np.linalg.eigh(covariance)
        return cls(mean, (V / np.sqrt(eigenvalues)) @ V.T)

    def apply(self, x, out=None, progress=lambda images: None):
        """float32 (n, d) of x (n, d), into `out` if given; the product is in float32 (a few 1e-6 of the result)."""
        out = np.empty(np.shape(x), np.float32) if out is None else out
        P = self.P.astype(np.float32)
        for rows in _blocks(len(x), BLOCK):
            np.matmul((x[rows] - self.mean).astype(np.float32), P, out=out[rows])
            progress(rows.stop - rows.start)
        return out


def _inverse_root_of_few(centred, bias):
    """P of fewer images than features, as in the sample, ten times faster: outside their span P is bias^-1/2 I."""
    n, d = centred.shape
    eigenvalues, U = np.linalg.eigh(centred @ centred.T / n)
    some = eigenvalues > 1e-12 * eigenvalues[-1]
    eigenvalues, V = eigenvalues[some], centred.T @ (U[:, some] / np.sqrt(n * eigenvalues[some]))
    P = (V * ((eigenvalues + bias) ** -0.5 - bias**-0.5)) @ V.T
    P[np.diag_indices(d)] += bias**-0.5
    return P


def _gaussian_matrix():
    """float32 (32, 32): product with it convolves 32 values with a 7-tap Gaussian, sigma 2, zeros beyond the border."""
    offsets = np.arange(-3, 4)
    taps = np.exp(-(offsets**2) / (2 * 2.0**2))
    return sum(
        np.diag(np.full(32 - abs(k), tap), k)
        for k, tap in zip(offsets, taps / taps.sum(), strict=True)
    ).astype(np.float32)


def local_contrast_normalize(x, channels="all"):
    """LeCun's local contrast normalisation of each 32 x 32 channel X: v / max(d, mean of d over the image, 1e-4).

    v = X - K*X and d = sqrt(K*(X^2)), X uncentred, with zeros beyond the border. K is a 7 x 7 Gaussian of sigma 2 that
    sums to 1: the outer product of a 7-tap one with itself, so K*X = G X G with a banded 32 x 32 matrix G.

    Parameters
    ----------
    x : (n, 3072) array
    channels : "all", or "first": the first channel alone, as pylearn2 did it by a bug; the others stay as they are

    Returns
    -------
    float32 (n, 3072). Source: SPEC section 12.
    """
    if channels not in ("all", "first"):
        raise ValueError(f"channels is {channels!r}: give 'all' or 'first'")
    G, out = _gaussian_matrix(), np.array(x, np.float32)

    def blur(X):
        return np.matmul(G, (X.reshape(-1, 32) @ G).reshape(X.shape))

    for rows in _blocks(len(out), CACHED):
        images = out[rows].reshape(-1, 3, 32, 32)[:, : 3 if channels == "all" else 1]
        X = np.ascontiguousarray(images)
        d = np.sqrt(blur(X * X))
        np.maximum(d, d.mean((2, 3), keepdims=True, dtype=np.float64), out=d, casting="same_kind")
        images[...] = (X - blur(X)) / np.maximum(d, np.float32(1e-4))
    return out
