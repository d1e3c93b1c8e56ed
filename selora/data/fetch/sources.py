"""Where the real data and models of the paper's scale come from: one table with all addresses, to be corrected here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """An archive on a server, and the folder it becomes. Sizes are in GB, rounded up."""

    url: str
    folder: str
    size: float
    unpacked: float
    sha256: str | None = None  # where one is published


@dataclass(frozen=True)
class Source:
    """Something to fetch: archives, files of the Hugging Face hub, or neither, for what a person has to fetch.

    holds: patterns below the folder, and how many files of each a whole set has at least. size: GB of a set without
    archives.
    """

    what: str
    terms: str
    by_hand: str
    holds: dict[str, int]
    archives: tuple[Archive, ...] = ()
    hub_id: str = ""
    revision: str = ""
    size: float = 0.0

    @property
    def gigabytes(self) -> float:
        return self.size or sum(archive.size for archive in self.archives)


def hub_source(what: str, terms: str, hub_id: str, revision: str, size: float, files: str) -> Source:
    """A model of the hub, kept in a folder of its name. files: what is fetched of it."""
    folder = hub_id.rpartition("/")[2]
    by_hand = f"Get these files of https://huggingface.co/{hub_id}/tree/{revision} into {folder}: {files}."
    holds = {f"{folder}/{file}": 1 for file in files.split()}
    return Source(what, terms, by_hand, holds, hub_id=hub_id, revision=revision, size=size)


IU_TERMS = "CC BY-NC-ND 4.0, Indiana University; cite Demner-Fushman et al. (2016), doi 10.1093/jamia/ocv080"
SOURCES = {
    "iu-xray": Source(
        "IU X-Ray: 7,470 chest radiographs with 3,955 reports",
        IU_TERMS,
        "Find 'NLMCXR_png.tgz' and 'NLMCXR_reports.tgz' from https://openi.nlm.nih.gov/faq#collection on.",
        {"NLMCXR_png/*.png": 7470, "ecgen-radiology/*.xml": 3955},
        (
            Archive("https://openi.nlm.nih.gov/imgs/collections/NLMCXR_png.tgz", "NLMCXR_png", 1.4, 1.4),
            Archive("https://openi.nlm.nih.gov/imgs/collections/NLMCXR_reports.tgz", "ecgen-radiology", 0.01, 0.03),
        ),
    ),
    "iu-xray-kaggle": Source(
        "IU X-Ray as redistributed on Kaggle, in larger images",
        IU_TERMS,
        "It needs an account: get https://www.kaggle.com/datasets/raddar/chest-xrays-indiana-university and unpack it "
        "as chest-xrays-indiana-university.",
        {
            f"chest-xrays-indiana-university/{name}": count
            for name, count in (
                ("indiana_reports.csv", 1),
                ("indiana_projections.csv", 1),
                ("images/images_normalized/*.png", 7466),
            )
        },
        size=14.2,
    ),
    "montgomery": Source(
        "Montgomery County: 138 chest radiographs with readings",
        "the National Library of Medicine asks that it be obtained there and not passed on; "
        "cite Candemir et al. (2014) and Jaeger et al. (2014)",
        "Get the folders CXR_png and ClinicalReadings from https://data.lhncbc.nlm.nih.gov/public/"
        "Tuberculosis-Chest-X-ray-Datasets/Montgomery-County-CXR-Set/MontgomerySet/index.html "
        "and put them into MontgomerySet; or get NLM-MontgomeryCXRSet.zip.",
        {"MontgomerySet/CXR_png/*.png": 138, "MontgomerySet/ClinicalReadings/*.txt": 138},
        (
            Archive(
                "https://openi.nlm.nih.gov/imgs/collections/NLM-MontgomeryCXRSet.zip",
                "MontgomerySet",
                0.7,
                0.7,
                # as torch-em has it, in torch_em/data/datasets/medical/montgomery.py
                "54601e952315d8f67383e9202a6e145997ade429f54f7e0af44b4e158714f424",
            ),
        ),
    ),
    "sd15": hub_source(
        "Stable Diffusion v1.5, the mirror of the vanished runwayml/stable-diffusion-v1-5",
        "CreativeML Open RAIL-M; cite Rombach et al. (2022)",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        4.3,
        "model_index.json feature_extractor/preprocessor_config.json scheduler/scheduler_config.json "
        "text_encoder/config.json text_encoder/model.safetensors "
        "tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json "
        "unet/config.json unet/diffusion_pytorch_model.safetensors "
        "vae/config.json vae/diffusion_pytorch_model.safetensors",
    ),
    "clip": hub_source(  # not base-patch32, which has no safetensors
        "CLIP ViT-L/14 for the CLIP score",
        "MIT; cite Radford et al. (2021)",
        "openai/clip-vit-large-patch14",
        "32bd64288804d66eefd0ccbe215aa642df71cc41",
        1.8,
        "config.json merges.txt model.safetensors preprocessor_config.json special_tokens_map.json tokenizer.json "
        "tokenizer_config.json vocab.json",
    ),
}
