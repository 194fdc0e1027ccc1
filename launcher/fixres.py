"""FixRes: a job that fits a trained model to the size and crop it will be used at (Touvron et al. 2019). Pure.

Random crops enlarge the objects that a model is trained on; at a larger test size they look as large as they did, but
activations there have other statistics. So classifier and last norm are trained on at that size, on centre crops.
"""

from __future__ import annotations

from pathlib import Path

from launcher.config import JobConfig, LearningRate, Loss, Model, Phase, Sgd, Step, Trainable

EPOCHS = 56
LEARNING_RATE = 8e-3
BATCH = 512
"""As published for ResNet-50: 56 epochs of 8 x 64, times 0.1 after 30, SGD with momentum 0.9, decay 1e-4.

Its `--lr` of 1e-3 is not the rate: main_finetune.py trains at `8.0 * lr * batch_per_gpu * num_tasks / 512`.
"""
_STEP_AT = 30 / EPOCHS


def fixres_job(
    job: JobConfig,
    *,
    size: int,
    weights: Path,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    trainable: Trainable = "classifier_and_last_norm",
) -> JobConfig:
    """The stage after `job`, as a job of its own that starts from the weights that it left.

    `learning_rate` is for a global batch of BATCH, and scales linearly with the one that the job's last phase has.
    """
    last = job.phases[-1]
    phase = Phase(
        name=f"fixres {size} px",
        epochs=epochs,
        resolution=size,
        batch_per_worker=last.batch_per_worker,
        global_batch=last.global_batch,
        centre_crop=job.evaluation.crop_ratio,
        trainable=trainable,
    )
    changes = {
        "name": f"{job.name}-fixres-{size}",
        "model": Model(**{**dict(job.model), "pretrained": None, "weights": str(weights)}),
        "loss": Loss(),
        "optimizer": Sgd(momentum=0.9, weight_decay=1e-4),
        "ema": None,
        "learning_rate": LearningRate(
            base=learning_rate,
            base_batch=BATCH,
            shape=Step(kind="step", milestones_epochs=(epochs * _STEP_AT,), factor=0.1),
        ),
        "phases": (phase,),
        "evaluation": job.evaluation.model_copy(update={"resolution": size}),
    }
    return job.model_copy(update=changes)
