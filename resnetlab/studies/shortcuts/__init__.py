"""Shortcuts: zero padding (A), projections where sizes change (B), or everywhere (C): what they cost and gain.

Paper:    He et al. 2015, section 4.1 ("Identity vs. projection shortcuts"), Table 3.
Claim:    C is the best by a little and costs the most memory, time and parameters; the channels that A pads carry no
          residual learning; the differences are small, so projections are not what cures degradation.
Command:  resnetlab study run shortcuts --scale quick            (about 4 minutes on 2 cores, after `degradation`)
          resnetlab study run shortcuts --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run shortcuts --scale paper --data cifar10:DIR     (days on one GPU)
"""

from resnetlab.studies.shortcuts.study import STUDY as STUDY
