#!/usr/bin/env bash
# diffusers 0.42.1: with timestep_spacing="trailing" and a number of steps that does not divide the
# schedule, DDIM steps to one noise level and calls the network at another.
#
# The visited timesteps are spaced evenly and then rounded: 3 steps of 1,000 are 999, 666 and 332.
# A step goes back by 1000 // 3 = 333, so from 666 it lands on the level of 333, and the network is
# told 332. Given the true noise at every step, DDIM should give the clean sample back exactly; with
# 3, 6 or 7 steps it does not, with 2, 4, 5 or 8 it does. "leading" spacing, which rounds nothing,
# is exact. Every sampler that looks up the next visited timestep instead (DPM-Solver++) is exact too.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q diffusers==0.42.1 torch==2.13.0 numpy==2.4.6
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1
cat > try_it.py <<'PY'
import diffusers
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

torch.manual_seed(0)
clean, noise = torch.randn(4096, dtype=torch.float64), torch.randn(4096, dtype=torch.float64)


def error(kind, steps, spacing):
    """Greatest error of a sample that is denoised with its true noise."""
    options = {"set_alpha_to_one": True, "clip_sample": False} if kind is DDIMScheduler else {}
    sampler = kind(timestep_spacing=spacing, beta_schedule="scaled_linear", **options)
    sampler.set_timesteps(steps)
    first = sampler.timesteps[:1]
    sample = sampler.add_noise(clean, noise, first)
    for t in sampler.timesteps:
        sample = sampler.step(noise, t, sample).prev_sample
    return float((sample - clean).abs().max())


print("diffusers", diffusers.__version__)
sampler = DDIMScheduler(timestep_spacing="trailing")
sampler.set_timesteps(3)
print("visited", sampler.timesteps.tolist(), "stride", 1000 // 3)
for steps in (2, 3, 4, 5, 6, 7, 8):
    print(steps, "steps: trailing", f"{error(DDIMScheduler, steps, 'trailing'):.1e}",
          "leading", f"{error(DDIMScheduler, steps, 'leading'):.1e}",
          "DPM-Solver++ trailing", f"{error(DPMSolverMultistepScheduler, steps, 'trailing'):.1e}")
exact = [n for n in range(2, 9) if error(DDIMScheduler, n, "trailing") < 1e-4]
print("exact with trailing:", exact)
assert exact == [2, 4, 5, 8]
PY
python try_it.py
