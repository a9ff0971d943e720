"""Shattered gradients: with depth, gradients of plain nets come to resemble white noise; shortcuts prevent it.

Paper:    Balduzzi et al. 2017, "The Shattered Gradients Problem" (1702.08591), sections 2 and 3; Figures 1 and 2;
          theorems 1 to 3.
Claim:    the gradients of a deep plain net at neighbouring inputs decorrelate to white noise; those of a residual net
          stay correlated, like brown noise; images are locally correlated, so their gradients should be, too.
Command:  resnetlab study run shattered --scale quick                      (2 minutes on 2 cores, after `degradation`)
          resnetlab study run shattered --scale cifar --data cifar10:DIR   (half an hour on 2 cores, likewise)
"""

from resnetlab.studies.shattered.study import STUDY as STUDY
