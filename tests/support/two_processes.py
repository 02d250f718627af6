"""Run by torchrun: evaluation and training shared by its processes, the first of which saves what came out."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from m2e.train.config import TrainConfig
from m2e.train.data.tensors import load_data, open_caches
from m2e.train.learning.distributed import process_group, rank
from m2e.train.learning.loop import output_sizes, train_student, train_teacher
from m2e.train.model.network import EmotionModel
from m2e.train.scoring.evaluate import predict

# Without dropout, which every process draws for itself, all that processes change is the order of sums.
CONFIG = TrainConfig.preset(
    "paper", hidden=32, branch_hidden=16, epochs=2, learning_rate=3e-3, dropout=0.0, exhausted="stop"
)


def results(caches: Path, shared: bool) -> dict[str, torch.Tensor]:
    """Outputs of an untrained model for the test tracks, and the weights and losses of a trained student."""
    torch.set_num_threads(1)
    sets = load_data(open_caches(caches, ["J", "D"]), CONFIG, torch.device("cpu"))
    torch.manual_seed(3)
    model = EmotionModel(CONFIG, sets[0].width, output_sizes(sets))
    found = {data.name: predict(model, data, "test", next(iter(data.targets)), shared) for data in sets}
    trained = train_student(sets, [train_teacher(data, CONFIG).models for data in sets], CONFIG)
    found["training"] = torch.tensor(trained.training)
    for task, losses in trained.validation.items():
        found[f"validation {task}"] = torch.tensor(losses)
        found |= {f"{task} {name}": value for name, value in trained.models[task].state_dict().items()}
    return found


def main() -> None:
    caches, out = map(Path, sys.argv[1:])
    with process_group(torch.device("cpu")):
        found = results(caches, shared=True)
        if rank() == 0:
            save_file(found, out)


if __name__ == "__main__":
    main()
