"""Signal: initialisation and batch norm keep signals and gradients alive, so that tens of layers start to learn.

Paper:    He et al. 2015, sections 1 and 4.1; He et al. 2015, "Delving deep" (1502.01852), section 2.2; Glorot & Bengio
          2010; Zhang et al. 2019, Fixup (1901.09321); Yang et al. 2019 (1902.08129).
Claim:    small Gaussian weights without batch norm let signals and gradients of deep plain nets vanish, and these do
          not start to learn; with He's initialisation or batch norm they do.
Command:  resnetlab study run signal --scale quick                      (the digits, about 2 minutes on 2 cores)
          resnetlab study run signal --scale cifar --data cifar10:DIR   (some hours on 2 cores, minutes on a GPU)
Last result: reproduced at the scale quick: without BN a layer of plain-56 multiplies the gradient by 0.10 (small
          Gaussian), 0.58 (Xavier) or 0.82 (He), as the recursion says; of plain-20 start 0, 0 and 3 of 3 seeds, with BN
          all; BN lets the gradient of plain-56 grow by 1.17 per layer
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from resnetlab.errors import UserError
from resnetlab.measuring.signal import backward_growth, growth, layers_per_unit, predicted, signals
from resnetlab.measuring.starting import first_steps
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build
from resnetlab.studies.frame.measurement import Measurement, Subject, Weights
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.study import Plan, Study
from resnetlab.studies.frame.text import Both, Words
from resnetlab.studies.signal_finding import TOLERANCE, VANISHING, judge
from resnetlab.studies.signal_results import INITS, KINDS, NORMS

RATES = (0.1, 0.03)


@dataclass(frozen=True)
class _Scale:
    depths: tuple[int, ...]
    start_depths: tuple[int, ...]  # that are also trained for some steps
    seeds: int
    images: int  # of the batch on which signals are measured
    pool: int  # images that the first steps draw from
    batch: int
    window: int  # steps whose mean loss says whether it has started
    steps: int
    expected: Words
    note: Words


_SCALES = {
    "quick": _Scale(
        *((20, 32, 56), (20,), 3),
        *(64, 1437, 64, 23, 345),
        Both("about 2 minutes on 2 cores", "双核约 2 分钟"),
        Both(
            "Digits of 8x8 pixels: maps shrink to 2x2, where a 3x3 filter meets 4 pixels and 5 zeros, so that signals "
            "fall faster than He's rule for unbounded maps says. The recursion drawn here counts that. Nets of 20 "
            "layers get 345 steps (15 epochs, those of the recipe digits) to start.",
            "数字图像只有 8x8 像素：特征图缩小到 2x2，此时 3x3 卷积核只碰到 4 个像素和 5 个零，"
            "信号因而比 He 针对无界特征图的规则衰减得更快；这里画出的递推式已计入这一点。"
            "20 层网络有 345 步（15 轮，同 digits 方案）的时间起步。",
        ),
    ),
    "cifar": _Scale(
        *((20, 56, 110), (20, 56), 3),
        *(64, 10_000, 128, 50, 400),
        Both("some hours on 2 cores, minutes on a GPU", "双核数小时，GPU 数分钟"),
        Both("400 steps to start.", "有 400 步的时间起步。"),
    ),
    "paper": _Scale(
        *((20, 32, 44, 56, 110), (20, 56, 110), 5),
        *(128, 50_000, 128, 100, 2000),
        Both("a day on one GPU", "单块 GPU 一天"),
        Both(
            "2,000 steps to start; no paper publishes a recipe of this.",
            "有 2,000 步的时间起步；没有论文为此公布方案。",
        ),
    ),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Every initialisation, with and without batch norm, plain and residual: signals, and the first steps."""
    s, images = _SCALES[scale], base(scale, data).data
    first = {"pool": s.pool, "batch": s.batch, "window": s.window, "steps": s.steps, "rates": list(RATES)}
    asked: list[tuple[str, int, dict[str, Any]]] = [("at_start", d, {"images": s.images}) for d in s.depths]
    asked += [("start", depth, first) for depth in s.start_depths]
    return Plan(
        (),
        s.expected,
        s.note,
        tuple(
            Measurement(
                f"resnetlab.studies.signal:{function}",
                {"kind": kind, "depth": depth, "init": init, "norm": norm, **settings},
                data=images,
                seed=seed,
            )
            for seed in range(s.seeds)
            for function, depth, settings in asked
            for kind in KINDS
            for init in INITS
            for norm in NORMS
        ),
    )


