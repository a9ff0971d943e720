"""Shattered gradients: with depth, gradients of plain nets come to resemble white noise; shortcuts prevent it.

Paper:    Balduzzi et al. 2017, "The Shattered Gradients Problem" (1702.08591), sections 2 and 3; Figures 1 and 2;
          theorems 1 to 3.
Claim:    the gradients of a deep plain net at neighbouring inputs decorrelate to white noise; those of a residual net
          stay correlated, like brown noise; images are locally correlated, so their gradients should be, too.
Command:  resnetlab study run shattered --scale quick                      (about 2 minutes on 2 cores)
          resnetlab study run shattered --scale cifar --data cifar10:DIR   (about half an hour on 2 cores)
Last result: on a line reproduced at the scale quick: autocorrelation at lag 1 and L = 50 0.01 (plain, BN), 0.02 (plain,
          centred), 0.80 (plain, neither), 0.69 (residual, β = 1), 0.95 (β = 0.1), brown noise 0.97. Over the pixels of
          images not reproduced: plain and residual convolutional nets do not differ, so the whole is not reproduced
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resnetlab.measuring.autocorrelation import (
    autocorrelation,
    brown_noise,
    relative_rank,
    spatial_autocorrelation,
    white_noise,
)
from resnetlab.measuring.fully_connected import (
    POINTS,
    VARIANTS,
    Gradients,
    gaussian_points,
    grid_points,
    input_gradients,
    pair_correlation,
)
from resnetlab.measuring.pixel_gradients import pixel_gradients
from resnetlab.nets.zoo import build
from resnetlab.studies.frame.measurement import Measurement, Subject, Weights
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.study import Plan, Study
from resnetlab.studies.frame.text import Both, Words
from resnetlab.studies.shattered_finding import TOLERANCE, judge
from resnetlab.studies.shattered_results import KINDS

DEPTHS = (2, 4, 10, 24, 50)  # Balduzzi et al. 2017, Figure 2
LAGS = 15
SEEDS = 20


@dataclass(frozen=True)
class _Scale:
    depths: tuple[int, ...]  # of convolutional nets
    seeds: int  # of convolutional nets
    images: int  # of the mini-batch
    lags: int  # in pixels
    expected: Words
    note: Words


_SCALES = {
    "quick": _Scale(
        *((8, 20, 56, 110), 5, 256, 4),
        Both("about 2 minutes on 2 cores", "双核约 2 分钟"),
        Both(
            "The fully connected nets are the paper's at every scale; convolutional ones see digits of 8x8 pixels.",
            "全连接网络在每种规模下都与论文相同；卷积网络使用 8x8 像素的数字图像。",
        ),
    ),
    "cifar": _Scale(
        *((8, 20, 56, 110), 5, 256, 8),
        Both("half an hour on 2 cores", "双核约半小时"),
        Both(
            "Convolutional nets see a mini-batch of 256 of CIFAR-10.", "卷积网络使用 CIFAR-10 的 256 张图像的小批次。"
        ),
    ),
    "paper": _Scale(
        *((8, 20, 32, 44, 56, 110), 20, 256, 8),
        Both("hours on 2 cores, minutes on a GPU", "双核数小时，GPU 数分钟"),
        Both("As the scale cifar, with more depths and seeds.", "同 cifar 规模，但深度和种子更多。"),
    ),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Random nets on a line and at random points, noise, and convolutional nets on real images."""
    s, images = _SCALES[scale], base(scale, data).data
    plans: list[Measurement] = []

    def add(function: str, seed: int, settings: dict[str, Any], of: str | None = None) -> None:
        plans.append(Measurement(f"resnetlab.studies.shattered:{function}", settings, data=of, seed=seed))

    for seed in range(SEEDS):
        add("noise", seed, {"lags": LAGS})
        for variant in VARIANTS:
            add("grid", seed, {"variant": variant, "depths": list(DEPTHS), "lags": LAGS})
            add("pairs", seed, {"variant": variant, "depths": list(DEPTHS)})
    for seed in range(s.seeds):
        for depth in s.depths:
            for kind in KINDS:
                add("pixels", seed, {"kind": kind, "depth": depth, "images": s.images, "lags": s.lags}, images)
    return Plan((), s.expected, s.note, tuple(plans))


def noise(subject: Subject) -> dict[str, Any]:
    """Autocorrelation of brown and of white noise, as long as the sequences of gradients."""
    lags = subject.settings["lags"]
    return {
        "brown": autocorrelation(brown_noise(POINTS, subject.seed), lags),
        "white": autocorrelation(white_noise((POINTS,), subject.seed), lags),
    }


def grid(subject: Subject) -> dict[str, Any]:
    """By depth: autocorrelation of df/dx along the line (None if it has vanished), its norm, and shared units."""
    s = subject.settings
    made = _made(subject, None)
    return {
        "depths": s["depths"],
        "acf": [autocorrelation(g.values[:, 0], s["lags"]) for g in made],
        "norm": [g.values.norm().item() for g in made],
        "coactive": [g.coactive[-1] for g in made],
    }


