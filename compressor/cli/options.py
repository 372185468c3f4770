"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model, ONNX or TorchScript.", show_default=False)
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Load TorchScript, which is code that runs when it is loaded.")
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME:TYPE[SIZES]",
        help="An input of a TorchScript model that does not store them, such as x:float32[1,3,224,224]; NAME=VALUE for "
        "a number.",
    ),
]
RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, YAML.", show_default=False)]
JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="FILE", help="Also write the result as JSON; - for stdout, alone.", show_default=False
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Set a variable, or a field such as passes.0.sparsity=0.5."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist already.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Also list every changed layer.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="Samples: .npz, .npy, .safetensors, .txt, .csv, .jsonl, a folder of images, module:function, or random.",
        show_default=False,
    ),
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads inside one operator.")]
