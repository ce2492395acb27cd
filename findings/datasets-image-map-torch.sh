#!/usr/bin/env bash
# datasets 5.2.0: an Image() column cannot be mapped in torch format.
#
# with_format("torch") gives images as tensors with the channels first, a gray one as (1, H, W). What
# map returns for an Image() column is encoded with the channels last, so even the map that returns
# its row unchanged, over gray or RGB pictures, ends in AttributeError ("'list' object has no
# attribute 'mode'"). In numpy format the same map keeps every pixel; a gray picture of 8 bits
# comes back with 32 bits per pixel (mode I).
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q datasets==5.2.0 pillow==13.0.0 numpy==2.4.6 torch==2.13.0
export HF_HOME="$folder/home" HF_DATASETS_DISABLE_PROGRESS_BARS=1
cat > map.py <<'PY'
import numpy as np
from datasets import Dataset, Features, Image
from PIL import Image as Picture

pictures = {
    "gray": (np.arange(64 * 48) % 256).astype(np.uint8).reshape(64, 48),
    "RGB": np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8),
}
for name, pixels in pictures.items():
    rows = {"picture": [Picture.fromarray(pixels)]}
    dataset = Dataset.from_dict(rows, features=Features({"picture": Image()}))
    for form in ("numpy", "torch"):
        try:
            mapped = dataset.with_format(form).map(lambda row: {"picture": row["picture"]})
            back = mapped.with_format(None)[0]["picture"]
            said = f"mode {back.mode}, same pixels: {np.array_equal(np.asarray(back), pixels)}"
        except AttributeError as err:
            said = f"AttributeError: {err}"
        print(f"{name} {form}: {said}")
PY
python map.py 2>/dev/null | tee said.txt
cat > expected.txt <<'TXT'
gray numpy: mode I, same pixels: True
gray torch: AttributeError: 'list' object has no attribute 'mode'
RGB numpy: mode RGB, same pixels: True
RGB torch: AttributeError: 'list' object has no attribute 'mode'
TXT
diff said.txt expected.txt || { echo "this has changed"; exit 1; }
