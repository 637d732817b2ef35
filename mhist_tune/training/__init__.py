"""The method: one run, from hyperparameters to weights. Knows no study, no database and no command line.

- `augmentation`: Augmentation of training images: one warp per image, then one change of its stain.
- `checkpoints`: Training states on their way to a file and back.
- `features`: Features of an image for the sampling strategies that need its nearest neighbours (adasyn, tomek).
- `fit`: Training of one model.
- `fit_result`: What a training run returns: the result of each epoch, the result of the run, or that it diverged.
- `forward`: Forward passes of a model, in the run's precision and memory format, and the settings that make them
  reproducible.
- `freeze`: Frozen weights: weights that training does not change.
- `memory`: Memory: recognizing that it ran out, finding the micro-batch that fits, and how freed memory is returned.
- `metrics`: Metrics of one set of predictions by torchmetrics.
- `models`: Models with one logit: any timm model by name, or a small fully connected network.
- `optimizer`: The optimizer, and the learning rate and weight decay of each epoch.
- `prediction`: Predictions of a trained model.
- `probe`: Choice of the fastest settings: training steps are timed in each number format and memory format of the
  device.
- `sampling`: Which images an epoch trains on, in which order, and how they are cut into updates and micro-batches.
- `sampling_figure`: A figure of the votes in an epoch with and without a sampling strategy.
- `saved_model`: A saved model: weights, preprocessing and threshold in a folder, and its predictions.
- `step`: The training step: forward pass, loss, backward pass, update.
- `subsets`: Which images of a training split a run trains on: without excluded vote counts, or a subset with equal
  classes.
- `warps`: Flips, rotations, perspective and affine warps of a whole batch, on the device of the images.
"""
