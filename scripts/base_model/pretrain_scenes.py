"""Scenes made from a random generator, in grey, none of them medical: flat ones and translucent ones.

Each has a caption that says what is there, how big, how bright and where; half of them in several sentences that also
say what is not there. They teach left and right, upper and lower, small and large, and the word 'no'.
"""

import numpy as np
from PIL import Image

SIZE = 128
Y, X = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j].astype(np.float32)
SIZES = {"tiny": 0.07, "small": 0.14, "": 0.25, "large": 0.4, "very large": 0.6}
COLUMNS = {"left": -0.5, "": 0.0, "right": 0.5}
ROWS = {"upper": -0.5, "": 0.0, "lower": 0.5}
# name of a flat shape: (its outline, width and height as multiples of its size)
SHAPES = {
    "circle": ("ellipse", 1, 1),
    "oval": ("ellipse", 0.65, 1.5),
    "square": ("box", 0.85, 0.85),
    "column": ("box", 0.35, 1.7),
    "band": ("box", 1.7, 0.3),
    "diamond": ("diamond", 1.1, 1.1),
    "triangle": ("triangle", 1.1, 1.1),
    "blob": ("blob", 1.1, 1.1),
    "ring": ("ring", 1, 1),
    "line": ("box", 2.0, 0.06),
    "arc": ("arc", 1.3, 1.3),
}
SOLIDS = {"ball": (1.0, 1.0), "egg": (0.7, 1.4), "cushion": (1.6, 0.7), "rod": (0.25, 3.0), "thread": (0.05, 4.0)}


def choose(rng: np.random.Generator, options: dict) -> tuple[str, object]:
    name = list(options)[rng.integers(len(options))]
    return name, options[name]


def smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Random values on a cells x cells grid, enlarged smoothly to the picture's size, about -1 to 1."""
    grid = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((SIZE, SIZE), Image.BICUBIC))


