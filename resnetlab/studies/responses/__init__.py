"""Responses: the layers of residual nets respond less than those of plain nets, and less still in deeper nets.

Paper:    He et al. 2015, section 4.2 and Figure 7.
Claim:    F stays near zero: the responses of residual nets are generally smaller, the more so the deeper they are.
Command:  resnetlab study run responses --scale quick              (the digits, about 2 minutes on 2 cores)
          resnetlab study run responses --data cifar10:DIR --weights cifar_plain56=FILE --weights cifar_resnet56=FILE
"""

from resnetlab.studies.responses.study import STUDY as STUDY