def pairs(subject: Subject) -> dict[str, Any]:
    """By depth: correlation of gradients at pairs of independent points, and the units that pairs share."""
    made = _made(subject, subject.seed)
    return {
        "depths": subject.settings["depths"],
        "correlation": [pair_correlation(g.values) for g in made],
        "coactive": [g.coactive[-1] for g in made],
    }


def _made(subject: Subject, points: int | None) -> list[Gradients]:
    """The gradients of one variant by depth, at the line's points or at those of a seed."""
    at = (grid_points() if points is None else gaussian_points(points)).to(subject.device)
    variant = VARIANTS[subject.settings["variant"]]
    return [input_gradients(variant, depth, at, subject.seed) for depth in subject.settings["depths"]]


def pixels(subject: Subject) -> dict[str, Any]:
    """Autocorrelation over the image of the pixels' gradients, of the images and of white noise; effective ranks."""
    s, channels = subject.settings, subject.data.shape[0] if subject.data.shape else 3
    classes = len(subject.data.classes)
    net = build(f"cifar_{s['kind']}{s['depth']}", seed=subject.seed, in_channels=channels, num_classes=classes)
    x, labels = subject.batch(s["images"], "train")
    gradients, images = pixel_gradients(net.to(subject.device), x, labels).cpu(), x.cpu()
    return {
        "acf": spatial_autocorrelation(gradients, s["lags"]),
        "images": spatial_autocorrelation(images, s["lags"]),
        "white": spatial_autocorrelation(white_noise(tuple(images.shape), subject.seed), s["lags"]),
        "rank": relative_rank(gradients, subject.seed),
        "image_rank": relative_rank(images, subject.seed),
    }


