"""Identity: surplus layers need only be the identity, which a residual unit is with F = 0.

Paper:    He et al. 2015, sections 1 and 3.1.
Claim:    a deeper net contains the shallower one, with identities for the rest; driving F to 0 is easier than fitting
          x with a stack of nonlinear layers.
Command:  resnetlab study run identity --scale quick               (about 3 minutes on 2 cores beyond `degradation`,
                                                                    whose runs it measures)
          resnetlab study run identity --scale cifar --data cifar10:DIR
          resnetlab study run identity --scale paper --data cifar10:DIR
"""

from resnetlab.studies.identity.study import STUDY as STUDY
