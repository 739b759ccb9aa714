"""Drawn anatomy: images that look like a head, a chest and a knee, computed with NumPy.

Coordinates are millimetres in the patient's frame (PS3.3 C.7.6.2.1.1): x grows to the left hand, y to the
back, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.floating]

#: Half the width over which one tissue fades into the next, in pixels: the partial volume of a real scan.
_EDGE_PIXELS = 1.0
#: The side of the tile that noise is cut from, in pixels.
_NOISE_SIDE = 1024


@dataclass(frozen=True)
class Tissues:
    """What each tissue of the head measures in one modality: Hounsfield units, or signal."""

    air: float
    skin: float
    fat: float
    bone: float
    csf: float
    gray: float
    white: float
    nuclei: float
    lesion: float
    noise: float


@dataclass(frozen=True)
class Ellipsoid:
    """A part of the head: centre and semi-axes in mm, a turn about z in degrees, and its tissue."""

    centre: tuple[float, float, float]
    axes: tuple[float, float, float]
    tissue: str
    turn: float = 0.0


def _pair(
    x: float, y: float, z: float, axes: tuple[float, float, float], tissue: str, turn: float = 0.0
) -> tuple[Ellipsoid, Ellipsoid]:
    """Make the same part on both sides."""
    return Ellipsoid((x, y, z), axes, tissue, turn), Ellipsoid((-x, y, z), axes, tissue, -turn)


#: The skull with what is around it, from the outside in.
_OUTER = (
    Ellipsoid((0, 0, 0), (76, 95, 98), "skin"),
    Ellipsoid((0, 0, 0), (73, 92, 95), "fat"),
    Ellipsoid((0, 0, 0), (71, 90, 93), "bone"),
)
_BRAIN = Ellipsoid((0, 1, 0), (65, 83, 87), "gray")
#: What lies in the brain, in the order in which it is drawn.
_INNER = (
    *_pair(27, 2, 16, (9, 17, 12), "nuclei", 12),
    *_pair(11, 10, 10, (8, 12, 10), "nuclei", 8),
    *_pair(11, -18, 22, (5, 24, 9), "csf", -10),
    *_pair(17, 26, 20, (6, 20, 10), "csf", 16),
    *_pair(24, 36, 4, (5, 12, 10), "csf", 22),
    Ellipsoid((0, 2, 8), (2.2, 12, 9), "csf"),
    Ellipsoid((0, 40, -32), (8, 6, 9), "csf"),
    Ellipsoid((0, 27, 8), (2.2, 2.2, 2.2), "bone"),
    Ellipsoid((31, -22, 30), (4, 5, 4), "lesion"),
    Ellipsoid((-29, 20, 34), (3.5, 4.5, 4), "lesion"),
    Ellipsoid((25, 8, 38), (3, 4, 3), "lesion"),
    Ellipsoid((-24, -34, 24), (3, 3.5, 3), "lesion"),
)
#: The base of the skull and the face, drawn over the brain.
_BASE = (
    *_pair(36, 14, -46, (27, 9, 9), "bone", 28),
    *_pair(56, 32, -46, (9, 14, 13), "bone"),
    *_pair(56, 30, -46, (5, 8, 8), "air"),
    Ellipsoid((0, 6, -46), (15, 14, 10), "bone"),
    Ellipsoid((0, -66, -50), (28, 12, 26), "bone"),
    *_pair(30, -56, -42, (18, 19, 16), "bone"),
    *_pair(30, -58, -42, (16, 19, 14), "fat"),
    *_pair(30, -62, -42, (12, 12, 12), "gray"),
    *_pair(30, -72, -42, (5, 2.5, 5), "white"),
    *_pair(7, -60, -44, (5, 16, 14), "air"),
    *_pair(9, -82, 2, (8, 3, 12), "air"),
)


@cache
def _grid(size: int, pixel_mm: float) -> tuple[Image, Image]:
    """Give x as a row and y as a column, in mm from the centre."""
    axis = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * np.float32(pixel_mm)
    return axis[np.newaxis, :], axis[:, np.newaxis]


@cache
def _noise(seed: int) -> Image:
    """Give noise of unit deviation with the grain of a reconstructed image."""
    white = np.random.default_rng(seed).standard_normal((_NOISE_SIDE, _NOISE_SIDE)).astype(np.float32)
    grain = white + np.roll(white, 1, 0) + np.roll(white, 1, 1) + np.roll(white, (1, 1), (0, 1))
    return grain / np.float32(2)


def _grain(seed: int, index: int, size: int) -> Image:
    """Cut a piece out of the noise; each index has its own."""
    free = _NOISE_SIDE - size + 1
    top, left = index * 97 % free, index * 61 % free
    return _noise(seed)[top : top + size, left : left + size]


@cache
def _folds(size: int, pixel_mm: float) -> tuple[Image, Image]:
    """Give two waves around the centre of the brain, a quarter apart: their mixtures make its gyri."""
    x, y = _grid(size, pixel_mm)
    angle = np.arctan2(x / 65, y / 83)
    radius = np.hypot(x / 65, y / 83)
    phase = 17 * angle + 2.2 * np.sin(5 * angle + 6 * radius)
    return np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)


def _cover(part: Ellipsoid, z: float, size: int, pixel_mm: float) -> tuple[tuple[slice, slice], Image] | None:
    """Give where an ellipsoid is cut by a slice, and how much of each pixel there it covers (0 to 1)."""
    height = 1 - ((z - part.centre[2]) / part.axes[2]) ** 2
    if height <= 0:
        return None
    x, y = _grid(size, pixel_mm)
    reach = max(part.axes[0], part.axes[1]) + pixel_mm
    columns = _span(x[0], part.centre[0], reach)
    rows = _span(y[:, 0], part.centre[1], reach)
    dx, dy = x[:, columns] - part.centre[0], y[rows] - part.centre[1]
    if part.turn:
        cos, sin = np.cos(np.radians(part.turn)), np.sin(np.radians(part.turn))
        dx, dy = dx * cos + dy * sin, dy * cos - dx * sin
    a, b = part.axes[0], part.axes[1]
    inside = np.float32(height) - np.square(dx / np.float32(a)) - np.square(dy / np.float32(b))
    # The gradient of `inside` at the edge is about 2·sqrt(height)/axis per mm.
    steep = min(a, b) / (2 * np.sqrt(height) * 2 * _EDGE_PIXELS * pixel_mm)
    inside *= np.float32(steep)
    inside += np.float32(0.5)
    return (rows, columns), np.clip(inside, 0, 1, out=inside)


def _span(axis: Image, centre: float, reach: float) -> slice:
    first, last = np.searchsorted(axis, (centre - reach, centre + reach))
    return slice(int(first), int(last))


def _draw(image: Image, part: Ellipsoid, z: float, pixel_mm: float, value: float) -> None:
    cut = _cover(part, z, image.shape[0], pixel_mm)
    if cut is not None:
        where, cover = cut
        piece = image[where]
        piece += cover * (np.float32(value) - piece)


def head(z: float, size: int, pixel_mm: float, tissues: Tissues, seed: int) -> Image:
    """Draw an axial slice of a head.

    Parameters
    ----------
    z
        The slice's height in mm: −98 is below the base of the skull, 98 the vertex.
    size
        Rows and columns in pixels.
    pixel_mm
        The distance of two pixels.
    seed
        Which noise; the same arguments give the same slice.

    Returns
    -------
    numpy.ndarray
        ``size`` × ``size`` of float32 in the units of `tissues`.
    """
    image = np.full((size, size), tissues.air, dtype=np.float32)
    for part in _OUTER:
        _draw(image, part, z, pixel_mm, getattr(tissues, part.tissue))
    _draw_brain(image, z, pixel_mm, tissues)
    for part in (*_INNER, *_BASE):
        _draw(image, part, z, pixel_mm, getattr(tissues, part.tissue))
    image += _grain(seed, round(z * 8) + 1000, size) * np.float32(tissues.noise)
    return image


def _draw_brain(image: Image, z: float, pixel_mm: float, tissues: Tissues) -> None:
    """Draw the cortex with its folds, white matter inside, and fluid in the sulci and between the halves."""
    size = image.shape[0]
    cut = _cover(_BRAIN, z, size, pixel_mm)
    if cut is None:
        return
    where, cover = cut
    x, y = _grid(size, pixel_mm)
    x, y = x[:, where[1]], y[where[0]]
    height = 1 - (z / _BRAIN.axes[2]) ** 2
    depth = np.float32(height) - np.square(x / np.float32(65)) - np.square((y - 1) / np.float32(83))
    turn = z / 9
    cos, sin = _folds(size, pixel_mm)
    wave = cos[where] * np.float32(np.cos(turn)) + sin[where] * np.float32(np.sin(turn))
    white = np.clip((depth - 0.22 - 0.1 * wave) * 14, 0, 1)
    brain = tissues.gray + white * np.float32(tissues.white - tissues.gray)
    sulci = np.clip((wave - 0.72) * 6, 0, 1) * np.clip((0.2 - depth) * 9, 0, 1)
    fissure = np.clip(1.6 - np.abs(x), 0, 1) * np.clip((0.75 - depth) * 9, 0, 1) if z > 0 else 0
    fluid = np.maximum(np.maximum(sulci, fissure), np.clip((0.045 - depth) * 30, 0, 1))
    brain += fluid * (np.float32(tissues.csf) - brain)
    image[where] += cover * (brain - image[where])


def _band(distance: Image, width: float) -> Image:
    """Give a soft band: 1 on the line, fading out at `width`."""
    band: Image = np.exp(-np.square(distance / width))
    return band


def _blob(
    x: Image, y: Image, centre: tuple[float, float], axes: tuple[float, float], soft: float = 6
) -> Image:
    """Give a soft ellipse: 1 inside, 0 outside."""
    inside = 1 - np.square((x - centre[0]) / axes[0]) - np.square((y - centre[1]) / axes[1])
    blob: Image = np.clip(inside * soft + 0.5, 0, 1)
    return blob


def chest(size: int, pixel_mm: float, seed: int) -> Image:
    """Draw a chest radiograph, front to back: 0 is what no X-ray was held back from, 1 the densest bone."""
    x, y = _grid(size, pixel_mm)
    image: Image = 0.62 * _blob(x, y, (0, 60), (178, 260), 4) * _blob(x, y, (0, 120), (200, 285), 5)
    image += 0.5 * _blob(x, y, (0, -190), (52, 80), 3)
    lungs = np.maximum(
        _blob(x, y, (-72, -5), (56, 122), 3) * np.clip((98 - y + x * 0.1) / 12, 0, 1),
        _blob(x, y, (74, -5), (54, 122), 3) * np.clip((108 - y - x * 0.1) / 12, 0, 1),
    )
    image -= 0.42 * lungs
    heart = np.maximum(_blob(x, y, (22, 62), (60, 46), 3), _blob(x, y, (4, 5), (30, 62), 3))
    image += 0.3 * heart * np.clip((112 - y) / 10, 0, 1)
    for branch in range(7):
        for side in (-1, 1):
            rise = y - 5 - (branch - 2.5) * 0.42 * (np.abs(x) - 20)
            image += 0.07 * _band(rise, 3.5) * lungs * np.clip((95 - np.abs(x)) / 60, 0, 1) * (side * x > 20)
    image = _ribs(image, x, y)
    image += 0.2 * _band(x, 15) * (1 + 0.18 * np.cos(y / 4.2)) * np.clip((y + 210) / 60, 0, 1)
    image -= 0.16 * _band(x, 8) * np.clip((-20 - y) / 20, 0, 1)
    image += 0.015 * _grain(seed, 3, size)
    return np.clip(image, 0, 1, out=image)


def _ribs(image: Image, x: Image, y: Image) -> Image:
    width = np.abs(x)
    for number in range(10):
        back = y + 112 - number * 23 - 0.34 * width + 0.0036 * width**2
        front = y + 70 - number * 25 - 0.55 * (130 - width)
        cage = np.clip((132 - width) / 8, 0, 1) * np.clip((width - 16) / 10, 0, 1)
        image += 0.085 * (_band(back - 4, 4) + _band(back + 4, 4)) * cage
        image += 0.05 * _band(front, 5.5) * cage * np.clip((width - 60) / 30, 0, 1)
    collar = y + 118 + 0.2 * width - 0.0006 * width**2
    image += 0.16 * _band(collar, 6) * np.clip((width - 14) / 8, 0, 1) * np.clip((150 - width) / 20, 0, 1)
    return image


def knee(size: int, pixel_mm: float, gap_mm: float, seed: int) -> Image:
    """Draw a knee radiograph, front to back; `gap_mm` is the width of the joint space."""
    x, y = _grid(size, pixel_mm)
    soft = _blob(x / (1 + 0.0016 * np.abs(y)), y, (0, 0), (62, 400), 4)
    image: Image = 0.42 * soft
    femur = np.maximum(
        _shaft(x, -y, 17, 30),
        np.maximum(
            _blob(x, y, (-20, -24 - gap_mm / 2), (22, 24)), _blob(x, y, (20, -24 - gap_mm / 2), (22, 24))
        ),
    )
    tibia = np.maximum(
        _shaft(x, y, 15, 26),
        _blob(x, y, (0, 20 + gap_mm / 2), (42, 17)) * np.clip((y - gap_mm / 2) / 2, 0, 1),
    )
    fibula = np.maximum(_shaft(x + 38, y - 22, 6, 14), _blob(x, y, (-37, 32), (9, 11)))
    for bone in (femur, tibia, fibula):
        rim = bone * (1 - bone) * 4
        image += 0.26 * bone + 0.1 * rim
    image += 0.1 * _blob(x, y, (0, -30), (20, 24))
    image += 0.012 * (1 + 2 * np.maximum(femur, tibia)) * _grain(seed, 5, size)
    return np.clip(image, 0, 1, out=image)


def _shaft(x: Image, y: Image, narrow: float, flare: float) -> Image:
    """Draw a long bone that runs in the direction of y and widens towards the joint at 0."""
    half = narrow + flare * np.exp(-np.maximum(y, 0) / 22)
    edge = np.clip((half - np.abs(x)) / 2.5 + 0.5, 0, 1)
    marrow = 1 - 0.35 * np.clip((half - 5 - np.abs(x)) / 4, 0, 1) * np.clip((y - 30) / 20, 0, 1)
    shaft: Image = edge * marrow * np.clip((y - 14) / 4, 0, 1)
    return shaft
