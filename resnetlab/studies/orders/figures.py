"""What the study `orders` compares and shows: its networks by order and depth, their curves and their errors."""

from __future__ import annotations

from typing import NamedTuple

from resnetlab.nets.orders import ORDERS
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.studies.figures.figure import Figure, Panel, Table, table
from resnetlab.studies.figures.series import error_lines
from resnetlab.studies.frame.evidence import Group, Groups, test_error, train_error
from resnetlab.studies.frame.text import Both, Catalogue, Words

TEXT = Catalogue.of(__name__)
LETTERS = {"c": "W", "b": "BN", "r": "ReLU"}  # as the paper writes a unit: W for weights


class Key(NamedTuple):
    """A network of the study."""

    order: str
    depth: int
    branch: str

    @classmethod
    def of(cls, name: str) -> Key:
        """The network of that name."""
        spec = named_spec(name)
        assert isinstance(spec, NetSpec)
        return cls(spec.order, spec.depth, spec.branch)

    @property
    def words(self) -> Both:
        """The network as a rule calls it."""
        return called(self.order) + f" ({self.depth})"


# He 2016, Table 2 (110 and 164 layers) and Table 3: CIFAR-10 test error in %.
PAPER = {
    **{Key(order, 110, "basic"): e for order, e in zip(ORDERS, (6.61, 8.17, 7.84, 6.71, 6.37), strict=True)},
    **{Key(order, 164, "bottleneck"): e for order, e in zip(ORDERS, (5.93, 6.50, 6.14, 5.91, 5.46), strict=True)},
    Key("post", 110, "single"): 9.90,
    Key("full_preact", 110, "single"): 8.91,
    Key("post", 1001, "bottleneck"): 7.61,
    Key("full_preact", 1001, "bottleneck"): 4.92,
}


def net(order: str, depth: int, branch: str = "") -> str:
    """The name of the CIFAR network of that order: the original and the full pre-activation one have their own."""
    names = {"post": f"cifar_resnet{depth}", "full_preact": f"cifar_preresnet{depth}"}
    name = names.get(order, f"cifar_resnet{depth}(order={order!r})")
    return f"{name}(branch={branch!r})" if branch else name


def called(order: str) -> Both:
    """An order, as He 2016, Figure 4, calls it."""
    return TEXT(f"orders.{order}")


def by_order(nets: Groups[Key], depth: int) -> dict[str, Group[Key]]:
    """The networks of a depth by their order, with the units that the zoo gives them."""
    return {order: nets[Key.of(net(order, depth))] for order in ORDERS}


def single(nets: Groups[Key]) -> tuple[Group[Key], Group[Key]]:
    """Table 3's networks of 110 layers whose shortcuts skip one layer: the original and the full pre-activation one."""
    post, full = (nets[Key.of(net(order, 110, "single"))] for order in ("post", "full_preact"))
    return post, full


def curves(nets: Groups[Key], depths: list[int]) -> list[Figure]:
    """The error curves of every order, with a panel for each depth; no figure without runs."""
    panels = []
    for depth in depths:
        orders = enumerate(by_order(nets, depth).items())
        lines = [line for rank, (order, one) in orders for line in error_lines(str(called(order)), rank, one.runs)]
        if lines:
            panels.append(Panel(TEXT("figures.curves.depth", depth=depth), "epoch", "error (%)", lines))
    return [Figure("curves", TEXT("figures.curves.caption"), panels)] if panels else []


def error_table(nets: Groups[Key]) -> Table:
    """A row for each network: its errors beside the paper's."""
    cells: list[list[Words]] = []
    for key in sorted(nets, key=lambda key: (key.depth, key.branch, list(ORDERS).index(key.order))):
        group = nets[key]
        cells.append(
            [
                called(key.order),
                _unit(key.order),
                f"{key.depth}, {key.branch}",
                "/".join(sorted({f"{result['epochs']:g}" for result in group.values})) or "–",
                *(group.cell(error) for error in (train_error, test_error)),
                f"{PAPER[key]:.2f}" if key in PAPER else "–",
                str(len(group.done)),
            ]
        )
    return table(TEXT, "errors", cells)


def _unit(order: str) -> str:
    """A basic unit of that order, as the paper writes it."""
    o = ORDERS[order]
    return " ".join([LETTERS[c] for c in o.each + o.last] + ["+"] + [LETTERS[c] for c in o.postact])
