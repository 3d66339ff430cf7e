"""What pylearn2 did to the images before training: GCN, ZCA and LCN, on arrays.

    global_contrast_normalize    GCN, of whole images (CIFAR-10 and SVHN)
    ZCA                          whitening (CIFAR-10)
    local_contrast_normalize     LCN, of a pixel's neighbourhood (SVHN)

Images are rows of 3072 values in (channel, row, column) order. Source:
docs/published_program.md, "Data".
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.parts import Floats
from datasets.progress import blocks

PREPROCESSING_VERSION = 1  # raised whenever these functions give other numbers
BLOCK = 5000  # images whitened at a time
CACHED = 250  # images whose float64 copy stays in the processor's cache

Doubles = NDArray[np.float64]
Progress = Callable[[int], object]


def ignore(images: int) -> None:
    """Progress that nobody wants to see."""


def global_contrast_normalize(x: NDArray, scale: float) -> Floats:
    """Subtract each image's mean, divide by sqrt(sum of squares)/scale.

    A divisor below 1e-8 becomes 1. The sums are in float64.

    Parameters
    ----------
    x
        Any numbers (n, features).
    scale
        The length of every row afterwards.

    Returns
    -------
    float32 (n, features)
    """
    out = np.empty(np.shape(x), np.float32)
    for rows in blocks(len(out), CACHED):
        centred = x[rows] - np.mean(x[rows], axis=1, keepdims=True, dtype=np.float64)
        divisor = np.sqrt(np.einsum("ij,ij->i", centred, centred)) / scale
        divisor[divisor < 1e-8] = 1
        np.divide(centred, divisor[:, None], out=out[rows], casting="same_kind")
    return out


@dataclass(frozen=True)
class ZCA:
    """Whitening that stays closest to the image: x -> (x - mean) P.

    Parameters
    ----------
    mean
        float64 (d,)
    P
        float64 (d, d), symmetric: V diag(lambda^-1/2) V^T of the covariance plus bias
        I.
    """

    mean: Doubles
    P: Doubles

    @classmethod
    def fit(cls, x: NDArray, bias: float, progress: Progress = ignore) -> "ZCA":
        """Mean and covariance of x (n, d) in float64, a block at a time.

        Parameters
        ----------
        progress
            Called with the number of images after each block.
        """
        mean = x.mean(axis=0, dtype=np.float64)
        if len(x) < x.shape[1]:
            progress(len(x))
            return cls(mean, _inverse_root_of_few(x - mean, bias))
        covariance = np.zeros((x.shape[1],) * 2)
        for rows in blocks(len(x), BLOCK):
            centred = x[rows] - mean
            covariance += centred.T @ centred
            progress(len(centred))
        covariance /= len(x)
        covariance[np.diag_indices_from(covariance)] += bias
        eigenvalues, V = np.linalg.eigh(covariance)
        return cls(mean, (V / np.sqrt(eigenvalues)) @ V.T)

    def apply(self, x: NDArray, progress: Progress = ignore) -> Floats:
        """float32 (n, d) of x (n, d); a product in float32 is off by a few 1e-6."""
        out = np.empty(np.shape(x), np.float32)
        P = self.P.astype(np.float32)
        for rows in blocks(len(x), BLOCK):
            np.matmul((x[rows] - self.mean).astype(np.float32), P, out=out[rows])
            progress(rows.stop - rows.start)
        return out


def _inverse_root_of_few(centred: Doubles, bias: float) -> Doubles:
    """P of fewer images than features, as in the sample, ten times faster.

    Outside the span of the images P is bias^-1/2 I.
    """
    n, d = centred.shape
    eigenvalues, U = np.linalg.eigh(centred @ centred.T / n)
    some = eigenvalues > 1e-12 * eigenvalues[-1]
    eigenvalues = eigenvalues[some]
    V = centred.T @ (U[:, some] / np.sqrt(n * eigenvalues))
    P = (V * ((eigenvalues + bias) ** -0.5 - bias**-0.5)) @ V.T
    P[np.diag_indices(d)] += bias**-0.5
    return P


def local_contrast_normalize(x: NDArray, channels: str = "all") -> Floats:
    """LeCun's local contrast normalisation of each 32 x 32 channel X.

    The result is v / max(d, mean of d over the image, 1e-4), where v = X - K*X and d =
    sqrt(K*(X^2)), X uncentred, with zeros beyond the border. K is a 7 x 7 Gaussian of
    sigma 2 that sums to 1: the outer product of a 7-tap one with itself, so K*X = G X G
    with a banded 32 x 32 matrix G.

    Parameters
    ----------
    x
        Images (n, 3072).
    channels
        "all", or "first": the first channel alone, as pylearn2 did it by a bug; the
        others stay as they are.

    Returns
    -------
    float32 (n, 3072)
    """
    if channels not in ("all", "first"):
        raise ValueError(f"channels is {channels!r}: give 'all' or 'first'")
    G = _gaussian_matrix()
    out = np.array(x, np.float32)

    def blur(X: Floats) -> Floats:
        return np.matmul(G, (X.reshape(-1, 32) @ G).reshape(X.shape))

    for rows in blocks(len(out), CACHED):
        images = out[rows].reshape(-1, 3, 32, 32)[:, : 3 if channels == "all" else 1]
        X = np.ascontiguousarray(images)
        d = np.sqrt(blur(X * X))
        np.maximum(d, d.mean((2, 3), keepdims=True, dtype=np.float64), out=d, casting="same_kind")
        images[...] = (X - blur(X)) / np.maximum(d, np.float32(1e-4))
    return out


def _gaussian_matrix() -> Floats:
    """float32 (32, 32); its product convolves 32 values with a 7-tap Gaussian, sigma 2.

    Beyond the border there are zeros.
    """
    offsets = np.arange(-3, 4)
    taps = np.exp(-(offsets**2) / (2 * 2.0**2))
    taps = taps / taps.sum()
    bands = [np.diag(np.full(32 - abs(k), tap), k) for k, tap in enumerate(taps, start=-3)]
    return np.sum(bands, axis=0).astype(np.float32)
