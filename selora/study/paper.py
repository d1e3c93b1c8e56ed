"""What the paper prints, to stand beside the study's own figures."""

SOURCE = "Mao et al. 2024, Table 1; shares of parameters from its section 4"

# data set: method: FID, its deviation, CLIP score, its deviation
SCORES = {
    "IU X-RAY": {
        "LoRA": (113.37, 7.88, 27.11, 0.18),
        "AdaLoRA": (184.25, 53.05, 26.90, 0.33),
        "DyLoRA": (116.03, 10.29, 26.89, 0.05),
        "SeLoRA": (113.04, 16.79, 27.26, 0.22),
    },
    "Montgomery County CXR": {
        "LoRA": (461.80, 14.10, 24.34, 0.71),
        "AdaLoRA": (489.24, 14.28, 22.47, 0.23),
        "DyLoRA": (475.42, 7.84, 22.93, 0.27),
        "SeLoRA": (205.54, 9.56, 26.38, 0.04),
    },
}

# On IU X-RAY, "for the text encoder and U-net, respectively": SeLoRA's, and "other LoRA methods with rank r=4".
SHARES = {"SeLoRA": (0.121, 0.368), "others": (0.216, 0.803)}
