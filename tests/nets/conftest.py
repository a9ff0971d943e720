"""One thread for torch: these networks are tiny, and test processes that share cores only wait for each other."""

import torch

torch.set_num_threads(1)
