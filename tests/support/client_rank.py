"""One rank of a client: trains, and writes down what the model received.

Started by torchrun with the client's name, its data and a folder. With `stop_after` the client is
stopped after as many steps and goes on from the state that it returned.
"""

import os
import sys
from importlib import import_module
from pathlib import Path

import torch
from support.pictures import Witness, dataset


def main(client: str, data: str, out: str, stop_after: str = "") -> None:
    import_module("dali_mixup.cli.peers")  # torchvision then loads beside a CPU build of torch
    train = import_module(f"runs.clients.{client}").train
    data_of_client = Path(data) if data else dataset()
    model = Witness()
    if stop_after:
        state = train(data_of_client, model, model.criterion, stop_after=int(stop_after))
        train(data_of_client, model, model.criterion, state=state)
    else:
        train(data_of_client, model, model.criterion)
    torch.save((model.images, model.targets), Path(out) / f"{os.environ['RANK']}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    os._exit(0)  # threads of gloo that are still there when Python ends can abort the process


if __name__ == "__main__":
    main(*sys.argv[1:])
