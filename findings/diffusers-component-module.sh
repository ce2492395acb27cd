#!/usr/bin/env bash
# diffusers 0.42.1: a pipeline with a component of one's own saves, and then loads only if the
# component's module happens to hold the name ModelMixin.
#
# model_index.json names the module and class of each component. To find out how to load it,
# from_pretrained looks for known base classes as attributes of that module, and not among the bases
# of the class. A network that inherits ModelMixin through a class of another file is written
# without complaint and refused when it is read; importing ModelMixin beside it, unused, mends it.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q diffusers==0.42.1 torch==2.13.0 numpy==2.4.6
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1
cat > base_net.py <<'PY'
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class BaseNet(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
PY
cat > plain_net.py <<'PY'
from base_net import BaseNet


class PlainNet(BaseNet):
    pass
PY
cat > named_net.py <<'PY'
from base_net import BaseNet
from diffusers import ModelMixin  # not used


class NamedNet(BaseNet):
    pass
PY
cat > try_it.py <<'PY'
import diffusers
from diffusers import DiffusionPipeline
from named_net import NamedNet
from plain_net import PlainNet


class Pipe(DiffusionPipeline):
    def __init__(self, net) -> None:
        super().__init__()
        self.register_modules(net=net)


print("diffusers", diffusers.__version__)
for net in (PlainNet(), NamedNet()):
    name = type(net).__name__
    Pipe(net).save_pretrained(name)
    try:
        Pipe.from_pretrained(name)
        print(name, "loads")
    except ValueError as err:
        print(name, "saved, but not loaded:", str(err).splitlines()[0][:100])
PY
python try_it.py 2> log.txt | tee out.txt || { cat log.txt; exit 1; }
grep -q "^PlainNet saved, but not loaded" out.txt || { echo "this has changed"; exit 1; }
grep -q "^NamedNet loads" out.txt || { echo "this has changed"; exit 1; }
