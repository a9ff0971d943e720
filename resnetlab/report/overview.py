"""The overview of the report: the brief's questions, and which studies answer each."""

from __future__ import annotations

from dataclasses import dataclass

from resnetlab.studies.frame.text import Both


@dataclass(frozen=True)
class Question:
    """A question, what has been said to it, and the studies that measure it, the decisive one first."""

    name: Both
    said: Both
    studies: tuple[str, ...]


QUESTIONS = (
    Question(
        Both("Why residual networks work, 1: gradients stay correlated", "残差网络为何有效（一）：梯度保持相关"),
        Both(
            "Gradients of deep plain nets decorrelate toward white noise; images are locally correlated, and so "
            "should their gradients be. Shortcuts keep them so (Balduzzi et al. 2017).",
            "深层普通网络的梯度随深度去相关，趋于白噪声；图像局部相关，其梯度也应如此。捷径连接保住了这种相关性"
            "（Balduzzi 等，2017）。",
        ),
        ("shattered", "signal"),
    ),
    Question(
        Both("2: the residual branch reacts more to a change", "（二）：残差分支对变化更敏感"),
        Both(
            "A layer that learns F = H − x sees a small change larger: 5.1 to 5.2 is 2 %, 0.1 to 0.2 is 100 %.",
            "学习 F = H − x 的层把小变化看得更大：5.1 变为 5.2 是 2 %，0.1 变为 0.2 是 100 %。",
        ),
        ("sensitivity", "responses"),
    ),
    Question(
        Both("3: surplus layers need only be the identity", "（三）：多余的层只需成为恒等映射"),
        Both(
            "A deeper net can be built from a shallower one and identity layers; driving F to 0 is easier than "
            "fitting x with a stack of nonlinear layers (He et al. 2015, section 3.1).",
            "更深的网络可由较浅的网络加恒等层构成；把 F 推向 0 比用一叠非线性层拟合 x 更容易（He 等，2015，3.1 节）。",
        ),
        ("identity", "degradation"),
    ),
    Question(
        Both("4: the signal is carried, as by an LSTM's gate", "（四）：信号如同经 LSTM 的门被传送"),
        Both(
            "As through an LSTM's carry gate, the signal reaches every layer. The papers find a gate on the shortcut "
            "worse than none (He et al. 2016, Table 1).",
            "信号如同经过 LSTM 的传送门，可到达每一层。而论文发现，捷径上有门反不如无门（He 等，2016，表 1）。",
        ),
        ("carry", "mixing"),
    ),
    Question(
        Both("The open question: why x, and not x/2?", "开放问题：为何是 x，而不是 x/2？"),
        Both(
            "With λx on every shortcut the signal that skips all branches is multiplied by ∏λ, forward and backward "
            "(He et al. 2016, eq. 6 to 8).",
            "若每条捷径都是 λx，则绕过所有分支的信号在前向与反向都乘以 ∏λ（He 等，2016，式 6 至 8）。",
        ),
        ("scaling", "lesion"),
    ),
)
