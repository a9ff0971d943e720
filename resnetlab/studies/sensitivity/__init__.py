"""Sensitivity: F = H − x reacts more to a change than H, in relative terms; how much of that is arithmetic.

Claim:    5.1 → 5.2 is a change of 2 %, 0.1 → 0.2 one of 100 % (a common explanation, in no paper).
Command:  resnetlab study run sensitivity --scale quick            (the digits, about 2 minutes on 2 cores)
          resnetlab study run sensitivity --data cifar10:DIR --weights cifar_plain56=FILE --weights cifar_resnet56=FILE
"""

from resnetlab.studies.sensitivity.study import STUDY as STUDY