METHOD = Both(
    "As Balduzzi's Figure 2: random fully connected ReLU nets from R to R, 200 units wide, before training; df/dx at "
    "256 points on [−2, 2] and its autocorrelation, 20 seeds; plain nets without centring, mean-centred and with batch "
    "norm (BN), residual nets x + βW relu(BN(x)) with β = 1 and 0.1 and without BN, beside white and brown noise. The "
    "statistics of centring and BN are over the points, and count as constants in df/dx. A gradient whose norm is "
    "below "
    "1e-8 has vanished and is not called shattered. For the theorems, the correlation of gradients at pairs of "
    "independent Gaussian points in 200 dimensions. For convolutional nets, the gradient of a batch's loss with "
    "respect "
    "to the pixels of real images, at initialisation.",
    "同 Balduzzi 图 2：训练之前、宽 200 的随机全连接 ReLU 网络 R → R；在 [−2, 2] 上 256 个点处计算 df/dx 及其自相关，"
    "20 个随机种子；"
    "平直网络分别为不中心化、均值中心化和带 BN，残差网络 x + βW relu(BN(x)) 取 β = 1 与 0.1 以及无 BN，并与白噪声和布"
    "朗噪声对照。"
    "中心化与 BN 的统计量取自这些点，在 df/dx 中视为常数。范数低于 1e-8 的梯度视为消失，不称为破碎。"
    "为检验定理，测量 200 维中独立高斯点对处梯度的相关。对卷积网络，测量初始化时一个批次的损失对真实图像像素的梯度。",
)
RULE = Both(
    f"Two means over seeds are equal if the 95 % interval of their difference (Welch's t) lies within ±{TOLERANCE:g}: "
    f"reproduced; a direction only if the difference itself does; else not reproduced. One is above another if the "
    f"interval lies above 0 (for the trap: above {TOLERANCE:g}), a direction only if the mean does. An order, and a "
    "claim about every depth, has the weakest verdict of its parts. Vanished gradients reproduce nothing. The "
    "theorems "
    f"are shown, not judged. The study's verdict is the weakest of its tested claims.",
    f"若两均值（各随机种子）之差的 95 % 置信区间（Welch t）位于 ±{TOLERANCE:g} 之内，则视为相等，为“已复现”；"
    f"若仅差值本身如此，则为“仅方向一致”；否则为“未复现”。若区间高于 0（陷阱一项：高于 {TOLERANCE:g}），则一者高于另"
    "一者；"
    f"仅均值如此则为“仅方向一致”。排序以及涉及每个深度的论断取各部分中最弱的结论。消失的梯度不能复现任何论断。"
    f"定理只作展示，不作判定。研究的结论取各已检验论断中最弱者。",
)
THEORY = Both(
    "The gradient of a ReLU net is a sum over paths from the input to the output, each the product of its "
    "weights, that are active (all their units are). Weights are independent with mean 0, so in expectation "
    "only a path's product with itself counts: the covariance of gradients at two points counts the paths that "
    r"are active at both. A unit is active at one point with probability $\frac{1}{2}$; all theorems take it to "
    r"be active at both with $\frac{1}{4}$."
    "\n\n"
    r"Theorem 1, plain, $\sigma^2 = \frac{2}{N}$: a layer multiplies the variance by $N \sigma^2 \frac{1}{2} = "
    r"1$ and the covariance by $N \sigma^2 \frac{1}{4} = \frac{1}{2}$, so the correlation after $L - 1$ layers "
    r"of units is $\frac{1}{2^{L-1}}$."
    "\n\n"
    r"Theorem 2, $x + W\rho(x)$: the shortcut adds 1 to both, the variance grows by 2 and the covariance by "
    r"$\frac{3}{2}$ per block: $(\frac{3}{4})^{L-1}$."
    "\n\n"
    r"Theorem 3, $x + \beta W\rho(\mathrm{BN}(x))$: the stream has the variance $v_l = 1 + \beta^2 (l - 1)$, by "
    r"whose root BN divides. A block multiplies the variance by $1 + \frac{\beta^2}{v_l}$ and the covariance by "
    r"$1 + \frac{\beta^2}{2 v_l}$:"
    "\n\n"
    r"$\mathrm{corr}_L = \prod_{l=1}^{L-1} \frac{v_l + \frac{1}{2}\beta^2}{v_l + \beta^2}$"
    "\n\n"
    r"which falls as $\frac{1}{\beta \sqrt{L}}$, not exponentially. But BN divides by the deviation about the "
    r"mean. Of the mean square $\frac{1}{2}$ of $\rho$, $\frac{1}{2\pi}$ is its squared mean, so that a branch "
    r"adds only $\beta^2 (1 - \frac{1}{\pi})$ to what BN sees: with $v_l = 1 + \beta^2 (1 - \frac{1}{\pi})(l - "
    "1)$ the product falls faster. This count is ours, and it is drawn beside the theorem's."
    "\n\n"
    "Without centring or BN, units that are active at one point become more and more likely to be so at "
    r"another, up to $\frac{1}{2}$: then a layer multiplies the covariance by nearly 1, and nothing whitens.",
    "ReLU 网络的梯度是从输入到输出所有激活路径（其上单元全部激活）之和，每条路径贡献其权重之积。权重独立且均值"
    "为 0，因此在期望下只有路径与自身的乘积有贡献：两点处梯度的协方差计数在两点上都激活的路径。一个单元在一点上"
    r"激活的概率为 $\frac{1}{2}$；各定理都假设它在两点上同时激活的概率为 $\frac{1}{4}$。"
    "\n\n"
    r"定理 1，平直，$\sigma^2 = \frac{2}{N}$：每层使方差乘以 $N \sigma^2 \frac{1}{2} = 1$，协方差乘以 "
    r"$N \sigma^2 \frac{1}{4} = \frac{1}{2}$，因此经过 $L - 1$ 层后相关为 $\frac{1}{2^{L-1}}$。"
    "\n\n"
    r"定理 2，$x + W\rho(x)$：快捷连接使两者各加 1，每块方差乘以 2、协方差乘以 $\frac{3}{2}$，即 "
    r"$(\frac{3}{4})^{L-1}$。"
    "\n\n"
    r"定理 3，$x + \beta W\rho(\mathrm{BN}(x))$：主干方差为 $v_l = 1 + \beta^2 (l - 1)$，BN 除以其平方根。每块使"
    r"方差乘以 $1 + \frac{\beta^2}{v_l}$，协方差乘以 $1 + \frac{\beta^2}{2 v_l}$："
    "\n\n"
    r"$\mathrm{corr}_L = \prod_{l=1}^{L-1} \frac{v_l + \frac{1}{2}\beta^2}{v_l + \beta^2}$"
    "\n\n"
    r"它按 $\frac{1}{\beta \sqrt{L}}$ 下降，而非指数下降。但 BN 所除的是关于均值的标准差。$\rho$ 的均方 "
    r"$\frac{1}{2}$ 中有 $\frac{1}{2\pi}$ 是均值的平方，因此每个分支对 BN 所见方差只贡献 "
    r"$\beta^2 (1 - \frac{1}{\pi})$：取 $v_l = 1 + \beta^2 (1 - \frac{1}{\pi})(l - 1)$ 时该乘积下降更快。这一计"
    "算是我们自己的，与定理的曲线画在一起。"
    "\n\n"
    r"若既不中心化也无 BN，在一点上激活的单元越来越可能在另一点上也激活，直至 $\frac{1}{2}$：此时每层使协方差几"
    "乎乘以 1，梯度便不会变白。",
)

STUDY = Study(
    name="shattered",
    title=Both(
        "Gradients of deep plain nets shatter; shortcuts hold them together",
        "深层平直网络的梯度破碎；快捷连接使其保持相关",
    ),
    claim=Both(
        "With depth, the gradients of plain nets decorrelate toward white noise, and those of residual nets do not; "
        "images are locally correlated, so their gradients should be.",
        "随着深度增加，平直网络的梯度去相关、趋于白噪声，残差网络则不然；图像是局部相关的，其梯度也应如此。",
    ),
    source="Balduzzi et al. 2017 (1702.08591), sections 2 and 3; Figures 1 and 2; theorems 1 to 3",
    method=METHOD,
    rule=RULE,
    theory=THEORY,
    plan=plan,
    judge=judge,
)
