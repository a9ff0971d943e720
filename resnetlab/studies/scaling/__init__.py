"""Scaling: why the shortcut is x and not x/2.

Paper:    He et al. 2016, section 3; equations 6 to 8; Table 1 (constant scaling); Figure 3a.
Claim:    a shortcut scaled by λ carries signal and gradient by the product of all λ; x/2 thus blocks it, and the
          network trains worse.
Command:  resnetlab study run scaling --scale quick            (the digits, about 5 minutes on 2 cores)
          resnetlab study run scaling --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run scaling --scale paper --data cifar10:DIR     (days on one GPU)
"""

from resnetlab.studies.scaling.study import STUDY as STUDY
