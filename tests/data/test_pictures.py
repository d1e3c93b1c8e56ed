"""From a file to a training picture: every mode of image, orientation, and DICOM, against values worked out by hand."""

import sys
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, JPEGLosslessSV1, generate_uid

from selora.data import DataError, open_image

SIZE = 32
GREY = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 4096, (SIZE, SIZE), dtype=np.uint16)


def write_dicom(path, pixels=DEEP, kind="MONOCHROME2", **elements):
    """Write pixels (H, W), or (H, W, 3) of RGB, as a DICOM file."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    data.set_pixel_data(pixels, kind, bits_stored=8 * pixels.itemsize)
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def read(path) -> np.ndarray:
    """What open_image makes of a picture of its own size: (SIZE, SIZE), the same in all three channels."""
    image = open_image(path, SIZE)
    assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))
    pixels = np.asarray(image)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].astype(int)


def stretched(values) -> np.ndarray:
    """Values scaled from their own range to 0..255, not rounded."""
    values = np.asarray(values, dtype=float)
    return (values - values.min()) / (values.max() - values.min()) * 255


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "CMYK"])
def test_an_opaque_grey_picture_is_the_same_in_every_mode(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.fromarray(GREY).convert(mode).save(path)
    assert np.abs(read(path) - GREY).max() <= 1


def test_palette_and_one_bit(tmp_path):
    Image.fromarray(np.where(GREY > 99, 200, 40).astype(np.uint8)).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(GREY > 99).save(tmp_path / "bit.png")
    assert np.array_equal(read(tmp_path / "palette.png"), np.where(GREY > 99, 200, 40))
    assert np.array_equal(read(tmp_path / "bit.png"), np.where(GREY > 99, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_black(tmp_path, mode):
    """Half of the picture is white and transparent; its white must not show."""
    picture = Image.fromarray(np.full((SIZE, SIZE), 255, dtype=np.uint8)).convert("LA")
    alpha = np.zeros((SIZE, SIZE), dtype=np.uint8)
    alpha[:, 16:] = 255
    picture.putalpha(Image.fromarray(alpha))
    picture.convert("RGBA").convert(mode).save(tmp_path / "a.png")
    pixels = read(tmp_path / "a.png")
    assert (pixels[:, :16] == 0).all() and (pixels[:, 16:] == 255).all()


def test_sixteen_bits_are_scaled_from_their_own_range(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "a.png")
    assert np.abs(read(tmp_path / "a.png") - stretched(DEEP)).max() <= 0.51


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_exif_orientation_is_respected(tmp_path, name):
    """6: the camera was turned, the picture has to be turned clockwise by 90 degrees."""
    ramp = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[:, None], SIZE, axis=1)  # darker at the top
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp).save(tmp_path / name, exif=exif, **({"quality": 95} if name.endswith("jpg") else {}))
    assert np.abs(read(tmp_path / name) - np.rot90(ramp, -1)).max() <= 4


def test_monochrome1_is_the_inverse_of_monochrome2(tmp_path):
    normal = read(write_dicom(tmp_path / "2.dcm"))
    assert np.abs(normal - stretched(DEEP)).max() <= 0.51
    assert np.array_equal(read(write_dicom(tmp_path / "1.dcm", kind="MONOCHROME1")), 255 - normal)


def test_dicom_is_known_by_its_ending_or_its_preamble(tmp_path):
    shown = [read(write_dicom(tmp_path / name)) for name in ("a.dcm", "a.DICOM", "1.2.840.10008", "plain")]
    assert all(np.array_equal(pixels, shown[0]) for pixels in shown)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_rescale_and_window_are_applied(tmp_path, kind):
    """DICOM PS3.3 C.11.2.1.2, worked out here: values are 2 x stored - 100, of which 1000 to 3000 are shown."""
    path = write_dicom(
        tmp_path / "a.dcm", kind=kind, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=2000, WindowWidth=2000
    )
    values = np.clip(((2.0 * DEEP - 100) - (2000 - 0.5)) / (2000 - 1) + 0.5, 0, 1) * 255
    assert np.abs(read(path) - (255 - values if kind == "MONOCHROME1" else values)).max() <= 0.51
    assert (read(path) == 255).mean() > 0.1  # more than one pixel is beyond the window


def test_dicom_in_colour(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.repeat(GREY[..., None], 3, axis=2), "RGB")
    assert np.abs(read(path) - stretched(GREY)).max() <= 1


def test_dicom_without_pydicom_says_what_to_install(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match="a.dcm is DICOM, which needs pydicom: pip install pydicom"):
        open_image(path, SIZE)


def test_dicom_that_nothing_decodes_says_what_to_install(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm")
    data = pydicom.dcmread(path)
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data["PixelData"].VR = "OB"
    data.save_as(path)
    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda uid: SimpleNamespace(is_available=False))
    with pytest.raises(DataError, match=r"a.dcm is compressed as JPEG Lossless.*pip install 'pylibjpeg\[all\]'"):
        open_image(path, SIZE)


def test_broken_dicom_is_named(tmp_path):
    whole = write_dicom(tmp_path / "whole.dcm").read_bytes()
    for name, content in {"cut.dcm": whole[:-500], "text.dcm": b"no picture", "empty.dcm": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            open_image(tmp_path / name, SIZE)
    with pytest.raises(DataError, match="gone.dcm is missing"):
        open_image(tmp_path / "gone.dcm", SIZE)
    several = write_dicom(tmp_path / "several.dcm")
    data = pydicom.dcmread(several)
    data.NumberOfFrames, data.PixelData = 2, data.PixelData * 2
    data.save_as(several)
    with pytest.raises(DataError, match="several.dcm is MONOCHROME2 with values of shape .2, 32, 32."):
        open_image(several, SIZE)
