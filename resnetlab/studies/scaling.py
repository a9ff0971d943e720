"""Scaling: why the shortcut is x and not x/2.

Paper:    He et al. 2016, section 3; equations 6 to 8; Table 1 (constant scaling); Figure 3a.
Claim:    a shortcut scaled by λ carries signal and gradient by the product of all λ; x/2 so blocks it, and the
          network trains worse.
Command:  resnetlab study run scaling --scale quick            (the digits, about 5 minutes on 2 cores)
          resnetlab study run scaling --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run scaling --scale paper --data cifar10:DIR     (days on one GPU)
Last result: reproduced at the scale quick: through the shortcuts of 27 units λ = 0.5 passes 7.5e-09 of the gradient,
          as 0.5^27; training errors of 56 layers: Scale(0.5, 1) 26.2 %, Scale(0.5, 0.5) 25.8 %, Add 0.0 %. One epoch
          of CIFAR-10, one seed (results/scaling-cifar.json): not reproduced, since by then Add is behind: 82.0 %
          against 76.2 and 75.1 %, Plain 89.0 %; the factors of untrained nets are ∏λ
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as tf

from resnetlab.measuring.propagation import propagation
from resnetlab.nets.mixing import Add, Mix, Plain
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, Subject, Weights
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words
from resnetlab.studies.scaling_claims import AT_START, EXACT, FAIL, NONE, TRAINED, Sorted, rows
from resnetlab.studies.scaling_theory import THEORY
from resnetlab.studies.scaling_views import answer, figures, tables, words

FAMILIES = {"full_preact": "preresnet", "post": "resnet"}  # order -> family of the zoo
IMAGES = 64  # of the batch that is sent through


@dataclass(frozen=True)
class _Scale:
    depth: int  # that is trained
    depths: tuple[int, ...]  # that are measured at initialisation
    seeds: int
    expected: Words
    note: Words


_SCALES = {
    "quick": _Scale(
        56,
        (20, 56, 110),
        5,
        Both("about 5 minutes on 2 cores", "双核约 5 分钟"),
        Both(
            "56 layers on 1,437 images of 8x8 pixels, five seeds, as degradation; the paper has 110 layers on "
            "CIFAR-10. Its runs of Add and Plain are those of the study degradation.",
            "56 层，1,437 张 8x8 像素的图像，五个随机种子，同 degradation；论文为 110 层、CIFAR-10。"
            "Add 与 Plain 的运行即 degradation 研究的运行。",
        ),
    ),
    "cifar": _Scale(
        56,
        (20, 56, 110),
        3,
        Both("a night on 2 cores, less than an hour on a GPU", "双核一夜，GPU 不到一小时"),
        Both(
            "56 layers and 10 epochs instead of the paper's 110 and 164, three seeds. Its runs of Add and Plain are "
            "those of the study degradation.",
            "56 层、10 轮，而非论文的 110 层、164 轮，三个随机种子。Add 与 Plain 的运行即 degradation 研究的运行。",
        ),
    ),
    "paper": _Scale(
        110,
        (20, 56, 110),
        5,
        Both("two to three days on one GPU", "单块 GPU 两到三天"),
        Both(
            "The published recipe: 110 layers, 64,000 steps, the first 400 at a learning rate of 0.01.",
            "论文原方案：110 层，64,000 步，前 400 步学习率为 0.01。",
        ),
    ),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Runs with four shortcuts; how gradients pass these nets, and untrained ones of more scales and depths."""
    s, recipe = _SCALES[scale], base(scale, data)
    if scale == "paper":  # He 2016, section 4: all its runs on CIFAR
        recipe = recipe.override(warmup="constant", warmup_lr=0.01, warmup_steps=400)
    seeds = range(s.seeds)
    runs = tuple(recipe.override(net=net(mix, s.depth), seed=seed) for seed in seeds for mix in TRAINED)
    starts = tuple(
        _measurement("start", net(mix, depth, order), recipe.data, seed)
        for order, depth, mix, seed in itertools.product(FAMILIES, s.depths, AT_START, seeds)
    )
    same = tuple(_measurement("same", net(NONE, s.depth), recipe.data, seed) for seed in seeds)
    trained = tuple(Measurement(f"{__name__}:trained", {"images": IMAGES}, run=r, seed=r.seed) for r in runs)
    return Plan(runs, s.expected, s.note, starts + same + trained)


def net(mix: Mix, depth: int, order: str = "post") -> str:
    """The name of a CIFAR network with these shortcuts."""
    family = FAMILIES[order]
    if mix == Plain() and order == "post":
        return f"cifar_plain{depth}"
    return f"cifar_{family}{depth}" if mix == Add() else f"cifar_{family}{depth}(mix={mix!r})"


def _measurement(function: str, name: str, data: str, seed: int) -> Measurement:
    return Measurement(f"{__name__}:{function}", {"net": name, "images": IMAGES}, data=data, seed=seed)


def start(subject: Subject) -> dict[str, Any]:
    """How a batch passes a network that is not trained."""
    return asdict(propagation(_built(subject, subject.settings["net"]), *_batch(subject)))


def trained(subject: Subject) -> dict[str, Any]:
    """How a batch passes a network that is trained."""
    return asdict(propagation(subject.net, *_batch(subject)))


