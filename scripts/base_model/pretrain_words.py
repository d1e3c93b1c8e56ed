"""Other words for what the drawn scenes show, so that the text encoder has met the vocabulary of reports.

A text encoder that was trained on the world's pictures knows 'opacity' and 'enlarged' before it sees a radiograph; one
that was trained on clip art does not. Here these words name abstract shapes, sizes and places: no radiograph, no
sentence of a report, and no medical fact is in them.
"""

import re

import numpy as np

# In this order: a longer phrase before the words it contains.
WORDS = {
    r"\bvery large\b": ["very large", "severely enlarged", "massive", "extensive"],
    r"\blarge\b": ["large", "enlarged", "big", "prominent", "moderate"],
    r"\bsmall\b": ["small", "mild", "little", "minimal"],
    r"\btiny\b": ["tiny", "minimal", "subtle", "trace"],
    r"\bfaint\b": ["faint", "mild", "subtle", "minimal"],
    r"\bdense\b": ["dense", "severe", "marked", "calcified"],
    r"\bhazy\b": ["hazy", "patchy", "ill defined", "vague"],
    r"\bbright\b": ["bright", "opaque", "white", "increased"],
    r"\bdark\b": ["dark", "lucent", "black", "decreased"],
    r"\btwo ([\w ]+?) side by side\b": [r"two \1 side by side", r"bilateral \1", r"two \1 on both sides"],
    r"\bin the (left|right)\b": [r"in the \1", r"on the \1 side", r"in the \1 midlung", r"\1 sided"],
    r"\bin the lower half\b": ["in the lower half", "in the bases", "in both lower lobes", "basal"],
    r"\bin the upper half\b": ["in the upper half", "in the apices", "in both upper lobes", "apical"],
    r"\bin the lower (left|right)\b": [r"in the lower \1", r"at the \1 base", r"in the \1 lower lobe", r"\1 basal"],
    r"\bin the upper (left|right)\b": [r"in the upper \1", r"at the \1 apex", r"in the \1 upper lobe", r"\1 apical"],
    r"\bin the centre\b": ["in the centre", "in the midline", "in the mediastinum", "central"],
    r"\bcircles?\b": ["circle", "nodule", "granuloma", "round density"],
    r"\bballs?\b": ["ball", "mass", "nodule", "lesion"],
    r"\bovals?\b": ["oval", "heart", "silhouette", "contour"],
    r"\beggs?\b": ["egg", "heart", "cardiac silhouette", "cardiomegaly"],
    r"\bblobs?\b": ["blob", "opacity", "consolidation", "infiltrate", "airspace disease"],
    r"\bcushions?\b": ["cushion", "effusion", "pleural effusion", "fluid"],
    r"\bcurved bands?\b": ["curved stripes", "ribs", "markings"],  # before 'band', which it is not
    r"\bbands?\b": ["band", "atelectasis", "scarring", "streak"],
    r"\bcolumns?\b": ["column", "spine", "aorta", "vertebra"],
    r"\barcs?\b": ["arc", "diaphragm", "hemidiaphragm", "thickening"],
    r"\brods?\b": ["rod", "clavicle", "clips", "device"],
    r"\b(thread|line)s?\b": [r"\1", "catheter", "wire", "lead", "tube"],
    r"\btriangles?\b": ["triangle", "hilum", "wedge"],
    r"\bmisty\b": ["misty", "normal", "stable", "unremarkable"],
    r"\bsmoky\b": ["smoky", "interstitial", "emphysema", "coarse"],
    r"\b(no|without|there is no)\b": ["no", "without", "no evidence of", "there is no"],
    r"\bthe background is\b": ["the background is", "the lungs are", "appearance is"],
    r"\bon (a|an)\b": [r"on \1", r"within \1"],
}
REWORDED = 0.7  # share of the captions of scenes; the rest stays as it was drawn


def reword(caption: str, rng: np.random.Generator) -> str:
    """A scene's caption with some of its words exchanged; a clip art's as it is."""
    if caption.startswith("clip art") or rng.random() > REWORDED:
        return caption
    for pattern, choices in WORDS.items():
        caption = re.sub(pattern, lambda found, c=choices: found.expand(c[rng.integers(len(c))]), caption)
    return caption
