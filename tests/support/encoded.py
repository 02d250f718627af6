"""Audio files in any form that the encoders at hand can write."""

from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]


def encode(
    path: Path,
    samples: Wave,
    rate: int,
    codec: str,
    form: str | None = None,
    codec_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    **attributes: Any,
) -> Path:
    """Write samples, -1 to 1 [shape=(channels, n)], as a file; `form` is FFmpeg's name of the container."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}.get(len(samples), f"{len(samples)}c")
    with av.open(str(path), "w", format=form, options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, options=codec_options or {})
        for name, value in attributes.items():
            setattr(stream.codec_context, name, value)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout)
        frame.rate = rate
        frame.pts = 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path


def noise(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> Wave:
    """Noise below a sixth of the rate, which every codec keeps, -20 dB [shape=(channels, n)]."""
    n = round(seconds * rate)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal((channels, n)), axis=1)
    spectrum[:, n // 6 :] = 0
    wave = np.fft.irfft(spectrum, n, axis=1)
    return (0.1 * wave / wave.std()).astype(np.float32)


def delay(heard: Wave, written: Wave) -> int:
    """By how many samples `heard` comes later than `written` [shape=(n,) each]."""
    n = 2 * max(len(heard), len(written))
    correlation = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(written, n)), n)
    best = int(correlation.argmax())
    return best if best < n // 2 else best - n