def same(subject: Subject) -> dict[str, Any]:
    """Whether a network is the plain one as a function: the largest difference of scores and of weights' gradients."""
    # On the CPU, where the same sums are added up in the same order each time.
    net = _built(subject, subject.settings["net"]).cpu()
    plain = _built(subject, f"cifar_plain{net.spec.depth}").cpu()
    x, labels = (tensor.cpu() for tensor in _batch(subject))
    results = []
    for one in (net, plain):
        scores = one.train()(x)
        gradients = torch.autograd.grad(tf.cross_entropy(scores, labels), list(one.parameters()))
        results.append(torch.cat([scores.detach().flatten(), *(g.flatten() for g in gradients)]))
    return {"numbers": len(results[0]), "largest_difference": float((results[0] - results[1]).abs().max())}


def _batch(subject: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    return subject.batch(subject.settings["images"], "train")


def _built(subject: Subject, name: str) -> ResNet:
    assert subject.data.shape is not None, "the scales' data sets have images of one size"
    channels, classes = subject.data.shape[0], len(subject.data.classes)
    made = build(name, seed=subject.seed, in_channels=channels, num_classes=classes)
    assert isinstance(made, ResNet)
    return made.to(subject.device)


def judge(evidence: Evidence) -> Finding:
    """Compare the measured factors with the product of scales, and training with scaled and unscaled shortcuts."""
    found = Sorted.of(evidence)
    return Finding(rows(found), figures(found), tables(found), words(found), answer(found))


STUDY = Study(
    name="scaling",
    title=Both("Why the shortcut is x and not x/2", "捷径为什么是 x 而不是 x/2"),
    claim=Both(
        "A shortcut scaled by λ carries signal and gradient by the product of all λ. With x/2 that is exponentially "
        "small, everything has to pass the weight layers, and the network trains worse.",
        "按 λ 缩放的捷径使信号与梯度按所有 λ 的乘积变化。取 x/2 时该乘积指数级地小，一切都须经过权重层，网络因而更难"
        "训练。",
    ),
    source="He et al. 2016, section 3; equations 6 to 8; Table 1; Figure 3a",
    method=Both(
        f"(a) {IMAGES} training images go through networks of y = λ·h(x) + b·F(x), untrained and trained, and the "
        "gradient of their loss comes back. The part that takes shortcuts only is exact: F is held at its value in "
        "every unit, so that its Jacobian is zero. Its factor is told beside what h alone would pass on, since zero "
        "padding drops positions and the gradient of the channels it adds. Batch norm takes the batch's statistics. "
        "The theory takes h and f as identities: pre-activation nets meet that; in post-activation nets, which the "
        "paper trains here, f is a ReLU. (b) Networks with Add, Scale(0.5, 1), Scale(0.5, 0.5) and Plain are trained "
        "alike. Scale(0, 1) is Plain as a function, which is checked, and is not trained again.",
        f"(a) 让 {IMAGES} 张训练图像通过 y = λ·h(x) + b·F(x) 的网络（未训练的与训练后的），并让损失的梯度返回。只走捷"
        "径的部分是精确的：在每个单元中把 F 固定为其值，使其雅可比矩阵为零。其因子相对于仅有 h 时所传的量给出，因为"
        "补零捷径会丢弃部分位置以及所添通道的梯度。BN 使用该批次的统计量。理论假设 h 与 f 为恒等映射：预激活网络满"
        "足；论文此处训练的后激活网络中 f 是 ReLU。(b) 以相同方案训练 Add、Scale(0.5, 1)、Scale(0.5, 0.5) 与 Plain "
        "的网络。Scale(0, 1) 作为函数即 Plain，这一点经过检验，不再重复训练。",
    ),
    rule=Both(
        f"Factors: reproduced if in every unit, scale and seed they differ from ∏λ by at most {EXACT:g} of it (with a "
        "ReLU after the sum: if for λ < 1 none at the first unit is above ∏λ), else not reproduced. 'As in a plain "
        "net': the logarithm of the gradient's growth from the last to the first unit, before training, lies nearer "
        "to the plain net's than to Add's. A difference between means over seeds, and this one, is reproduced if its "
        "95 % interval (Welch's t) lies above 0, a direction only if the mean does but the interval does not, else "
        "not reproduced. 'Optimisation': what the training error has more than Add's exceeds what the gap between "
        "test and training error has more, likewise; not tested where the training error is not higher. Scale(0, 1): "
        f"reproduced if no score and no gradient differs. Failing is a test error above {FAIL:g} %, and is tested at "
        "the scale paper only. The study's verdict is the weakest of its tested claims.",
        f"因子：若在每个单元、每个 λ、每个种子上与 ∏λ 的相对差至多 {EXACT:g}，则为复现（相加后有 ReLU 时：λ < 1 时第"
        "一个单元处的因子均不超过 ∏λ），否则为未复现。「像普通网络那样」：训练前，梯度从最后一个单元到第一个单元的增"
        "长，其对数更接近普通网络而非 Add。此差与各种子均值之差：若 95 % 区间（Welch t）在 0 以上则为复现；仅均值在 "
        "0 以上则为仅方向一致；否则未复现。「优化」：训练误差比 Add 多出的部分大于测试与训练误差之差多出的部分，判法"
        f"相同；训练误差不更高时不检验。Scale(0, 1)：得分与梯度均无差异则为复现。「失败」指测试误差高于 {FAIL:g} %，"
        "仅在 paper 规模检验。研究的判定取所检验论断中最弱者。",
    ),
    theory=THEORY,
    plan=plan,
    judge=judge,
)
