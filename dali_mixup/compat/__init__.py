"""Other libraries' names and arguments, so that a program changes one import line.

    from dali_mixup.compat import TimmMixup as Mixup  # was: from timm.data import Mixup

For the same draw the results equal the originals' to one rounding of float32. Inputs are not
written to, and an odd batch size is accepted. What cannot be honoured raises an error.
"""

from dali_mixup.compat.nvidia import MixUpWrapper
from dali_mixup.compat.timm import FastCollateMixup, TimmMixup
from dali_mixup.compat.torchvision import TorchvisionCutMix, TorchvisionMixUp

__all__ = [
    "FastCollateMixup",
    "MixUpWrapper",
    "TimmMixup",
    "TorchvisionCutMix",
    "TorchvisionMixUp",
]