def at_start(subject: Subject) -> dict[str, Any]:
    """Signals and gradients by unit, their growth per layer, and what He's recursion says of them."""
    net = _net(subject)
    x, labels = subject.batch(subject.settings["images"], "train")
    found = signals(net, x, labels)
    stages, layers = [s.stage for s in found], layers_per_unit(net)

    def measured(signal: Sequence[float], gradient: Sequence[float]) -> dict[str, Any]:
        forward, backward = growth(signal, stages, layers), backward_growth(gradient, stages, layers)
        if forward is None or backward is None:
            raise UserError(
                f"{net.spec.name}: a signal is 0 or infinite in double precision, or its stages have one unit."
            )
        return {
            "signal": list(signal),
            "gradient": list(gradient),
            "signal_growth": forward,
            "gradient_growth": backward,
            "first_stage": growth(signal[: stages.count(1)], [1] * stages.count(1), layers),
        }

    values = measured([math.sqrt(s.mean_square) for s in found], [s.gradient for s in found])
    if net.spec.is_plain and net.spec.norm == "none":
        theory = predicted(net, x)
        last = found[-1].gradient
        values["predicted"] = measured(
            [math.sqrt(square) for square in theory.mean_square], [last * g for g in theory.gradient]
        )
    return values


def start(subject: Subject) -> dict[str, Any]:
    """Whether the network starts to learn at one of the rates; those after the first that does are not tried."""
    net, s = _net(subject), subject.settings
    x, labels = subject.batch(s["pool"], "train")
    tries: list[dict[str, Any]] = []
    for rate in s["rates"]:
        tried = first_steps(
            net, x, labels, rate, batch=s["batch"], window=s["window"], steps=s["steps"], seed=subject.seed
        )
        tries.append(asdict(tried))
        if tried.step is not None:
            break
    return {"step": tries[-1]["step"], "rate": tries[-1]["rate"], "tries": tries}


def _net(subject: Subject) -> ResNet:
    s, data = subject.settings, subject.data
    channels = data.shape[0] if data.shape else 3
    name = f"cifar_{s['kind']}{s['depth']}(init={s['init']}, norm={s['norm']})"
    net = build(name, seed=subject.seed, in_channels=channels, num_classes=len(data.classes))
    assert isinstance(net, ResNet)
    return net.to(subject.device)


