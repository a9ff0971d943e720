"""Depth: 110, 152 and 1,202 layers can be trained; what they reach, and what another layer costs.

Paper:    He et al. 2015, sections 4.1 and 4.2 ("Exploring over 1000 layers"), Table 6, Figure 6.
Claim:    residual nets of 110, 152 and 1,202 layers train without difficulty; 1,202 layers reach less than 0.1 %
          training error, but a higher test error than 110.
Command:  resnetlab study run depth --scale quick            (about 5 minutes on 2 cores, after `degradation`)
          resnetlab study run depth --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run depth --scale paper --data cifar10:DIR     (a week on one GPU)
"""

from resnetlab.studies.depth.study import STUDY as STUDY
