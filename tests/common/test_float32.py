"""Products of float32 do not depend on what a process has told torch, and torch is told what it was told before."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import backends

from m2e.common.float32 import Float32Products, float32_products
from m2e.extract.encoders.registry import load_encoder
from m2e.extract.encoders.tiny import tiny_encoder_folder


def settings() -> list[Any]:
    places: list[Any] = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    places += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    return [getattr(place, "fp32_precision", None) for place in places]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = settings()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    for place, value in zip((backends.cuda.matmul, backends.mkldnn.matmul), (before[0], before[3]), strict=True):
        if hasattr(place, "fp32_precision"):
            place.fp32_precision = value


@pytest.mark.parametrize("told", ["highest", "high", "medium"])
@pytest.mark.parametrize("kind", ["ieee", "tf32"])
def test_torch_is_told_what_it_was_told_before(told: str, kind: Float32Products) -> None:
    torch.set_float32_matmul_precision(told)
    before = settings()
    with float32_products(kind):
        assert torch.get_float32_matmul_precision() == ("highest" if kind == "ieee" else "high")
        assert backends.cudnn.allow_tf32 == (kind == "tf32")
        with float32_products(kind):
            pass
        assert torch.get_float32_matmul_precision() != told or told in ("highest", "high")
    assert torch.get_float32_matmul_precision() == told
    assert backends.cudnn.allow_tf32
    assert settings() == before


@pytest.mark.skipif(
    not hasattr(backends.cuda.matmul, "fp32_precision"), reason="this torch has the older switches only"
)
def test_the_newer_switches_are_restored_too() -> None:
    backends.cuda.matmul.fp32_precision = "tf32"
    backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    before = settings()
    with float32_products("ieee"):
        assert settings() != before
    assert settings() == before


def test_features_do_not_depend_on_it() -> None:
    encoder = load_encoder(tiny_encoder_folder(), (5, 7))
    wave = [torch.randn(48_000, generator=torch.Generator().manual_seed(0)).numpy()]
    exact = encoder.embed(wave)
    for told in ("high", "medium"):
        torch.set_float32_matmul_precision(told)
        assert (encoder.embed(wave) == exact).all()


def test_threads_of_one_kind_share_and_the_other_kind_waits() -> None:
    inside: list[tuple[str, str]] = []

    def work(kind: Float32Products) -> None:
        for _ in range(20):
            with float32_products(kind):
                inside.append((kind, torch.get_float32_matmul_precision()))
                time.sleep(0.001)

    kinds: tuple[Float32Products, ...] = ("ieee", "tf32", "ieee", "tf32")
    threads = [threading.Thread(target=work, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(inside) == 80
    assert set(inside) == {("ieee", "highest"), ("tf32", "high")}
    assert torch.get_float32_matmul_precision() == "highest"