def level(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grey values (any range) to uint8 around a mean near mid-grey, their contrast reduced where it would not fit.

    A small denoiser that learned pictures of every brightness cannot be tuned in a few hundred steps to keep to one: 16
    x 16 latents at full noise still tell much of their mean, and it goes on believing them.
    """
    away, mean = picture - picture.mean(), np.clip(rng.normal(0.5, 0.06), 0.35, 0.65)
    low, high = np.quantile(away, [0.01, 0.99])
    fits = min(mean / max(-low, 1e-3), (1 - mean) / max(high, 1e-3), 1.0)
    return (np.clip(mean + fits * away, 0, 1) * 255).round().astype(np.uint8)


def place(rng: np.random.Generator) -> tuple[list[tuple[float, float]], str]:
    """Where something is: one place, or one time in four two places side by side; with words."""
    (row, y), (column, x) = choose(rng, ROWS), choose(rng, COLUMNS)
    if rng.random() < 0.25:
        reach = rng.uniform(0.35, 0.6)
        places, words = [(-reach, y), (reach, y)], f"side by side{f' in the {row} half' if row else ''}"
    else:
        places, words = [(x, y)], f"in the {row} {column or 'middle'}" if row else f"in the {column or 'centre'}"
    return [(x + rng.normal(0, 0.07), y + rng.normal(0, 0.07)) for x, y in places], words


def phrase(adjectives: str, name: str, places: list, where: str) -> str:
    thing = " ".join(f"{adjectives} {name}".split())
    return f"{f'two {thing}s' if len(places) == 2 else f'a {thing}'} {where}"


def describe(ground: str, phrases: list[str], absent: list[str], rng: np.random.Generator) -> str:
    """The caption: one line, or sentences in any order, some of which say what is absent."""
    if rng.random() < 0.5:
        return f"{' and '.join(phrases) or 'nothing'} on {ground}"
    sentences = [f"there {'are' if p.startswith(('two', 'curved')) else 'is'} {p}" for p in phrases] + [
        f"the background is {ground}"
    ]
    missing = list(rng.permutation(absent)[: rng.integers(1, 5)])
    while missing:
        some, missing = missing[: (n := int(rng.integers(1, 3)))], missing[n:]
        sentences.append(f"{rng.choice(['no', 'there is no', 'without'])} {' or '.join(some)}")
    return ". ".join(rng.permutation(sentences)) + "."


# ---- flat scenes ----------------------------------------------------------------------------------------------------


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


def cover(shape: str, where: tuple[float, float], size: float, soft: float, rng: np.random.Generator) -> np.ndarray:
    """How much of each pixel one shape covers, 0 to 1. `soft` is the width of its edge."""
    kind, width, height = SHAPES[shape]
    upright = shape in ("column", "oval", "band", "triangle")
    angle = rng.normal(0, 0.12) if upright else rng.uniform(-np.pi, np.pi)
    dx, dy = X - where[0], Y - where[1]
    x, y = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    distance = outline(kind, x / (size * width), y / (size * height), rng) * size * min(width, height)
    return 1 / (1 + np.exp(np.clip(distance / soft, -30, 30)))


def flat_ground(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A plain, graded, cloudy, striped or grainy ground and its words."""
    canvas = np.full((SIZE, SIZE), rng.uniform(0.1, 0.9), np.float32)
    match rng.choice(["plain", "graded", "cloudy", "striped", "grainy"]):
        case "graded":
            side, slope = choose(rng, {"left": -X, "right": X, "top": -Y, "bottom": Y})
            return canvas + rng.uniform(0.1, 0.35) * slope, f"a background brighter at the {side}"
        case "cloudy":
            return canvas + rng.uniform(0.08, 0.25) * smooth_noise(rng, int(rng.integers(4, 16))), "a cloudy background"
        case "striped":
            way, axis = choose(rng, {"horizontal": Y, "vertical": X, "diagonal": (X + Y) / 1.4})
            waves = np.sin(axis * rng.uniform(10, 40) + rng.uniform(0, 6) + 0.6 * smooth_noise(rng, 4))
            return canvas + rng.uniform(0.06, 0.2) * waves, f"a background with {way} stripes"
        case "grainy":
            return canvas + rng.normal(0, 0.03, canvas.shape), "a grainy background"
    return canvas, "a plain background"


def flat_scene(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Up to three shapes, or pairs of them, on a ground: (128, 128) uint8 and a caption."""
    canvas, ground = flat_ground(rng)
    phrases, absent = [], set(SHAPES)
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.05, 0.4, 0.3, 0.25]))):
        shape, (size_word, size) = choose(rng, SHAPES)[0], choose(rng, SIZES)
        (edge, soft), (density, strength) = (
            choose(rng, {"clear": 0.008, "": 0.02, "hazy": 0.1}),
            choose(rng, {"": 0.9, "faint": 0.35}),
        )
        bright = rng.random() < 0.5
        places, where = place(rng)
        for spot in places:
            hidden = strength * cover(shape, spot, size * rng.uniform(0.85, 1.15), soft, rng)
            canvas = canvas + hidden * (canvas.mean() + (0.5 if bright else -0.5) - canvas)
        adjectives = f"{size_word} {density} {edge} {'bright' if bright else 'dark'}"
        phrases.append(phrase(adjectives, shape, places, where))
        absent -= {shape}
    return level(canvas, rng), describe(ground, phrases, sorted(absent), rng)


# ---- translucent scenes ---------------------------------------------------------------------------------------------


def ripples(rng: np.random.Generator) -> np.ndarray:
    """A stack of thin curved bands, evenly apart, fading to the sides."""
    bend, tilt, count = rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5), rng.uniform(8, 22)
    bands = np.clip(np.sin((Y + bend * X**2 + tilt * X) * count + rng.uniform(0, 6)), 0, 1)
    return bands * np.exp(-(X**2) / rng.uniform(0.4, 1.2) ** 2)


def translucent_scene(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Overlapping solids and hollows of tinted glass before smoke, soft all over: (128, 128) uint8 and a caption."""
    haze, strength = choose(rng, {"a clear": 0.05, "a misty": 0.15, "a smoky": 0.35})
    smoke = sum(smooth_noise(rng, cells) / weight for cells, weight in ((4, 1.5), (9, 3), (20, 6), (45, 10)))
    depth = strength * smoke + rng.uniform(0, 0.5) * (X * rng.uniform(-1, 1) + Y * rng.uniform(-1, 1))
    phrases, absent = [], {*SOLIDS, "curved bands"}
    for _ in range(int(rng.integers(1, 6))):
        (solid, (width, height)), (size_word, size) = choose(rng, SOLIDS), choose(rng, SIZES)
        (weight_word, heavy), hollow = choose(rng, {"faint": 0.25, "": 0.6, "dense": 1.1}), rng.random() < 0.4
        places, where = place(rng)
        for x, y in places:
            angle, dx, dy = rng.normal(0, 0.25), X - x + 0.06 * smooth_noise(rng, 5), Y - y
            u, v = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
            inside = np.clip(1 - (u / (size * width)) ** 2 - (v / (size * height)) ** 2, 0, None)
            depth = depth + (-heavy if hollow else heavy) * np.sqrt(inside)  # how long a ray stays in an ellipsoid
        phrases.append(phrase(f"{size_word} {weight_word} {'dark' if hollow else 'bright'}", solid, places, where))
        absent -= {solid}
    if rng.random() < 0.5:
        depth = depth + rng.uniform(0.1, 0.4) * ripples(rng)
        phrases.append("curved bands")
        absent -= {"curved bands"}
    light = 1 - np.exp(-rng.uniform(0.5, 1.4) * (depth - depth.min()))
    light = rng.uniform(0.6, 1) * (light - light.min()) / np.ptp(light)
    return level(light, rng), describe(f"{haze} background", phrases, sorted(absent), rng)
