"""The pixels of a head that nobody has: an analytic T1-weighted brain after contrast agent, with or without a lesion.

Every tissue is a formula in patient coordinates (PS3.3 section C.7.6.2.1.1: x to the left, y to the back, z to the
head; millimetres; the origin in the middle of the brain), so the volume can be cut at any spacing. Folds, texture and
the lesion's outline come from smooth random fields of one seed; the magnitude noise is Rician, as a scanner's is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Volume = npt.NDArray[np.float32]  # shape (slices, rows, columns)
Stored = npt.NDArray[np.uint16]  # shape (rows, columns): the values that a file holds

SIDE = 256  # rows and columns
PIXEL_MM = 225.0 / SIDE
LOWEST_MM, HIGHEST_MM = -42.0, 73.0  # z of the first and the last slice
_SUBSLICES = 2  # averaged to one slice: the partial volume of a thick slice

# Signal of each tissue in T1 after gadolinium, as a share of the brightest.
_AIR, _BONE, _FLUID, _GREY, _WHITE, _MARROW, _MUSCLE, _FAT, _ENHANCED = 0.0, 0.05, 0.16, 0.45, 0.62, 0.5, 0.4, 0.88, 1.0

# Depth below the skin where each layer begins, in millimetres.
_FAT_DEPTH, _SKULL_DEPTH, _MARROW_DEPTH, _INNER_TABLE_DEPTH, _DURA_DEPTH, _FLUID_DEPTH, _BRAIN_DEPTH = (
    1.3, 5.0, 6.5, 9.0, 10.5, 11.3, 13.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lesion:
    """A mass that takes up contrast agent, on the convexity of one hemisphere."""

    x: float  # centre, millimetres
    y: float
    z: float
    radius: float  # millimetres


def _volume(values: npt.ArrayLike) -> Volume:
    return np.asarray(values, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Space:
    """Where each voxel lies; arrays that broadcast to (slices, rows, columns)."""

    x: Volume
    y: Volume
    z: Volume

    def ellipsoid(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Volume:
        """The distance from ``centre`` in units of ``radii``: 1 on the surface."""
        return _volume(
            np.sqrt(
                ((self.x - centre[0]) / radii[0]) ** 2
                + ((self.y - centre[1]) / radii[1]) ** 2
                + ((self.z - centre[2]) / radii[2]) ** 2
            )
        )

    def paired(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Volume:
        """As `ellipsoid`, on both sides alike."""
        return _Space(np.abs(self.x), self.y, self.z).ellipsoid(centre, radii)


def slice_positions(slices: int) -> list[float]:
    """The z of each slice, feet to head, in millimetres."""
    return [float(z) for z in np.linspace(LOWEST_MM, HIGHEST_MM, slices)]


def slice_spacing(slices: int) -> float:
    """Millimetres between the middles of two slices."""
    return (HIGHEST_MM - LOWEST_MM) / (slices - 1)


def pixel_origin() -> float:
    """The x and y of the middle of the first pixel, in millimetres."""
    return -(SIDE - 1) / 2 * PIXEL_MM


def random_lesion(random: np.random.Generator) -> Lesion:
    """A lesion in one of the cerebral hemispheres, over several slices."""
    side = float(random.choice([-1.0, 1.0]))
    return Lesion(
        x=side * random.uniform(38, 42),
        y=random.uniform(-22, 26),
        z=random.uniform(22, 32),
        radius=random.uniform(19, 22),
    )


def head_volume(random: np.random.Generator, slices: int, lesion: Lesion | None) -> Volume:
    """The signal of the whole head, shape (slices, 256, 256), 0 to about 1, before bias field and noise."""
    return head_and_mass(random, slices, lesion)[0]


def head_and_mass(random: np.random.Generator, slices: int, lesion: Lesion | None) -> tuple[Volume, Volume]:
    """The signal as `head_volume`, and the share of each voxel that the lesion's mass takes up, 0 to 1."""
    count = slices * _SUBSLICES
    step = slice_spacing(slices) / _SUBSLICES
    first = LOWEST_MM - step * (_SUBSLICES - 1) / 2
    z = (first + step * np.arange(count, dtype=np.float32))[:, None, None]
    axis = (pixel_origin() + PIXEL_MM * np.arange(SIDE)).astype(np.float32)
    space = _Space(axis[None, None, :], axis[None, :, None], z)
    fields = _Fields(random, count, step)
    depth = _depth_below_skin(space) + 0.7 * fields.smooth(22.0)
    signal = _layers(depth, fields)
    inner = _pushed_aside(space, lesion) if lesion else space
    brain = _brain(inner, _volume(depth - _BRAIN_DEPTH), fields)
    signal = np.where(depth > _BRAIN_DEPTH, brain, signal)
    signal = _base_of_skull(space, depth, signal, fields)
    signal = _sinus_and_falx(inner, depth, signal)
    mass = np.zeros(signal.shape, bool)
    if lesion:
        signal, mass = _with_lesion(space, depth, signal, lesion, fields)
    whole, share = (
        values.reshape(slices, _SUBSLICES, SIDE, SIDE).mean(axis=1, dtype=np.float32) for values in (signal, mass)
    )
    return _blurred(whole.astype(np.float32), 0.55), share


