"""Carry: the shortcut as the carry gate of an LSTM, through which the signal reaches every layer.

Paper:    Srivastava et al. 2015 (1505.00387, 1507.06228); He et al. 2016, section 3 and Table 1.
Claim:    a shortcut that carries the signal makes a deep net trainable; a learned gate may do that, but the identity,
          which never closes, does it better.
Command:  resnetlab study run carry --scale quick                  (the digits, a minute beyond `mixing`, whose runs
                                                                    it measures, and `degradation`, for plain nets)
          resnetlab study run carry --scale cifar --data cifar10:DIR
          resnetlab study run carry --scale paper --data cifar10:DIR
"""

from resnetlab.studies.carry.study import STUDY as STUDY