METHOD = Both(
    "Nets of the CIFAR family are built with each initialisation, with and without batch norm (BN), with and without "
    "shortcuts. On one batch, before any training and in double precision, the root mean square of every unit's y "
    "(before its last ReLU) and the norm of the loss's gradient with respect to y are measured; growth per layer is "
    "the "
    "geometric mean of the factors from unit to unit within a stage, to the power of one layer. Then a copy is trained "
    "by SGD with momentum 0.9 at rates of 0.1 and 0.03, one after another. It has started when the mean loss "
    "over "
    "a window of steps is below 0.9 ln K (K classes), and fails to start if it has not at any of the rates.",
    "以各种初始化方式构建 CIFAR 系列网络，分别带与不带 BN、带与不带快捷连接。训练之前，在一个批次上以双精度测量每个单"
    "元的 y"
    "（末尾 ReLU 之前）的均方根，以及损失对 y 的梯度范数；每层增长率是同一阶段内相邻单元之比的几何平均，再折算到一层。"
    "然后用动量 0.9 的 SGD 依次以 0.1、0.03 的学习率训练其副本。若某一窗口内的平均损失低于 0.9 ln K（K 个类别），"
    "即认为已经起步；若两种学习率下都没有，则认为未能起步。",
)
RULE = Both(
    f"A growth per layer differs from a bound, or two from each other, if the 95 % interval over seeds (Welch's t, of "
    f"logarithms) lies on the claim's side: reproduced; a direction only if the mean alone does; else not reproduced. "
    f"'Vanishes' means a factor below {VANISHING:g} per layer. The recursion holds if no factor that it predicts for a "
    f"plain net without BN is off by more than {100 * TOLERANCE:g} %. 'Starts' and 'fails to start' are reproduced if "
    f"all seeds of at least three do, a direction only if more than half do. The study's verdict is the weakest of its "
    f"tested claims.",
    f"每层增长率与界限之差，或两者之差，若其对数在各随机种子上的 95 % 置信区间（Welch t）位于论断一侧，则为“已复现”；"
    f"若仅均值如此，则为“仅方向一致”；否则为“未复现”。“消失”指每层因子低于 {VANISHING:g}。若递推式对无 BN 平直网络预"
    "测的"
    f"各因子误差均不超过 {100 * TOLERANCE:g} %，则认为其成立。“起步”与“未能起步”须至少三个随机种子全部如此才算复现，"
    f"过半则仅方向一致。研究的结论取各已检验论断中最弱者。",
)
THEORY = Both(
    r"Layer $l$ computes $y_l = W_l x_l$ with $x_l = \max(0, y_{l-1})$; each response sums $n_l = k^2 "
    r"c_{\mathrm{in}}$ products. For independent weights of mean 0, $\mathrm{Var}[y_l] = n_l \mathrm{Var}[w_l] "
    r"\mathrm{E}[x_l^2]$. If $y_{l-1}$ is symmetric about 0, ReLU leaves half of its mean square, "
    r"$\mathrm{E}[x_l^2] = \frac{1}{2} \mathrm{Var}[y_{l-1}]$, so that"
    "\n\n"
    r"$\mathrm{Var}[y_L] = \mathrm{Var}[y_1] \prod_{l=2}^{L} \frac{1}{2} n_l \mathrm{Var}[w_l]$"
    "\n\n"
    r"(He et al. 2015, 1502.01852, eq. 9). Backward the same holds with $\hat{n}_l = k^2 c_{\mathrm{out}}$ in "
    r"place of $n_l$ (eq. 13). He's initialisation, $\mathrm{Var}[w] = \frac{2}{\hat{n}}$, makes each factor 1; "
    r"Xavier's, $\frac{1}{n}$ at equal widths, leaves $\frac{1}{2}$ of the variance per layer; a Gaussian of "
    r"deviation 0.01 leaves $\frac{n}{2} \cdot 10^{-4}$, 0.0072 at 16 channels. Where a filter reaches over the "
    "border of the map, it meets fewer than $k^2$ pixels, and its factor is smaller: on 2x2 pixels "
    r"$\frac{4}{9}$ of it."
    "\n\n"
    r"A residual unit without BN adds: $\mathrm{Var}[x + F] = \mathrm{Var}[x] + \mathrm{Var}[F]$, with He's "
    "initialisation and ReLU before each layer, $F$ has the variance of $x$, so that it grows as $2^l$ over $l$ "
    "units (Zhang et al. 2019, section 2). In the unit measured here ReLU follows the sum: $F$ then has twice "
    "the mean square of $x$, the sum three times, and ReLU leaves between half and all of that, since $x$ is "
    r"not negative. The growth stays exponential, with a base between $\frac{3}{2}$ and 3; zeros around small "
    "maps lower it."
    "\n\n"
    r"BN resets $\mathrm{Var}[y_l]$ to 1 at any scale of the weights. But it divides by a deviation that is "
    r"small: what $x = \max(0, y)$ with $y \sim N(0, 1)$ varies by is $\mathrm{Var}[x] = \frac{1}{2} - "
    r"\frac{1}{2\pi} = \frac{\pi - 1}{2\pi}$, so the next response has the variance $n \mathrm{Var}[w] \frac{\pi "
    r"- 1}{2\pi}$ over the batch. The gradient passes $W$ (factor $n \mathrm{Var}[w]$ in its square), ReLU "
    r"($\frac{1}{2}$) and BN (divided by that variance): its square grows by $\frac{\pi}{\pi - 1} = 1.467$ per "
    "layer, its norm by 1.211, whatever the initialisation. So BN itself makes the gradients of plain nets "
    "explode (Yang et al. 2019); with a shortcut, a branch adds only a share of the stream's variance that "
    "falls with every unit, and the growth is no longer exponential.",
    r"第 $l$ 层计算 $y_l = W_l x_l$，其中 $x_l = \max(0, y_{l-1})$；每个响应是 $n_l = k^2 c_{\mathrm{in}}$ 个乘"
    r"积之和。若权重独立且均值为 0，则 $\mathrm{Var}[y_l] = n_l \mathrm{Var}[w_l] \mathrm{E}[x_l^2]$。若 "
    r"$y_{l-1}$ 关于 0 对称，ReLU 保留其均方的一半，$\mathrm{E}[x_l^2] = \frac{1}{2} \mathrm{Var}[y_{l-1}]$，于"
    "是"
    "\n\n"
    r"$\mathrm{Var}[y_L] = \mathrm{Var}[y_1] \prod_{l=2}^{L} \frac{1}{2} n_l \mathrm{Var}[w_l]$"
    "\n\n"
    r"（He 等 2015，1502.01852，式 9）。反向传播同样成立，只是以 $\hat{n}_l = k^2 c_{\mathrm{out}}$ 代替 $n_l$（"
    r"式 13）。He 初始化 $\mathrm{Var}[w] = \frac{2}{\hat{n}}$ 使每个因子为 1；Xavier 初始化在宽度相等时为 "
    r"$\frac{1}{n}$，每层只留下方差的 $\frac{1}{2}$；标准差 0.01 的高斯初始化每层留下 "
    r"$\frac{n}{2} \cdot 10^{-4}$，16 个通道时为 0.0072。卷积核越过特征图边界时碰到的像素少于 $k^2$ 个，因子随之"
    r"变小：在 2x2 像素上只有 $\frac{4}{9}$。"
    "\n\n"
    r"无 BN 的残差单元把两者相加：$\mathrm{Var}[x + F] = \mathrm{Var}[x] + \mathrm{Var}[F]$；在 He 初始化下，若"
    "每层之前是 ReLU，则 $F$ 的方差等于 $x$ 的方差，因此经过 $l$ 个单元后方差按 $2^l$ 增长（Zhang 等 2019，第 2 "
    "节）。这里测量的单元在相加之后才有 ReLU：此时 $F$ 的均方是 $x$ 的两倍，和的均方是三倍，而由于 $x$ 非负，Re"
    r"LU 留下其中一半到全部。增长仍是指数式的，底数在 $\frac{3}{2}$ 与 3 之间；小特征图周围的零会使它变小。"
    "\n\n"
    r"无论权重尺度如何，BN 都把 $\mathrm{Var}[y_l]$ 重置为 1。但它所除的标准差很小：若 $y \sim N(0, 1)$，则 "
    r"$x = \max(0, y)$ 的方差为 $\mathrm{Var}[x] = \frac{1}{2} - \frac{1}{2\pi} = \frac{\pi - 1}{2\pi}$，下一层"
    r"响应在批次上的方差便是 $n \mathrm{Var}[w] \frac{\pi - 1}{2\pi}$。梯度依次经过 $W$（平方乘以 "
    r"$n \mathrm{Var}[w]$）、ReLU（乘以 $\frac{1}{2}$）和 BN（除以该方差）：其平方每层增长 "
    r"$\frac{\pi}{\pi - 1} = 1.467$ 倍，范数增长 1.211 倍，与初始化无关。因此 BN 本身会使平直网络的梯度爆炸（Yan"
    "g 等 2019）；而有了快捷连接，每个分支只贡献主干方差中逐单元递减的一部分，增长不再是指数式的。",
)

STUDY = Study(
    name="signal",
    title=Both(
        "Initialisation and batch norm let tens of layers start to learn", "初始化与 BN 使数十层的网络得以开始学习"
    ),
    claim=Both(
        "Normalised initialisation and batch norm solve vanishing and exploding gradients, so that networks of tens of "
        "layers start to converge.",
        "归一化的初始化与 BN 解决了梯度消失和爆炸问题，使数十层的网络能够开始收敛。",
    ),
    source="He et al. 2015, sections 1 and 4.1; He et al. 2015 (1502.01852), section 2.2; Zhang et al. 2019 "
    "(1901.09321), section 2; Yang et al. 2019 (1902.08129)",
    method=METHOD,
    rule=RULE,
    theory=THEORY,
    plan=plan,
    judge=judge,
)
