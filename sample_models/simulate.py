"""Simulated sensor data: a pump drive with wear, and vibration windows with five fault classes.

Every formula is stated in the docstring of the function that computes it. Randomness comes only from the
numpy Generator the caller passes in, so one seed gives one data set.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

COMPONENTS = ("bearing", "cooling", "drive")
FAULTS = ("normal", "imbalance", "looseness", "drift", "spikes")

MACHINE_CHANNELS = (
    "torque_nm",
    "speed_rpm",
    "ambient_c",
    "bearing_drive_end_c",
    "bearing_far_end_c",
    "vibration_mm_s",
    "crest_factor",
    "coolant_pressure_bar",
    "coolant_flow_l_min",
    "coolant_outlet_c",
    "motor_current_a",
    "winding_c",
)
# Standard deviation of the sensor noise, one per machine channel, in the unit of that channel.
MACHINE_NOISE = (1.0, 10.0, 0.3, 1.0, 1.0, 0.25, 0.25, 0.1, 0.8, 0.8, 0.6, 1.5)

WINDOW_STEPS = 32
SAMPLES_PER_REVOLUTION = 8
VIBRATION_NOISE = 0.12  # g
ADC_STEP = 1 / 256  # g, the resolution of the simulated vibration sensors


def simulate_machine(rng: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
    """Return sensor readings [count, 12] in MACHINE_CHANNELS units and health values [count, 3].

    Each sample is an independent steady operating point: load l ~ U(0.2, 1) of rated torque, speed
    n ~ U(0.3, 1) of rated speed, ambient temperature a ~ U(5, 40) degrees C, and for every component in
    COMPONENTS a wear w ~ Beta(0.8, 1.6) in 0..1. The health of a component is 1 - w, so 1 is new.
    """
    load = rng.uniform(0.2, 1.0, count)
    speed = rng.uniform(0.3, 1.0, count)
    ambient = rng.uniform(5.0, 40.0, count)
    wear = rng.beta(0.8, 1.6, (count, len(COMPONENTS)))
    readings = machine_readings(load, speed, ambient, wear)
    noise = rng.normal(size=readings.shape) * np.asarray(MACHINE_NOISE)
    return readings + noise, 1.0 - wear


def machine_readings(
    load: FloatArray,
    speed: FloatArray,
    ambient: FloatArray,
    wear: FloatArray,
) -> FloatArray:
    """Return the noise-free readings [count, 12] for load l, speed n, ambient a and wear (b, c, d).

    Here b is the bearing wear, c the fouling of the cooling circuit, d the degradation of the drive:

        torque           = 120 l
        speed            = 3000 n
        bearing (drive)  = a + 22 q (1 + 1.5 b^2)      with friction heat q = n (0.4 + 0.6 l)
        bearing (far)    = a + 16 q (1 + 0.5 b)
        vibration        = 0.8 + 1.5 n^2 + 6 n b^1.5 + 1.2 l d
        crest factor     = 3 + 5 b (1 - 0.5 b)         impacts smear out in late wear
        coolant pressure = (1.5 + 2.5 n) (1 + 0.4 c)   a clogged filter raises it
        coolant flow     = 40 n (1 - 0.6 c)
        coolant outlet   = a + 5 + 12 l n (1 + 0.8 d^2) / (1 - 0.6 c)
        motor current    = 8 + 42 l (1 + 0.4 d + 0.08 n b)
        winding          = a + 10 + 45 l^2 (1 + 0.5 d) / (1 - 0.4 c)
    """
    bearing, cooling, drive = wear.T
    friction = speed * (0.4 + 0.6 * load)
    channels = (
        120.0 * load,
        3000.0 * speed,
        ambient,
        ambient + 22.0 * friction * (1.0 + 1.5 * bearing**2),
        ambient + 16.0 * friction * (1.0 + 0.5 * bearing),
        0.8 + 1.5 * speed**2 + 6.0 * speed * bearing**1.5 + 1.2 * load * drive,
        3.0 + 5.0 * bearing * (1.0 - 0.5 * bearing),
        (1.5 + 2.5 * speed) * (1.0 + 0.4 * cooling),
        40.0 * speed * (1.0 - 0.6 * cooling),
        ambient + 5.0 + 12.0 * load * speed * (1.0 + 0.8 * drive**2) / (1.0 - 0.6 * cooling),
        8.0 + 42.0 * load * (1.0 + 0.4 * drive + 0.08 * speed * bearing),
        ambient + 10.0 + 45.0 * load**2 * (1.0 + 0.5 * drive) / (1.0 - 0.4 * cooling),
    )
    return np.stack(channels, axis=1)


def simulate_windows(rng: np.random.Generator, count: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Return vibration windows [count, 32, 4] in g and their class ids [count], indices into FAULTS.

    The channels are radial x, radial y, axial and radial x at the far bearing. The classes are equally
    likely and the severity of a fault is s ~ U(0.25, 1); a mild fault can drown in the noise, so no
    classifier reaches 100 %. The window is healthy_windows + fault_signal + N(0, VIBRATION_NOISE),
    rounded to ADC_STEP.
    """
    labels = rng.integers(0, len(FAULTS), count)
    healthy, phase = healthy_windows(rng, count)
    severity = rng.uniform(0.25, 1.0, (count, 1, 1))
    fault = np.zeros_like(healthy)
    for class_id, name in enumerate(FAULTS):
        rows = labels == class_id
        fault[rows] = fault_signal(rng, name, phase[rows])
    noise = rng.normal(0.0, VIBRATION_NOISE, healthy.shape)
    windows = healthy + severity * fault + noise
    return np.round(windows / ADC_STEP) * ADC_STEP, labels.astype(np.int64)


