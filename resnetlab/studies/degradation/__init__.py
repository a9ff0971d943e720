"""Degradation: deeper plain nets have higher training error; residual nets reverse this.

Paper:    He et al. 2015, sections 1, 4.1 and 4.2; Figures 1, 4, 6; Tables 2 and 6.
Claim:    with depth, plain nets get worse on the training images themselves, so the cause is not overfitting;
          the same nets with shortcuts do not.
Command:  resnetlab study run degradation --scale quick            (the digits, about 3 minutes on 2 cores)
          resnetlab study run degradation --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run degradation --scale paper --data cifar10:DIR     (days on one GPU)
"""

from resnetlab.studies.degradation.study import STUDY as STUDY
