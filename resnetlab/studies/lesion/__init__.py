"""Lesion: a residual net does almost as well without a unit, or with units moved; a plain net fails without one.

Paper:    Veit, Wilber & Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks".
Claim:    residual nets behave like many paths of different lengths, of which the short ones carry the gradient.
Command:  resnetlab study run lesion --scale quick                 (the digits, about 2 minutes on 2 cores)
          resnetlab study run lesion --data cifar10:DIR --weights cifar_plain56=FILE --weights cifar_resnet56=FILE
"""

from resnetlab.studies.lesion.study import STUDY as STUDY