def healthy_windows(rng: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray]:
    """Return the vibration of a healthy machine [count, 32, 4] in g and its shaft angle [count, 32].

    With shaft angle p(t) = p0 + 2 pi t / 8 (8 samples a revolution), p0 ~ U(0, 2 pi), and a residual
    imbalance r ~ U(0.1, 0.4): x = r cos p, y = r sin p, axial = 0.2 r cos 2p, far x = 0.6 r cos p.
    """
    start = rng.uniform(0.0, 2.0 * np.pi, (count, 1))
    phase = start + 2.0 * np.pi * np.arange(WINDOW_STEPS) / SAMPLES_PER_REVOLUTION
    residual = rng.uniform(0.1, 0.4, (count, 1, 1))
    shape = (np.cos(phase), np.sin(phase), 0.2 * np.cos(2.0 * phase), 0.6 * np.cos(phase))
    return residual * np.stack(shape, axis=2), phase


def fault_signal(rng: np.random.Generator, fault: str, phase: FloatArray) -> FloatArray:
    """Return what one fault adds at severity 1, [count, 32, 4] in g, for shaft angles p [count, 32].

    normal     0
    imbalance  the once-per-revolution circle: (cos p, sin p, 0, 0.6 cos p)
    looseness  half-order and second-order motion: 0.5 cos(p/2) + 0.4 cos(2p), weighted (1, 0.6, 0.5, 0.4)
    drift      a ramp 1.2 (t/31 - 0.5) on one channel, drawn per window, up or down
    spikes     an impact of 1.8 with probability 0.1 per step, weighted (1, 0.7, 0.3, 0.2)
    """
    if fault == "normal":
        return np.zeros((*phase.shape, 4))
    if fault == "imbalance":
        return np.stack((np.cos(phase), np.sin(phase), 0.0 * phase, 0.6 * np.cos(phase)), axis=2)
    if fault == "looseness":
        motion = 0.5 * np.cos(phase / 2.0) + 0.4 * np.cos(2.0 * phase)
        return weighted(motion, (1.0, 0.6, 0.5, 0.4))
    if fault == "drift":
        return drift_ramp(rng, len(phase))
    if fault == "spikes":
        impacts = np.where(rng.random(phase.shape) < 0.1, 1.8, 0.0)
        return weighted(impacts, (1.0, 0.7, 0.3, 0.2))
    raise ValueError(f"unknown fault {fault!r}, expected one of {FAULTS}")


def weighted(signal: FloatArray, weights: tuple[float, ...]) -> FloatArray:
    """Return one signal [count, 32] as [count, 32, channels], scaled by one weight per channel."""
    return signal[:, :, np.newaxis] * np.asarray(weights, dtype=np.float64)


def drift_ramp(rng: np.random.Generator, count: int) -> FloatArray:
    """Return a ramp 1.2 (t/31 - 0.5) g, [count, 32, 4], on one random channel with a random sign."""
    ramp = 1.2 * (np.linspace(0.0, 1.0, WINDOW_STEPS) - 0.5)
    channel = np.eye(4)[rng.integers(0, 4, count)]
    sign = rng.choice([-1.0, 1.0], (count, 1, 1))
    drift: FloatArray = sign * ramp[None, :, None] * channel[:, None, :]
    return drift
