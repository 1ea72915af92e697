"""The command-line options that several training jobs share, each with one meaning. Their defaults are the jobs' own."""

from typing import Annotated

import typer

Revision = Annotated[str | None, typer.Option(help="of a hub model")]
Precision = Annotated[str, typer.Option(help="of the frozen base: nf4 (double quantisation), int8, bf16 or fp32")]
Epochs = Annotated[float, typer.Option(min=0.01)]
Batch = Annotated[int, typer.Option(min=1, help="a worker's, at a time")]
LearningRate = Annotated[float, typer.Option(min=0, help="the highest learning rate")]
MaxSteps = Annotated[int, typer.Option(min=0, help="stop there; 0: what the epochs take")]
Checkpointing = Annotated[bool, typer.Option(help="compute activations again to save memory")]
SaveSteps = Annotated[int, typer.Option(min=1, help="steps between checkpoints")]
Workers = Annotated[int, typer.Option(min=1, help="processes, one GPU each where there are GPUs")]
Gpu = Annotated[bool | None, typer.Option("--gpu/--cpu", help="by default what the machine has")]
Threads = Annotated[int, typer.Option(min=0, help="of each CPU worker; 0: all cores")]