def magnitude(random: np.random.Generator, signal: Volume, noise: float = 0.018) -> Volume:
    """What a scanner makes of the signal: a coil's uneven sensitivity, and Rician noise (Gudbjartsson, Patz 1995)."""
    axis = np.linspace(-1, 1, SIDE, dtype=np.float32)
    tilt_x, tilt_y = random.uniform(-0.08, 0.08, 2)
    bias = 1.0 + tilt_x * axis[None, :] + tilt_y * axis[:, None] + 0.10 * (axis[None, :] ** 2 + axis[:, None] ** 2)
    real = signal * bias[None].astype(np.float32) + random.normal(0, noise, signal.shape)
    imaginary = random.normal(0, noise, signal.shape)
    return _volume(np.hypot(real, imaginary))


class _Fields:
    """Smooth random fields on the volume's grid, zero mean and unit variance each."""

    def __init__(self, random: np.random.Generator, count: int, step_mm: float) -> None:
        self._random = random
        self._shape = (count, SIDE, SIDE)
        self._steps = (step_mm, PIXEL_MM, PIXEL_MM)

    def smooth(self, length_mm: float) -> Volume:
        """White noise under a Gaussian of this width."""
        spectrum = np.fft.rfftn(self._random.standard_normal(self._shape, dtype=np.float32))
        for axis, (size, step) in enumerate(zip(self._shape, self._steps, strict=True)):
            frequency = np.fft.rfftfreq(size, step) if axis == 2 else np.fft.fftfreq(size, step)
            shape = [1, 1, 1]
            shape[axis] = -1
            spectrum *= np.exp(-2 * (np.pi * frequency * length_mm) ** 2).reshape(shape)
        field = np.fft.irfftn(spectrum, self._shape, axes=(0, 1, 2))
        return _volume(field / field.std())

    def distance_to_folds(self, length_mm: float) -> Volume:
        """Millimetres to the nearest zero of a smooth field: surfaces that wind through the volume like sulci."""
        field = self.smooth(length_mm)
        slopes = np.gradient(field, *self._steps)
        steepness = np.sqrt(sum(slope**2 for slope in slopes))
        return _volume(np.abs(field) / (steepness + 0.25 / length_mm))


def _depth_below_skin(space: _Space) -> Volume:
    """Millimetres below the skin, along the ray to the middle; negative outside."""
    # Broader at the back than at the front, and tapering less towards the neck than towards the crown.
    half_width = 73.0 * (1 + 0.10 * np.tanh(space.y / 60))
    half_height = np.where(space.z > 0, 108.0, 150.0)
    radius = np.sqrt((space.x / half_width) ** 2 + (space.y / 94.0) ** 2 + (space.z / half_height) ** 2)
    length = np.sqrt(space.x**2 + space.y**2 + space.z**2)
    return _volume((1 / np.maximum(radius, 0.05) - 1) * length)


def _layers(depth: Volume, fields: _Fields) -> Volume:
    """Skin, fat, skull with marrow, dura, fluid."""
    uneven = fields.smooth(6.0)
    bounds = [0.0, _FAT_DEPTH, _SKULL_DEPTH, _MARROW_DEPTH, _INNER_TABLE_DEPTH, _DURA_DEPTH, _FLUID_DEPTH]
    values = [_AIR, _MUSCLE, _FAT, _BONE, _MARROW, _BONE, 0.55, _FLUID]
    signal = np.choose(np.digitize(depth, bounds), values).astype(np.float32)
    return signal * (1 + 0.08 * uneven)


