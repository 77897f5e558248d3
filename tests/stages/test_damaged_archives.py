"""Members of archives that cannot be read: each is named with its reason, and the others are encoded."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grncli import open_store


@pytest.fixture(scope="module")
def png(draw_picture: Callable[..., np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw_picture(0)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def failures(grn_inside: Callable, run_dir: Path, tmp_path: Path) -> Callable[[Path], dict[str, str]]:
    def tokenize(archive: Path) -> dict[str, str]:
        """Reasons of the members that failed, by their names; all others are samples."""
        done = grn_inside("tokenize", archive, tmp_path / "s.zarr", "--tokenizer", run_dir, "--workers", 0)
        assert done.returncode == 0, done.stderr
        store = open_store(tmp_path / "s.zarr")
        assert [Path(record["key"]).name for record in store.records()] == ["sound.png"]
        return {Path(line["source"]).name: line["error"] for line in store.failures()}

    return tokenize


def member(name: str, **fields: Any) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def test_an_encrypted_member_and_a_link_of_a_zip_are_named(failures: Callable, png: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("sound.png", png)
        archive.writestr(member("link.png", external_attr=0o120777 << 16), "sound.png")
        archive.writestr("secret.png", png)
        archive.getinfo("secret.png").flag_bits |= 1  # in the directory, which says so
    reasons = failures(tmp_path / "a.zip")
    assert reasons.keys() == {"link.png", "secret.png"}
    assert "is encrypted" in reasons["secret.png"]
    assert "is a link" in reasons["link.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_of_a_zip_is_named(failures: Callable, png: bytes, tmp_path: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("damaged.png", png)
        archive.writestr("sound.png", png)
    data = bytearray(buffer.getvalue())
    begin = 30 + len("damaged.png")
    data[begin + 12 : begin + 40] = bytes(255 - byte for byte in data[begin + 12 : begin + 40])
    (tmp_path / "a.zip").write_bytes(data)
    ((name, reason),) = failures(tmp_path / "a.zip").items()
    assert name == "damaged.png"
    assert "cannot be" in reason or "checksum" in reason


def test_a_device_in_a_tar_is_no_picture(failures: Callable, png: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("sound.png")
        info.size = len(png)
        archive.addfile(info, io.BytesIO(png))
        device = tarfile.TarInfo("device.png")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    assert "is not a plain file" in failures(tmp_path / "a.tar")["device.png"]
