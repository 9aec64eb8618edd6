"""Options that other programs of this kind have: what numnet does instead, in one line."""

import re

from numnet.errors import NumnetError

CORES = "numnet computes on the processor's cores, all of them unless --threads T says fewer; there is no device to choose"
READERS = (
    "images are decoded ahead by threads of their own, without an option; --threads T is for the kernels"
)
FLOATS = "numnet computes in float32, or with --set dtype=float64 in that"
RANKS = "`mpiexec -n N numnet train …` trains on N processes"
CURVES = "the curves are in RUN_DIR: metrics.csv and metrics.jsonl, drawn in curves.png"

ANSWERS = {
    **dict.fromkeys(
        ("--device", "--devices", "--gpu", "--gpus", "--gpu-id", "--cuda", "--no-cuda", "--cpu"), CORES
    ),
    **dict.fromkeys(("--workers", "--num-workers", "--num_workers", "--n-workers", "--nw", "-j"), READERS),
    **dict.fromkeys(("--amp", "--fp16", "--bf16", "--half", "--precision", "--mixed-precision"), FLOATS),
    **dict.fromkeys(("--world-size", "--local-rank", "--local_rank", "--dist-url", "--nproc"), RANKS),
    **dict.fromkeys(("--tensorboard", "--wandb", "--logger", "--log-dir", "--logdir"), CURVES),
    **dict.fromkeys(("--pretrained", "--weights", "--finetune"), "--init FILE starts from a net's weights"),
    **dict.fromkeys(
        ("--imgsz", "--img-size", "--image-size", "--input-size"), "--resolution R is the side of the images"
    ),
    **dict.fromkeys(("--save-dir", "--output", "--output-dir"), "--out says where to write"),
    **dict.fromkeys(
        ("--early-stopping", "--early-stop"), "--patience E ends after E epochs that were no better"
    ),
    **dict.fromkeys(("--class-weight", "--weighted-loss"), "--class-weights balanced, or cat=2,dog=0.5"),
    **dict.fromkeys(
        ("--balanced", "--weighted-sampler"), "--sampling balanced shows each class equally often"
    ),
    **dict.fromkeys(
        ("--compile", "--channels-last", "--jit"),
        "kernels are compiled when they first run, without an option",
    ),
}


def answer(prog, words, known) -> None:
    """Raise NumnetError for an option among ``words`` that is not among ``known`` and that others have."""
    for word in words:
        name = word.partition("=")[0]
        if word == "--":
            return
        if (
            name in ANSWERS
            and name not in known
            and set(re.findall(r"--[a-z-]+", ANSWERS[name])) <= set(known)
        ):
            raise NumnetError(f"{prog} has no option {name}: {ANSWERS[name]}")