def _brain(space: _Space, depth: Volume, fields: _Fields) -> Volume:
    """Cortex with its sulci, white matter, ventricles and the deep grey nuclei."""
    fold = fields.distance_to_folds(4.3)
    texture = fields.smooth(1.6)
    reach = 21.0 + 4.0 * fields.smooth(14.0)  # how deep the sulci go
    folded = depth < reach
    width = np.clip(1.25 - depth / 22.0, 0.35, None)  # sulci close with depth
    cortex = (depth < 3.0) | (folded & (fold < 2.7))
    signal = np.where(cortex, _GREY, _WHITE).astype(np.float32)
    for nucleus, value in (
        (space.paired((14, -22, 8), (6, 10, 16)), _GREY),  # caudate
        (space.paired((26, -4, 1), (6.5, 18, 14)), _GREY + 0.03),  # putamen
        (space.paired((11, 13, 3), (9.5, 14, 11)), _GREY + 0.06),  # thalamus
    ):
        signal = np.where(nucleus < 1, value, signal)
    insula = np.abs(_beside_insula(space)) < 2.2
    signal = np.where(insula & _insular(space), _GREY, signal)
    signal = _cerebellum_and_stem(space, signal, fields)
    fluid = (folded & (fold < width) & (depth > 0)) | _cisterns(space)
    signal = np.where(fluid, _FLUID, signal)
    ventricle = _ventricles(space)
    signal = np.where(ventricle < 1, _FLUID - 0.03, signal)
    plexus = space.paired((22.5, 31, 9), (2.5, 6, 4))
    signal = np.where(plexus < 1, _FAT, signal)
    vessel = folded & (fold < 1.0) & (fields.smooth(2.6) > 1.9)
    signal = np.where(vessel, _FAT, signal)
    return signal * (1 + 0.025 * texture)


def _ventricles(space: _Space) -> Volume:
    """Below 1 inside a ventricle."""
    # The bodies part towards front and back like the two halves of a butterfly.
    spread = 5.5 + 0.004 * (space.y + 4) ** 2
    body = np.sqrt(
        ((np.abs(space.x) - spread - 2.5) / 4.6) ** 2 + ((space.y + 2) / 36) ** 2 + ((space.z - 17) / 12) ** 2
    )
    horn = space.paired((23, 36, 9), (5.5, 17, 9))
    third = space.ellipsoid((0, 6, -3), (2.6, 16, 13))
    fourth = space.ellipsoid((0, 42, -31), (7, 5.5, 9))
    return _volume(np.minimum.reduce([body, horn, third, fourth]))


def _insular(space: _Space) -> npt.NDArray[np.bool_]:
    """Where the insula and the fluid over it are, in y and z."""
    return space.ellipsoid((0, 0, 2), (1e6, 23, 17)) < 1


def _beside_insula(space: _Space) -> Volume:
    """Millimetres to the side of the insula's middle, which bulges and is not quite straight."""
    return _volume(np.abs(space.x) - 38 + 0.008 * space.y**2 + 1.2 * np.sin(space.y / 3.3 + space.z / 9))


def _cisterns(space: _Space) -> npt.NDArray[np.bool_]:
    """The fluid at the base, in the Sylvian fissures and between the hemispheres."""
    base = space.ellipsoid((0, -6, -25), (13, 13, 6)) < 1
    fissure_line = np.abs(space.y + 4 - 0.35 * (np.abs(space.x) - 45)) < 1.6
    sylvian = fissure_line & (np.abs(space.x) > 40) & (np.abs(space.z - 1) < 15)
    over_insula = (np.abs(_beside_insula(space) - 3.5) < 1.3) & _insular(space)
    ambient = (np.abs(space.ellipsoid((0, 14, -22), (19, 21, 9)) - 1) < 0.09) & (space.y > 12)
    fissure = (np.abs(space.x) < 1.7) & ((space.z > 30) | ((space.z > -14) & ((space.y < -34) | (space.y > 46))))
    fluid: npt.NDArray[np.bool_] = base | sylvian | over_insula | ambient | fissure
    return fluid


def _cerebellum_and_stem(space: _Space, signal: Volume, fields: _Fields) -> Volume:
    """The fine leaves of the cerebellum behind, the stem in front of it."""
    cerebellum = space.ellipsoid((0, 46, -42), (50, 36, 27))
    leaf = np.sin(2 * np.pi * cerebellum * 7.5 + 1.1 * fields.smooth(7.0))
    leaves = np.where(leaf > 0.82, 0.30, np.where(leaf > -0.2, _GREY + 0.02, _WHITE - 0.06))
    core = space.paired((17, 44, -38), (13, 12, 10)) < 1
    signal = np.where(cerebellum < 1, np.where(core, _WHITE, leaves), signal)
    signal = np.where((cerebellum >= 1) & (cerebellum < 1.05) & (space.z < -16), _FLUID, signal)  # under the tentorium
    stem = space.ellipsoid((0, 17, -34), (15, 14, 34))
    signal = np.where(stem < 1, _WHITE - 0.05, signal)
    return np.where((stem >= 1) & (stem < 1.14) & (space.z < -20), _FLUID, signal).astype(np.float32)


