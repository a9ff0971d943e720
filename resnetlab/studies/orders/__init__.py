"""Orders: where batch norm and ReLU stand in a residual unit, before the weights or after the sum.

Paper:    He et al. 2016, section 4; Figure 4; Tables 2 and 3.
Claim:    batch norm or ReLU on the main path after the sum makes training harder; full pre-activation (BN, ReLU,
          weights) is the best of five orders, the more so the deeper the network.
Command:  resnetlab study run orders --scale quick            (the digits, about 5 minutes on 2 cores)
          resnetlab study run orders --scale cifar --data cifar10:DIR     (a day on 2 cores)
          resnetlab study run orders --scale paper --data cifar10:DIR     (weeks on one GPU)
"""

from resnetlab.studies.orders.study import STUDY as STUDY
