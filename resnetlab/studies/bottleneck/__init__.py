"""Bottleneck: 1x1 convolutions cut the cost of a unit, so that 152 layers cost less than VGG's 19.

Paper:    He et al. 2015, section 4.1 ("Deeper bottleneck architectures"), Figure 5, Table 1.
Claim:    two 3x3 convolutions on 256 channels have 1,179,648 weights, the bottleneck in their place 69,632; it costs
          about what a pair on 64 channels does; a projection in place of the identity doubles it; and 152 layers of
          such units need fewer multiply-adds than VGG-16 and VGG-19.
Command:  resnetlab study run bottleneck --scale quick      (a minute; other scales differ in rounds and batch only)
"""

from resnetlab.studies.bottleneck.study import STUDY as STUDY
