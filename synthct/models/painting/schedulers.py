"""The schedulers of recipes, created with the noise schedule of a checkpoint."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt

from synthct.errors import CheckpointError
from synthct.models.config import ScheduleConfig
from synthct.models.methods import REPAINT

#: Name in a recipe to the diffusers class and its arguments.
#: "trailing" begins at pure noise however few the steps (Lin et al. 2024). The two that stay with
#: "leading" cannot begin there: at the end of a cosine schedule noise exceeds signal 20,000 times,
#: which a second-order step in that ratio multiplies every error by, and float32 cannot resolve.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm": ("DDPMScheduler", {"timestep_spacing": "trailing", "clip_sample": False}),
    # DPM-Solver++ of the first order is DDIM (Lu et al. 2022, section 4.3). DDIMScheduler steps
    # back by a fixed stride, and where that does not divide the schedule evenly it leaves noise.
    "ddim": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 1, "timestep_spacing": "trailing"},
    ),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "sde-dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "leading"}),
    "heun": ("HeunDiscreteScheduler", {"timestep_spacing": "leading"}),
    "deis": ("DEISMultistepScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "timestep_spacing": "trailing"}),
    "lms": ("LMSDiscreteScheduler", {"timestep_spacing": "trailing"}),
}

#: Those that do not support networks that predict the image itself.
NOT_FROM_IMAGES = ("euler-ancestral", "pndm")


def make_scheduler(name: str, trained_with: Any) -> Any:
    """Create a diffusers scheduler with the noise schedule of a checkpoint.

    Args:
        name: A name in ``SCHEDULERS``.
        trained_with: The checkpoint's scheduler config.

    Raises:
        CheckpointError: If the scheduler is unknown or refuses the config.
    """
    if name == REPAINT:
        raise CheckpointError(
            f"scheduler '{REPAINT}' is for unconditional checkpoints, and this one knows what a "
            "mask is; choose another, such as dpmsolver++"
        )
    if name not in SCHEDULERS:
        raise CheckpointError(f"scheduler '{name}' is unknown; choose {', '.join(SCHEDULERS)}")
    if trained_with.get("prediction_type") == "sample" and name in NOT_FROM_IMAGES:
        raise CheckpointError(
            f"scheduler '{name}' does not fit the checkpoint, which predicts the image itself "
            "(prediction_type sample); choose dpmsolver++ or ddim"
        )
    class_name, arguments = SCHEDULERS[name]
    given = {key: trained_with.get(key) for key in ScheduleConfig.model_fields}
    config = {key: v for key, v in given.items() if v is not None and v is not False}
    try:
        return getattr(diffusers, class_name)(**config, **arguments)
    except (NotImplementedError, TypeError, ValueError) as err:
        raise CheckpointError(f"scheduler '{name}' does not fit the checkpoint: {err}") from err


def require_steps(sampler: Any, name: str, steps: int) -> None:
    """Check that there are as many steps, and that sampling starts at one that is mostly noise."""
    trained = sampler.config.num_train_timesteps
    if steps > trained:
        raise CheckpointError(
            f"scheduler '{name}' cannot paint in {steps} steps: the network knows {trained}"
        )
    try:
        sampler.set_timesteps(steps)
    except ValueError as err:
        raise CheckpointError(f"scheduler '{name}' cannot paint in {steps} steps: {err}") from err
    if float(sampler.timesteps[0]) <= trained / 2:
        raise CheckpointError(
            f"scheduler '{name}' cannot paint in num_inference_steps {steps}; "
            "give it more, or choose ddim or dpmsolver++"
        )


def require_levels(sampler: Any, name: str, trained_steps: int) -> None:
    """Check that sampling visits only the noise levels of a checkpoint trained for few steps."""
    known = trailing_timesteps(sampler.config.num_train_timesteps, trained_steps)
    # Schedulers round the same level up or down by one step of the schedule.
    apart = np.abs(np.asarray(sampler.timesteps, dtype=np.float64)[:, None] - known[None, :])
    if apart.min(axis=1).max() > 1:
        raise CheckpointError(
            f"the checkpoint was trained for {trained_steps} steps and scheduler '{name}' asks for "
            f"other noise levels; set num_inference_steps to {trained_steps} and choose "
            "dpmsolver++ or ddim"
        )


def trailing_timesteps(num_train_timesteps: int, steps: int) -> npt.NDArray[np.int64]:
    """The timesteps (steps,) of "trailing" spacing, the noisiest first."""
    spaced = np.arange(num_train_timesteps, 0, -num_train_timesteps / steps)
    return np.round(spaced).astype(np.int64)[:steps] - 1
