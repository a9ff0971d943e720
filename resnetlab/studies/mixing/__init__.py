"""Mixing: every other way for shortcut and branch to meet is worse than adding them.

Paper:    He et al. 2016, section 3 and Table 1, Figure 3.
Claim:    with gates, a 1x1 convolution or dropout on all shortcuts a deep residual net trains worse than with
          identity shortcuts. (Constant scaling, the rest of the table, is the study `scaling`.)
Command:  resnetlab study run mixing --scale quick                 (the digits, about 6 minutes on 2 cores)
          resnetlab study run mixing --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run mixing --scale paper --data cifar10:DIR     (about a week on one GPU)
"""

from resnetlab.studies.mixing.study import STUDY as STUDY
