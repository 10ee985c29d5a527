"""`python -m weights_tools make DIR`: the command line of weights_tools."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from weights_tools.architecture import Geometry
from weights_tools.checkpoint import CheckpointError
from weights_tools.synthetic import write_synthetic

app = typer.Typer(help="Make checkpoints in DeepSeek's layout.", no_args_is_help=True, add_completion=False)


@app.callback()
def _commands() -> None:
    """Keeps `make` a command of its own: typer folds a single command into the program."""


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(help="The checkpoint's folder, made whole or not at all.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    layers: Annotated[int, typer.Option(min=1, help="Three dense layers, then layers with experts.")] = 4,
    force: Annotated[bool, typer.Option("--force", help="Replace a synthetic checkpoint that is there.")] = False,
) -> None:
    """Write a small synthetic DeepSeek-V3.2 checkpoint: real norm widths, few heads and experts."""
    try:
        write_synthetic(folder, Geometry(num_hidden_layers=layers), seed=seed, force=force)
    except CheckpointError as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app(prog_name="python -m weights_tools")
