"""Boosting: whether a residual net learns differences unit by unit, each a step down the loss, like boosted trees.

Claim:    the net learns differences, like gradient-boosted trees (common; Jastrzebski et al. 2018, section 4).
Command:  resnetlab study run boosting --scale quick               (the digits, about 2 minutes on 2 cores)
          resnetlab study run boosting --data cifar10:DIR --weights cifar_resnet56=FILE
"""

from resnetlab.studies.boosting.study import STUDY as STUDY
