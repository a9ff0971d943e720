"""The derivation of the study `scaling`: signal and gradient through scaled shortcuts (He 2016, section 3)."""

from __future__ import annotations

from resnetlab.studies.frame.text import Both

_ENGLISH = (
    r"Let a unit be $x_{l+1} = a\,x_l + b\,F(x_l)$: the shortcut $h$ passes $x_l$ on, scaled by $a$, and nothing "
    r"follows the sum ($f$ is the identity). Add is $a = b = 1$, the plain net $a = 0$, and x/2 is $a = \frac{1}{2}$ "
    r"with $b = 1$ or $b = \frac{1}{2}$.",
    r"Put each unit into the next, from $x_l$ up to a later $x_L$. Every unit on the way multiplies by $a$ what came "
    r"before it: $x_L = a^{L-l} x_l + b \sum_{i=l}^{L-1} a^{L-1-i} F(x_i)$. With a scale $\lambda_i$ of its own in "
    r"each unit, and $b = 1$, the first factor is the product of the scales (He 2016, eq. 7): "
    r"$x_L = \left(\prod_{i=l}^{L-1} \lambda_i\right) x_l + \sum_{i=l}^{L-1} \left(\prod_{j=i+1}^{L-1} "
    r"\lambda_j\right) F(x_i)$.",
    r"The chain rule gives the gradient of the loss $E$ (eq. 8): "
    r"$\frac{\partial E}{\partial x_l} = \frac{\partial E}{\partial x_L} \left( a^{L-l} + b \, "
    r"\frac{\partial}{\partial x_l} \sum_{i=l}^{L-1} a^{L-1-i} F(x_i) \right)$. "
    r"The first term passes no weight layer. With $a = 1$ it is 1 whatever the depth: the gradient of the last unit "
    r"reaches every unit unchanged. With $a = \frac{1}{2}$ it is $2^{-(L-l)}$, for the 54 units of 110 layers "
    r"$5.6 \cdot 10^{-17}$; with $a = 1.1$ it is 172. A factor $b$ on $F$ changes the second term only, so "
    r"$b = \frac{1}{2}$ does not give back what $a = \frac{1}{2}$ takes.",
    r"So $x$ is the one multiple of $x$ whose product neither vanishes nor explodes with depth. But eq. 8 says this "
    r"of the first term only. The second may make up for it, in its way: where $F$ begins with a batch norm it does "
    r"not see the scale of its input, $F(c\,x) = F(x)$ for $c > 0$, so its derivative is as $\frac{1}{c}$. With "
    r"$a = 1$ the units' sums make $x_l$ grow with depth and the derivative of $F$ shrink beside the 1; with $a < 1$ "
    r"the signal stays small, and the derivative of $F$ large. How large the whole gradient is has to be measured; "
    r"equation 8 says by which way it comes.",
)

_CHINESE = (
    r"设单元为 $x_{l+1} = a\,x_l + b\,F(x_l)$：捷径 $h$ 把 $x_l$ 乘以 $a$ 传下去，相加之后不再有运算（$f$ 为恒等映"
    r"射）。Add 即 $a = b = 1$，普通网络即 $a = 0$，「x/2」即 $a = \frac{1}{2}$，$b = 1$ 或 $b = \frac{1}{2}$。",
    r"从 $x_l$ 到其后的 $x_L$ 逐个单元代入，途中每个单元都把此前的量乘以 $a$："
    r"$x_L = a^{L-l} x_l + b \sum_{i=l}^{L-1} a^{L-1-i} F(x_i)$。若各单元有各自的 $\lambda_i$ 且 $b = 1$，第一个因子"
    r"就是各缩放系数的乘积（He 2016，式 7）："
    r"$x_L = \left(\prod_{i=l}^{L-1} \lambda_i\right) x_l + \sum_{i=l}^{L-1} \left(\prod_{j=i+1}^{L-1} "
    r"\lambda_j\right) F(x_i)$。",
    r"由链式法则得损失 $E$ 的梯度（式 8）："
    r"$\frac{\partial E}{\partial x_l} = \frac{\partial E}{\partial x_L} \left( a^{L-l} + b \, "
    r"\frac{\partial}{\partial x_l} \sum_{i=l}^{L-1} a^{L-1-i} F(x_i) \right)$。"
    r"第一项不经过任何权重层。$a = 1$ 时无论多深它都是 1：最后一个单元的梯度原样到达每个单元。$a = \frac{1}{2}$ 时它"
    r"是 $2^{-(L-l)}$，对 110 层的 54 个单元为 $5.6 \cdot 10^{-17}$；$a = 1.1$ 时为 172。$F$ 上的系数 $b$ 只改变第二"
    r"项，所以 $b = \frac{1}{2}$ 补不回 $a = \frac{1}{2}$ 所失去的。",
    r"因此在 $x$ 的各种倍数中，只有 $x$ 本身的乘积既不随深度消失也不爆炸。但式 8 只就第一项这样说，第二项可能以自己的"
    r"方式补偿：若 $F$ 以 BN 开始，它看不到输入的尺度，对 $c > 0$ 有 $F(c\,x) = F(x)$，其导数正比于 $\frac{1}{c}$。"
    r"$a = 1$ 时各单元之和使 $x_l$ 随深度增大，$F$ 的导数相对于 1 变小；$a < 1$ 时信号保持较小，$F$ 的导数较大。整个"
    r"梯度有多大须靠测量；式 8 说的是它走哪条路。",
)

THEORY = Both("\n\n".join(_ENGLISH), "\n\n".join(_CHINESE))
