"""Signal: initialisation and batch norm keep signals and gradients alive, so that tens of layers start to learn.

Paper:    He et al. 2015, sections 1 and 4.1; He et al. 2015, "Delving deep" (1502.01852), section 2.2; Glorot & Bengio
          2010; Zhang et al. 2019, Fixup (1901.09321); Yang et al. 2019 (1902.08129).
Claim:    small Gaussian weights without batch norm make signals and gradients of deep plain nets vanish, and such
          nets do not start to learn; with He's initialisation or batch norm they do.
Command:  resnetlab study run signal --scale quick                      (the digits, about 2 minutes on 2 cores)
          resnetlab study run signal --scale cifar --data cifar10:DIR   (some hours on 2 cores, minutes on a GPU)
"""

from resnetlab.studies.signal.study import STUDY as STUDY
