"""Drawn scenes: soft shapes on plain, graded, cloudy, striped or grainy grounds, none of them medical.

Each has a caption that says what, how big, how bright and where, so that the base model learns left and right, upper
and lower, small and large.
"""

import numpy as np
from PIL import Image

SIZE = 128
Y, X = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j].astype(np.float32)
SHADES = {"black": 0.02, "very dark": 0.12, "dark": 0.25, "grey": 0.5, "light grey": 0.7, "bright": 0.85, "white": 0.97}
COLOURS = {
    "red": (1, 0.25, 0.2),
    "green": (0.3, 0.9, 0.35),
    "blue": (0.3, 0.4, 1),
    "yellow": (1, 0.9, 0.3),
    "orange": (1, 0.6, 0.2),
    "purple": (0.7, 0.3, 0.9),
    "brown": (0.6, 0.4, 0.25),
}
SIZES = {"tiny": 0.07, "small": 0.14, "": 0.25, "large": 0.4, "very large": 0.6}
COLUMNS = {"left": -0.5, "": 0.0, "right": 0.5}
ROWS = {"upper": -0.5, "": 0.0, "lower": 0.5}
# name of a shape: (its outline, width and height as multiples of its size)
SHAPES = {
    "circle": ("ellipse", 1, 1),
    "ellipse": ("ellipse", 1.4, 0.8),
    "tall oval": ("ellipse", 0.65, 1.5),
    "wide oval": ("ellipse", 1.5, 0.6),
    "square": ("box", 0.85, 0.85),
    "column": ("box", 0.35, 1.7),
    "band": ("box", 1.7, 0.3),
    "diamond": ("diamond", 1.1, 1.1),
    "triangle": ("triangle", 1.1, 1.1),
    "blob": ("blob", 1.1, 1.1),
    "patch": ("blob", 1.3, 0.9),
    "ring": ("ring", 1, 1),
    "line": ("box", 2.0, 0.06),
    "arc": ("arc", 1.3, 1.3),
    "spot": ("ellipse", 0.6, 0.6),
}


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


def draw(
    canvas: np.ndarray,
    shape: str,
    where: tuple[float, float],
    size: float,
    colour: np.ndarray,
    soft: float,
    strength: float,
    rng: np.random.Generator,
) -> np.ndarray:
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
        return canvas + rng.uniform(0.08, 0.25) * smooth_noise(rng, int(rng.integers(4, 16)))[
            ..., None
        ], f"a cloudy {name} background"
    if kind == "striped":
        way, axis = choose(rng, {"horizontal": Y, "vertical": X, "diagonal": (X + Y) / 1.4})
        waves = np.sin(axis * rng.uniform(10, 40) + rng.uniform(0, 6) + 0.6 * smooth_noise(rng, 4))
        return canvas + rng.uniform(0.06, 0.2) * waves[..., None], f"a {name} background with {way} stripes"
    if kind == "grainy":
        grain = rng.normal(0, 0.08, canvas.shape[:2]).astype(np.float32)
        return canvas + grain[..., None], f"a grainy {name} background"
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
