"""The method: one run, from hyperparameters to weights. Knows no study, no database and no command line.

`worker`, `actions`, `dashboard` and `cli` may import it. Begin at `fit`.

- `augmentation`: The augmentation of an epoch: one warp of each image, then one change of its stain.
- `checkpoints`: Training states, written to files and read back.
- `epoch_time`: The seconds of an epoch on a device, measured before a study is trained.
- `features`: Features of images, for the nearest neighbours of adasyn and tomek.
- `fit`: The training of one model, epoch by epoch.
- `fit_result`: The result of an epoch and of a run, and `Diverged`.
- `forward`: Forward passes in the run's precision and memory format, and what makes them reproducible.
- `freeze`: Frozen weights.
- `memory`: Running out of memory: recognizing it, and finding the micro-batch that fits.
- `metrics`: The validation metrics of an epoch: mean F1, F1, AUROC and others.
- `models`: Models with one logit: timm's by name, or a small fully connected network.
- `optimizer`: The optimizer, and the learning rate and weight decay of each epoch.
- `power`: The power that a training takes, by the energy counter of a GPU.
- `prediction`: The probabilities that a trained model predicts.
- `probe`: The fastest precision and memory format of a device, measured by timed training steps.
- `sampling`: The images of an epoch, balanced or not, and how they are cut into updates and micro-batches.
- `sampling_figure`: A figure of the votes in an epoch with and without a sampling strategy.
- `saved_model`: A saved model in a folder, and its predictions (`mhist-tune predict`).
- `step`: The training step: forward pass, loss, backward pass, update.
- `subsets`: The images of the training split that a run trains on.
- `warps`: Each augmentation of the shape: flips, rotations, perspective and affine warps of a batch.
- `weight_files`: The weight files of a run: where they are, their content, and whether a model can be trained from it.
"""
