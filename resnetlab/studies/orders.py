"""Orders: where batch norm and ReLU stand in a residual unit, before the weights or after the sum.

Paper:    He et al. 2016, section 4; Figure 4; Tables 2 and 3.
Claim:    batch norm or ReLU on the main path after the sum makes training harder; full pre-activation (BN, ReLU,
          weights) is the best of five orders, the more so the deeper the network.
Command:  resnetlab study run orders --scale quick            (the digits, about 5 minutes on 2 cores)
          resnetlab study run orders --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run orders --scale paper --data cifar10:DIR     (weeks on one GPU)
Last result: direction only at the scale quick: training errors of 56 layers: BN after the sum 6.9 %, original 0.0 %;
          of 110 layers after 4 epochs: full pre-activation 2.8 %, original 5.7 %
"""

from __future__ import annotations

from dataclasses import dataclass

from resnetlab.nets.branches import ORDERS
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Weights
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words
from resnetlab.studies.orders_claims import TOLERANCE, Sorted, net, rows
from resnetlab.studies.orders_views import answer, figures, table, words

EPOCHS_OF_DEEP = {"quick": 4.0, "cifar": 2.0}  # the deepest nets are costly: the start of training shows how they learn


@dataclass(frozen=True)
class _Scale:
    depths: tuple[int, ...]  # of all five orders
    deepest: int  # of the original and the full pre-activation order
    seeds: int
    expected: Words
    note: Words


_SCALES = {
    "quick": _Scale(
        (20, 56),
        110,
        3,
        Both("about 5 minutes on 2 cores", "双核约 5 分钟"),
        Both(
            "1,437 training and 360 test images of 8x8 pixels, three seeds: one test image is 0.3 points, and the "
            "paper's orders lie 0.1 to 1.6 points apart. So this scale tests training errors only. The nets of 110 "
            "layers train for 4 epochs, the others for 15. Its runs of the original order are those of the study "
            "degradation.",
            "1,437 张训练图像与 360 张测试图像，8x8 像素，三个随机种子：一张测试图像即 0.3 个百分点，而论文中各顺序"
            "相差 0.1 至 1.6 个百分点。因此这一规模只检验训练误差。110 层的网络训练 4 轮，其余 15 轮。原始顺序的运行"
            "即 degradation 研究的运行。",
        ),
    ),
    "cifar": _Scale(
        (56,),
        164,
        3,
        Both("a night on 2 cores, about an hour on a GPU", "双核一夜，GPU 约一小时"),
        Both(
            "56 layers and 10 epochs instead of the paper's 110 and 164, three seeds; 164 layers (bottlenecks) train "
            "for 2 epochs.",
            "56 层、10 轮，而非论文的 110 层、164 轮，三个随机种子；164 层（瓶颈单元）训练 2 轮。",
        ),
    ),
    "paper": _Scale(
        (110, 164),
        1001,
        5,
        Both("some weeks on one GPU", "单块 GPU 数周"),
        Both(
            "The published recipe: 64,000 steps, the first 400 at a learning rate of 0.01, five seeds; 164 and 1001 "
            "layers are bottlenecks. With 110 layers whose shortcuts skip one layer, as in Table 3.",
            "论文原方案：64,000 步，前 400 步学习率为 0.01，五个随机种子；164 与 1001 层为瓶颈单元。另有捷径只跨一层"
            "的 110 层网络，同表 3。",
        ),
    ),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Five orders at the scale's depths; the original and the full pre-activation order at its greatest."""
    s, recipe = _SCALES[scale], base(scale, data)
    if scale == "paper":  # He 2016, section 4: all its runs on CIFAR
        recipe = recipe.override(warmup="constant", warmup_lr=0.01, warmup_steps=400)
    deep = recipe.override(epochs=EPOCHS_OF_DEEP[scale]) if scale in EPOCHS_OF_DEEP else recipe
    nets = [(recipe, net(order, depth)) for depth in s.depths for order in ORDERS]
    nets += [(deep, net(order, s.deepest)) for order in ("post", "full_preact")]
    if scale == "paper":
        nets += [(recipe, f"{net(order, 110)}(branch='single')") for order in ("post", "full_preact")]
    recipes = tuple(r.override(net=name, seed=seed) for seed in range(s.seeds) for r, name in nets)
    return Plan(recipes, s.expected, s.note)


def judge(evidence: Evidence) -> Finding:
    """Compare each order with the original one."""
    s = Sorted.of(evidence)
    return Finding(rows(s), figures(s), [table(s)], words(s), answer(s))


STUDY = Study(
    name="orders",
    title=Both("Batch norm and ReLU before the weights, not after the sum", "BN 与 ReLU 置于权重之前，而非相加之后"),
    claim=Both(
        "What follows the sum stands on the path of every shortcut. BN there makes training harder; with BN and ReLU "
        "before the weights the path is free, and deep networks train and generalise better.",
        "相加之后的运算位于每条捷径的路径上。BN 放在那里使训练更难；把 BN 与 ReLU 放在权重之前，路径便畅通无阻，深层"
        "网络训练与泛化都更好。",
    ),
    source="He et al. 2016, section 4; Figures 4 to 6; Tables 2 and 3",
    method=Both(
        "Networks of five activation orders, alike in depth, width and cost, are trained with the same recipe and "
        "seeds: the original (W BN ReLU W BN + ReLU), BN after addition, ReLU before addition, ReLU-only "
        "pre-activation, full pre-activation. The original and the full pre-activation order are also trained at a "
        "greater depth. Errors are those of the last epoch; training error is that of the training batches over it.",
        "五种激活顺序的网络，深度、宽度、计算量相同，以相同方案与种子训练：原始（W BN ReLU W BN + ReLU）、BN 在相加"
        "之后、ReLU 在相加之前、仅 ReLU 预激活、完全预激活。原始与完全预激活还在更大深度上训练。误差取最后一轮；训练"
        "误差为该轮训练批次的误差。",
    ),
    rule=Both(
        "A difference between two means over seeds is reproduced if its 95 % interval (Welch's t) lies on the "
        "claim's side of 0, a direction only if the mean does but the interval does not, else not reproduced. 'About "
        f"the same' is reproduced if the interval lies within {TOLERANCE:g} point of 0 at every depth, a direction "
        "only if the mean does. 'Lowest of the five' also asks for the lowest mean. Claims about test errors are not "
        "tested at the scale quick, and the one at great depth at the scale paper only. The study's verdict is the "
        "weakest of its tested claims.",
        "种子均值之差：若其 95 % 区间（Welch t）在 0 的论断一侧则为复现；仅均值如此则为仅方向一致；否则为未复现。"
        f"「相近」：若每个深度上区间都在 0 的 {TOLERANCE:g} 个百分点之内则为复现，仅均值如此则为仅方向一致。「五种中"
        "最低」还要求均值最低。测试误差的论断在 quick 规模不检验，很深处的那一条仅在 paper 规模检验。研究的判定取所"
        "检验论断中最弱者。",
    ),
    plan=plan,
    judge=judge,
)
