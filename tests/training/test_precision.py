"""Autocast, compiled and recomputed units: what they change and what they must not."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from resnetlab.data.loading import Batch
from resnetlab.errors import UserError
from resnetlab.measuring.complexity import LiveBytes
from resnetlab.nets.zoo import build, on_meta, spec
from resnetlab.run_files import read_epochs
from resnetlab.training import precision
from resnetlab.training.evaluate import evaluate
from resnetlab.training.loop import train
from resnetlab.training.optimiser import make_optimiser
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.training.signals import Stop, Stopped
from resnetlab.training.step import Stepper

# Dynamo looks at .grad of any tensor and hides the warning from all but those who make it an error.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


def some_batches(*sizes: int) -> list[Batch]:
    draws = torch.Generator().manual_seed(5)
    return [
        Batch(torch.randn(n, 3, 16, 16, generator=draws), torch.randint(0, 10, (n,), generator=draws), None)
        for n in sizes
    ]


def trained(recipe: Recipe, batches: list[Batch], net: str = "cifar_resnet8") -> tuple[Stepper, dict[str, Tensor]]:
    """The stepper after a step on each batch, and the network's state."""
    made = build(net, seed=1).train()
    step = Stepper(made, make_optimiser(made, recipe), recipe, "cpu")
    torch.manual_seed(3)
    for batch in batches:
        step(batch, 0.1)
    return step, made.state_dict()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounterWithBackend]:
    """Compilation of the units, as on a GPU, without a compiler; it counts the codes it makes."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(precision, "BACKEND", counter)
    monkeypatch.setattr(precision, "FUSED_ON", ())
    yield counter
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_computes_in_it_and_keeps_weights_and_loss_in_float32(name: str) -> None:
    net = build("cifar_resnet8", seed=1).train()
    r = Recipe(precision=name)  # type: ignore[arg-type]
    step = Stepper(net, make_optimiser(net, r), r, "cpu")
    seen: list[torch.dtype] = []
    net.layer1[0].conv1.register_forward_hook(lambda module, given, out: seen.append(out.dtype))  # type: ignore[index, union-attr, operator]
    result = step(some_batches(8)[0], 0.1)
    assert seen == [precision.AUTOCAST[name]]
    assert result.loss.dtype == torch.float32
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert ("scaler.scale" in step.state()) == (name == "fp16"), "bf16 has the range of float32"
    plain = trained(Recipe(), some_batches(8))[0].net
    torch.testing.assert_close(net.fc.bias, plain.fc.bias, atol=2e-3, rtol=0)  # type: ignore[arg-type]
    with step.evaluated() as evaluated, torch.no_grad():
        assert evaluated.eval()(torch.randn(2, 3, 16, 16)).dtype == torch.float32


def test_a_gradient_that_overflows_skips_the_step_and_halves_the_scale() -> None:
    step, before = trained(Recipe(precision="fp16"), [])
    weights = before["fc.weight"].clone()
    (batch,) = some_batches(8)
    step(batch._replace(x=batch.x * 1e30), 0.1)
    assert torch.equal(step.net.fc.weight, weights)  # type: ignore[arg-type]
    assert float(step.state()["scaler.scale"]) == 2.0**15
    assert int(step.state()["scaler.growth"]) == 0
    step(batch, 0.1)
    assert int(step.state()["scaler.growth"]) == 1, "steps without overflow, after 2,000 of which the scale doubles"


def test_a_scaled_gradient_is_cut_by_its_own_norm() -> None:
    recipe = Recipe(precision="fp16", clip_gradient=0.05, momentum=0, weight_decay=0)
    step, _ = trained(recipe, [])
    before = torch.cat([p.detach().flatten() for p in step.net.parameters()])
    step(some_batches(8)[0], 1.0)
    moved = torch.cat([p.detach().flatten() for p in step.net.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(0.05, rel=1e-3)


NOISY = "cifar_resnet8(mix=DropoutShortcut(0.3), stochastic_depth=0.4)"
ODD = "cifar_resnet8(stages=[(9, 16)])"  # nine units in groups of two


@pytest.mark.parametrize("switches", [{}, {"precision": "bf16"}, {"accumulate": 2}, {"channels_last": True}], ids=str)
@pytest.mark.parametrize("net", ["cifar_preresnet8", NOISY, ODD])
def test_recomputed_units_give_the_same_weights_and_statistics_to_the_last_bit(
    net: str, switches: dict[str, Any]
) -> None:
    plain = trained(Recipe(**switches), some_batches(8, 8, 5), net)[1]
    again = trained(Recipe(**switches, checkpoint_activations=True), some_batches(8, 8, 5), net)[1]
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_recomputed_units_keep_nothing_of_their_inside() -> None:
    kept: dict[bool, int] = {}
    for recompute in (False, True):
        net = build("cifar_resnet20", seed=1).train()
        net.recompute = recompute  # type: ignore[assignment]
        sizes: list[int] = []

        def pack(t: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            net(torch.randn(4, 3, 32, 32))
        kept[recompute] = sum(sizes)
    assert kept[True] < kept[False] / 4


@pytest.mark.parametrize("trained_from", ["conv1", "layer1.0", "layer1.1", "layer3.0", "fc"])
def test_recomputed_units_have_the_same_gradients_behind_frozen_ones(trained_from: str) -> None:
    """Also where what goes into a stage asks for no gradient; what is frozen has none."""
    gradients: dict[bool, dict[str, Tensor | None]] = {}
    for recompute in (False, True):
        net = build("cifar_resnet20", seed=1).train()
        net.recompute = recompute  # type: ignore[assignment]
        frozen = itertools.takewhile(lambda named: not named[0].startswith(trained_from), net.named_parameters())
        for _, parameter in frozen:
            parameter.requires_grad_(False)
        net(torch.ones(4, 3, 32, 32).cumsum(3)).logsumexp(1).sum().backward()
        gradients[recompute] = {name: p.grad for name, p in net.named_parameters()}
    for name, plain in gradients[False].items():
        again = gradients[True][name]
        assert (plain is None) == (again is None), name
        assert plain is None or again is None or torch.equal(plain, again), name
    assert (gradients[True]["conv1.weight"] is None) == (trained_from != "conv1")


def test_units_are_recomputed_in_training_only() -> None:
    """In evaluation any gradient can be taken, as explanations do; through recomputed units `backward` alone can."""
    net = build("cifar_resnet8", seed=1).eval()
    net.recompute = True  # type: ignore[assignment]
    x = torch.zeros(2, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).sum(), x)
    assert gradient.shape == x.shape


@pytest.mark.parametrize(
    "name", ["cifar_resnet110", pytest.param("cifar_resnet164", marks=pytest.mark.slow)]
)  # basic units, bottlenecks
def test_recomputed_units_need_a_quarter_of_the_memory(name: str) -> None:
    def most_alive(recompute: bool, images: int) -> int:
        net = build(name, seed=1).train()
        net.recompute = recompute  # type: ignore[assignment]
        with LiveBytes(torch.empty(0), set()) as live:
            net(torch.zeros(images, 3, 32, 32)).sum().backward()
        return live.peak

    plain, recomputed = (most_alive(on, 3) - most_alive(on, 2) for on in (False, True))
    assert recomputed < plain / 4


def test_compiled_units_equal_the_plain_ones_and_keep_their_names(eager: CompileCounterWithBackend) -> None:
    batches = some_batches(8, 8)
    step, found = trained(Recipe(compile=True), batches)
    _, plain = trained(Recipe(), batches)
    assert found.keys() == plain.keys()
    torch.testing.assert_close(found, plain)
    made = eager.frame_count
    with step.evaluated() as net, torch.no_grad():
        net.eval()(batches[0].x)
    assert eager.frame_count == made, "evaluation runs the units as they are written"


def test_units_of_one_kind_are_compiled_once(eager: CompileCounterWithBackend) -> None:
    counts = []
    for depth in (14, 26):
        torch._dynamo.reset()
        eager.frame_count = 0
        trained(Recipe(compile=True), some_batches(4, 4), f"cifar_resnet{depth}")
        counts.append(eager.frame_count)
    assert counts == [1 + 5, 1 + 5], "what is tried first, one kind in stage 1 and two in stages 2 and 3"


@pytest.mark.parametrize("precision_", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
def test_compiled_and_recomputed_units_go_together(eager: CompileCounterWithBackend, precision_: str) -> None:
    switches: dict[str, Any] = {"compile": True, "precision": precision_, "accumulate": 2}
    one = trained(Recipe(**switches), some_batches(8, 8))[1]
    both = trained(Recipe(**switches, checkpoint_activations=True), some_batches(8, 8))[1]
    assert all(torch.equal(one[name], both[name]) for name in one)


def test_where_torch_can_not_compile_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(*_: object) -> None:
        raise RuntimeError("No working C++ compiler found in the path.\nmore")

    torch._dynamo.reset()
    monkeypatch.setattr(precision, "BACKEND", backend)
    monkeypatch.setattr(precision, "FUSED_ON", ())
    with pytest.raises(
        UserError, match=r"^compile=True: torch can't compile here .*needs Triton\. Leave compile out\.$"
    ):
        trained(Recipe(compile=True), [])


VGG_HAS_NONE = "compile=True works on residual units, but a VGG has none"


@pytest.mark.parametrize(
    ("switches", "net", "fused_on", "message"),
    [
        ({"compile": True}, "vgg16(input_size=32)", ("cpu",), VGG_HAS_NONE),
        ({"compile": True}, "vgg16(input_size=32)", (), VGG_HAS_NONE),
        ({"checkpoint_activations": True}, "vgg16(input_size=32)", (), "checkpoint_activations=True works on residual"),
        ({"compile": True}, NOISY, (), "with stochastic depth each unit has its own probability"),
        ({"compile": True, "unreadable": "skip"}, "cifar_resnet8", (), "with unreadable='skip' batches differ in size"),
        ({"compile": True, "sync_bn": True}, "cifar_resnet8", ("cpu",), "batch norm over several processes can't be"),
    ],
)
def test_what_does_not_go_together_is_refused(
    switches: dict[str, Any], net: str, fused_on: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "FUSED_ON", fused_on)
    made = on_meta(spec(net))
    r = Recipe(**switches)
    with pytest.raises(UserError, match=message):
        Stepper(made, make_optimiser(made, r), r, "cpu")


def without_compiler() -> None:
    raise UserError("no C++ compiler was found (c++)")


def test_without_a_compiler_fused_layers_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "library", without_compiler)
    with pytest.raises(UserError, match=r"^compile=True: no C\+\+ compiler was found \(c\+\+\)\. Install a compiler"):
        trained(Recipe(compile=True), [])


@pytest.mark.parametrize("switches", [{}, {"precision": "bf16", "accumulate": 2}], ids=str)
def test_fused_and_recomputed_units_go_together(switches: dict[str, Any]) -> None:
    one = trained(Recipe(compile=True, **switches), some_batches(8, 8))[1]
    both = trained(Recipe(compile=True, **switches, checkpoint_activations=True), some_batches(8, 8))[1]
    assert all(torch.equal(one[name], both[name]) for name in one)


AUTO = Recipe(precision="auto", channels_last="auto", compile="auto")


@pytest.mark.parametrize(
    ("fast", "compiler", "wanted"),
    [
        (True, True, {"precision": "bf16", "channels_last": True, "compile": True}),
        (False, True, {"precision": "fp32", "channels_last": True, "compile": True}),
        (False, False, {"precision": "fp32", "channels_last": True, "compile": False}),
    ],
)
def test_auto_takes_what_is_fast_on_the_machine(
    fast: bool, compiler: bool, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: fast)
    if not compiler:
        monkeypatch.setattr(precision, "library", without_compiler)
    assert precision.resolved(AUTO, spec("cifar_resnet8"), "cpu") == wanted
    stated = {"precision": "fp32", "channels_last": False, "compile": False}
    assert precision.resolved(Recipe(), spec("cifar_resnet8"), "cpu") == stated
    fused = precision.resolved(Recipe(compile="auto"), spec("cifar_resnet8"), "cpu")
    assert fused["channels_last"] == fused["compile"] == compiler, "fused layers need that layout"
    assert not precision.resolved(AUTO, spec("vgg16"), "cpu")["compile"]
    assert not precision.resolved(AUTO.override(sync_bn=True), spec("cifar_resnet8"), "cpu")["compile"]


@pytest.mark.parametrize("fast", [True, False])
def test_on_a_gpu_auto_takes_bf16_and_its_layout_together(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: fast)
    wanted = {"precision": "bf16" if fast else "fp32", "channels_last": fast, "compile": False}
    assert precision.resolved(AUTO, spec("cifar_resnet8"), "cuda") == wanted


AMX, VECTORS = "avx2 avx512f avx512_bf16 amx_bf16", "avx2 avx512f avx512_bf16"


@pytest.mark.parametrize(
    ("sets", "vendor", "allowed", "wanted"),
    [
        (AMX, "GenuineIntel", None, True),
        (AMX, "GenuineIntel", "", True),
        (AMX, "GenuineIntel", "DEFAULT", True),
        (AMX, "GenuineIntel", "AVX512_CORE_AMX", True),
        (AMX, "GenuineIntel", "AVX512_CORE_BF16", False),
        (AMX, "GenuineIntel", "AVX2", False),
        (VECTORS, "GenuineIntel", None, False),
        (VECTORS, "AuthenticAMD", None, True),
        (VECTORS, "AuthenticAMD", "ALL", True),
        (VECTORS, "AuthenticAMD", "AVX512_CORE_FP16", True),
        (VECTORS, "AuthenticAMD", "AVX512_CORE_VNNI", False),
        (VECTORS, "AuthenticAMD", "avx2", False),
        ("avx2 avx512f", "AuthenticAMD", None, False),
        ("avx2 amx_tile amx_int8", "GenuineIntel", None, False),
    ],
)
def test_bf16_is_fast_with_amx_and_with_amds_vector_units(
    sets: str, vendor: str, allowed: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"flags": sets, "vendor_id": vendor}
    monkeypatch.setattr("resnetlab.machine._cpuinfo", lambda *names: said.get(names[0], ""))
    if allowed is None:
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    else:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert precision.has_fast_bf16("cpu") == wanted
    assert not precision.has_fast_bf16("mps")


@pytest.mark.parametrize(
    ("sets", "allowed", "wanted"),
    [
        ("avx2", None, True),
        ("avx2", "AVX2", True),
        ("avx2 avx512f", None, False),
        ("avx2 avx512f", "DEFAULT", False),
        ("avx2 avx512f", "AVX512_CORE", False),
        ("avx2 avx512f", "AVX2_VNNI", True),
        ("asimd", None, False),
    ],
)
def test_weight_gradients_are_our_own_where_avx2_is_the_best(
    sets: str, allowed: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnetlab.machine._cpuinfo", lambda *names: sets if names[0] == "flags" else "")
    if allowed is None:
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    else:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    net = build("cifar_resnet8", seed=0).train()
    assert not precision.compile_net(net, "cpu")
    answer = net.get_submodule("layer1.0.conv1")(torch.ones(32, 16, 4, 4))
    assert ("_Convolution" in type(answer.grad_fn).__name__) == wanted


def test_a_run_keeps_what_auto_came_to_where_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = recipe("digits", net="cifar_resnet8", iterations=8, batch_size=16, precision="auto", compile="auto")
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: True)
    run = make_run(chosen, tmp_path)
    stop = Stop()
    stop.receive(signal.SIGTERM)
    with pytest.raises(Stopped):
        list(train(run, threads=1, stop=stop))
    settled = json.loads((run.folder / "run.json").read_text())["resolved"]
    assert settled == {"precision": "bf16", "channels_last": True, "compile": True}
    monkeypatch.setattr(precision, "has_fast_bf16", lambda device: False)
    assert make_run(chosen, tmp_path).folder == run.folder
    for _ in train(make_run(chosen, tmp_path), threads=1):
        pass
    assert "the run started in bf16" in caplog.text
    assert evaluate([run.folder], run.data).accuracy.error == read_epochs(run.folder)[-1]["test_error"]


@pytest.mark.parametrize(
    "switches",
    [
        {"precision": "bf16", "clip_gradient": 1.0},
        {"precision": "fp16", "accumulate": 3, "ema": 0.9},
        {"checkpoint_activations": True, "bn_reestimate": 5},
        {"compile": True},
        {"compile": True, "precision": "bf16"},
    ],
    ids=str,
)
@pytest.mark.parametrize("fused_on", [(), ("cpu",)], ids=["as on a GPU", "as on a CPU"])
def test_a_run_ends_with_each_switch_and_its_weights_have_the_error_it_tells(
    tmp_path: Path,
    switches: dict[str, Any],
    fused_on: tuple[str, ...],
    eager: CompileCounterWithBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "FUSED_ON", fused_on)
    run = make_run(recipe("digits", net="cifar_resnet8", iterations=4, batch_size=16, **switches), tmp_path)
    for _ in train(run, threads=1):
        pass
    assert evaluate([run.folder], run.data).accuracy.error == read_epochs(run.folder)[-1]["test_error"]