def _base_of_skull(space: _Space, depth: Volume, signal: Volume, fields: _Fields) -> Volume:
    """Orbits, nasal sinuses and petrous bones, at the lowest slices."""
    rough = 0.10 * fields.smooth(4.0)
    low = space.z < -24
    inside = depth > _FAT_DEPTH
    orbit = space.paired((31, -64, -42), (20, 27, 16)) + rough
    signal = np.where((orbit < 1.12) & inside, _BONE, signal)
    signal = np.where((orbit < 1) & inside, _FAT, signal)
    muscle = np.abs(space.paired((27, -56, -42), (11, 20, 10)) - 1) < 0.10
    signal = np.where(muscle & (orbit < 0.95) & (space.y > -64), _MUSCLE + 0.2, signal)
    globe = space.paired((32, -70, -41), (12, 12, 12))
    signal = np.where(globe < 1.08, _MUSCLE + 0.1, signal)
    signal = np.where(globe < 1, _FLUID - 0.02, signal)
    nose = space.ellipsoid((0, -62, -46), (14, 26, 19)) + rough
    cells = np.abs(np.sin(space.x / 2.6)) < 0.25
    signal = np.where((nose < 1) & inside, np.where(cells, _MUSCLE, _AIR + 0.02), signal)
    sphenoid = space.ellipsoid((0, -30, -44), (13, 12, 11)) + rough
    signal = np.where(sphenoid < 1.15, _BONE + 0.05, signal)
    signal = np.where(sphenoid < 0.9, _AIR + 0.02, signal)
    along = (np.abs(space.x) - 40) * 0.82 + (space.y - 16) * 0.57
    across = -(np.abs(space.x) - 40) * 0.57 + (space.y - 16) * 0.82
    petrous = np.sqrt((along / 25) ** 2 + (across / 8) ** 2 + ((space.z + 44) / 10) ** 2) + rough
    signal = np.where(petrous < 1, _BONE + 0.04, signal)
    marrow = (np.abs(petrous - 0.55) < 0.12) & low
    return np.where(marrow, _MARROW - 0.1, signal).astype(np.float32)


def _sinus_and_falx(space: _Space, depth: Volume, signal: Volume) -> Volume:
    """The falx and the sagittal sinus, which take up contrast agent."""
    upper = (space.z > 32) | ((space.z > -12) & ((space.y < -36) | (space.y > 48)))
    falx = (np.abs(space.x) < 0.65) & upper & (depth > _DURA_DEPTH)
    signal = np.where(falx, 0.6, signal)
    breadth = 5.0 - 0.75 * (depth - _DURA_DEPTH)
    sinus = (np.abs(space.x) < breadth) & (depth > _DURA_DEPTH) & ((space.y > 30) | (space.z > 55)) & (space.z > -14)
    return np.where(sinus, _ENHANCED - 0.05, signal).astype(np.float32)


def _pushed_aside(space: _Space, lesion: Lesion) -> _Space:
    """Where each voxel's tissue would lie without the mass: it pushes its surroundings away, less with distance."""
    dx, dy, dz = space.x - lesion.x, space.y - lesion.y, space.z - lesion.z
    distance = np.sqrt(dx**2 + dy**2 + dz**2) + 1e-3
    push = 7.0 * np.exp(-np.maximum(distance - lesion.radius, 0) / 20.0) / distance
    return _Space(
        *(part.astype(np.float32) for part in (space.x - push * dx, space.y - push * dy, space.z - push * dz))
    )


def _with_lesion(
    space: _Space, depth: Volume, signal: Volume, lesion: Lesion, fields: _Fields
) -> tuple[Volume, npt.NDArray[np.bool_]]:
    """Oedema, a mass that enhances nearly evenly, a cleft of fluid around it, a tail along the dura; and the mass."""
    outline = np.clip(1 + 0.08 * fields.smooth(9.0), 0.8, 1.25)
    centre, radii = (lesion.x, lesion.y, lesion.z), (lesion.radius, lesion.radius * 1.1, lesion.radius)
    distance = space.ellipsoid(centre, radii) / outline
    inside = depth > _DURA_DEPTH
    white = (signal > _GREY + 0.08) & (signal < 0.75) & (depth > _BRAIN_DEPTH)
    signal = np.where((distance < 1.45 + 0.15 * fields.smooth(7.0)) & white, 0.40, signal)
    signal = np.where((distance < 1.07) & (depth > _BRAIN_DEPTH), _FLUID + 0.1, signal)
    tail = (distance < 1.5) & inside & (depth < _DURA_DEPTH + 2.2)
    mass = (distance < 1) & inside
    enhanced = (_ENHANCED - 0.08) * (1 + 0.04 * fields.smooth(3.5))
    return np.where(mass | tail, enhanced, signal).astype(np.float32), mass


def _blurred(volume: Volume, width_px: float) -> Volume:
    """Each slice under a Gaussian: the point spread of the acquisition."""
    frequency = np.fft.fftfreq(SIDE)
    half = np.fft.rfftfreq(SIDE)
    window = np.exp(-2 * (np.pi * width_px) ** 2 * (frequency[:, None] ** 2 + half[None, :] ** 2))
    return np.clip(np.fft.irfft2(np.fft.rfft2(volume) * window, (SIDE, SIDE)), 0, None).astype(np.float32)
