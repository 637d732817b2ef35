"""The plain script that people write themselves: PIL images, torchvision transforms, a DataLoader, Optuna.

`bench.speed.against_recipe` compares this package with it, so it is written as well as such scripts are. The loader's
workers persist, PyTorch chooses the number of threads, and PIL's C code decodes the images. The method is the
package's (same rotation, normalisation, optimizer, schedule). The metrics come from torchmetrics on probabilities.
Nothing is computed twice, and only the best score is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import BinaryAUROC, BinaryF1Score
from torchvision import transforms
from torchvision.transforms import InterpolationMode

N_LOADER_WORKERS = 2


class ImageFiles(Dataset[tuple[Tensor, Tensor]]):
    """Image files with their labels, 0 or 1."""

    def __init__(self, files: list[Path], labels: list[int], transform: Callable[[Image.Image], Tensor]) -> None:
        self.files, self.labels, self.transform = files, labels, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB")), torch.tensor(float(self.labels[index]))


@dataclass(frozen=True)
class Settings:
    """Settings of a trial."""

    model: str
    image_size: int
    batch_size: int
    epochs: int
    learning_rate: float


def objective(
    train: tuple[list[Path], list[int]],
    val: tuple[list[Path], list[int]],
    settings: Settings,
    seed: int,
    on_epoch: Callable[[float], None],
) -> Callable[[optuna.Trial], float]:
    """Return an Optuna objective: the best validation F1 of a model trained from random weights.

    `train` and `val` are files and labels; `on_epoch` gets the validation AUROC after each epoch.
    """
    size = (settings.image_size, settings.image_size)
    takes_size = {"img_size": settings.image_size} if "vit" in settings.model else {}

    def run(trial: optuna.Trial) -> float:
        torch.manual_seed(seed)
        model = timm.create_model(settings.model, pretrained=False, num_classes=1, **takes_size)
        config = timm.data.resolve_model_data_config(model)
        resize = transforms.Resize(size)
        rotation = transforms.RandomRotation(180, interpolation=InterpolationMode.BILINEAR, expand=True)
        plain = transforms.Compose([resize, transforms.ToTensor(), transforms.Normalize(config["mean"], config["std"])])
        augmented = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.RandomApply([rotation], p=0.5),
                plain,
            ]
        )
        loading = {"batch_size": settings.batch_size, "num_workers": N_LOADER_WORKERS, "persistent_workers": True}
        train_loader = DataLoader(ImageFiles(*train, augmented), shuffle=True, **loading)
        val_loader = DataLoader(ImageFiles(*val, plain), **loading)
        criterion = nn.BCEWithLogitsLoss()
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.91)
        f1, auroc = BinaryF1Score(), BinaryAUROC()
        best = 0.0
        for epoch in range(1, settings.epochs + 1):
            model.train()
            for images, labels in train_loader:
                optimizer.zero_grad()
                criterion(model(images).squeeze(1), labels).backward()
                optimizer.step()
            scheduler.step()
            model.eval()
            f1.reset()
            auroc.reset()
            with torch.inference_mode():
                for images, labels in val_loader:
                    probabilities = model(images).squeeze(1).sigmoid()
                    f1.update(probabilities, labels.int())
                    auroc.update(probabilities, labels.int())
            score = f1.compute().item()
            best = max(best, score)
            trial.report(score, epoch)
            on_epoch(auroc.compute().item())
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    return run
