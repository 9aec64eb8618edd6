"""numnet's nets beside their twins in torch_nets: the same weights, the same images, the same gradients.

Both sides list their parameters in the order of computation, so the two lists pair up; a role says how the layout of
a tensor turns. Everything here is float64 unless said otherwise.
"""

from itertools import pairwise

import numpy as np
import torch
import torch_nets

import numnet

TRAINING = 1e-9  # logits to their largest entry, gradients to the net's largest gradient entry (design: how exact is exact)
INFERENCE = 1e-5  # float32 with running statistics


def twins(model, *, dtype="float64", seed=0, own=None, **options):
    """(numnet's net, the torch module) with the same random parameters. ``own``: options that numnet alone has."""
    net = numnet.build(model, dtype=dtype, seed=seed, **options, **(own or {}))
    module = torch_nets.build(model, **options).to(getattr(torch, dtype))
    randomise(net, seed)
    copy(net, module)
    return net, module


def randomise(net, seed):
    """γ, β, biases and running statistics off the values they start from, where 0 and 1 would hide mistakes."""
    rng = np.random.default_rng(seed)
    for name, spec in net.specs.items():
        if spec.role in ("bias", "beta"):
            net.params[name][...] = rng.normal(scale=0.3, size=spec.shape)
        elif spec.role == "gamma":
            net.params[name][...] = rng.uniform(0.6, 1.4, size=spec.shape)
    for name, buffer in net.buffers.items():
        low, high = (0.7, 1.5) if name.endswith("variance") else (-0.3, 0.3)
        buffer[...] = rng.uniform(low, high, size=buffer.shape)


def to_torch(array, role, shape):
    """A numnet tensor in PyTorch's layout of this shape."""
    if role == "conv":
        array = array.transpose(3, 2, 0, 1)
    elif role == "depthwise":  # (K, K, C, M) to (C·M, 1, K, K)
        array = array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)
    elif role in ("pointwise", "dense"):
        array = array.T
    return np.ascontiguousarray(array).reshape(shape)


def after_flatten(net):
    """Names of the dense weights whose rows are the flattened pixels of a map, with that map's shape."""
    layers, found = list(net.walk()), {}
    for (_, before), (path, _) in pairwise(layers):
        if before.kind == "flatten":
            found[f"{path}.weight"] = before.input_shape
    return found


def pairs(net, module):
    """(name, role, torch's parameter, how to turn numnet's array) for every parameter."""
    theirs, flattened = list(module.parameters()), after_flatten(net)
    assert len(theirs) == len(net.specs)
    for (name, spec), parameter in zip(net.specs.items(), theirs):

        def turn(array, name=name, spec=spec, parameter=parameter):
            if name in flattened:  # PyTorch flattens (C, H, W), numnet (H, W, C)
                h, w, c = flattened[name]
                array = array.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(h * w * c, -1)
            return to_torch(array, spec.role, parameter.shape)

        assert parameter.numel() == spec.size, name
        yield name, parameter, turn


def copy(net, module):
    """numnet's parameters and running statistics into the module."""
    with torch.no_grad():
        for name, parameter, turn in pairs(net, module):
            parameter.copy_(torch.from_numpy(turn(net.params[name])))
        for (_, theirs), own in zip(statistics(module), net.buffers.values(), strict=True):
            theirs.copy_(torch.from_numpy(own))


def statistics(module):
    return [(name, b) for name, b in module.named_buffers() if "running" in name]


def images(net, count, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *net.input_shape)).astype(net.dtype)


def channels_first(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def check_inference(net, module, count=2, bound=INFERENCE):
    """Logits with running statistics."""
    x = images(net, count)
    module.eval()
    with torch.no_grad():
        want = module(channels_first(x)).numpy()
    got = net.forward(x)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= bound * np.abs(want).max()


def check_training(net, module, count=4, bound=TRAINING):
    """Logits, dx, every gradient and the running statistics of one training pass, with a random dlogits."""
    x, before = images(net, count), net.flat_buffers.copy()
    dlogits = np.random.default_rng(2).normal(size=(count, net.classes)).astype(net.dtype)
    module.train()
    x_theirs = channels_first(x).requires_grad_()
    logits = module(x_theirs)
    logits.backward(torch.from_numpy(dlogits))
    got = net.forward(x, training=True)
    dx = net.backward(dlogits, input_gradient=True)
    want = logits.detach().numpy()
    assert np.abs(got - want).max() <= bound * np.abs(want).max()
    gradients = {name: (turn(net.grads[name]), p.grad.numpy()) for name, p, turn in pairs(net, module)}
    largest = max(np.abs(theirs).max() for _, theirs in gradients.values())
    for name, (own, theirs) in gradients.items():
        assert np.abs(own - theirs).max() <= bound * largest, name
    want = x_theirs.grad.numpy().transpose(0, 2, 3, 1)
    assert np.abs(dx - want).max() <= bound * np.abs(want).max()
    check_statistics(net, module, count, before, bound)


def check_statistics(net, module, count, before, bound):
    """Running means and variances: running = m·before + (1 − m)·batch.

    PyTorch's batch variance has M − 1 below the sum; where numnet's variant has M, PyTorch's is turned into that.
    """
    units = {path: layer for path, layer in net.walk() if layer.buffer_specs}
    at = 0
    for (name, own), (_, theirs) in zip(net.buffers.items(), statistics(module), strict=True):
        unit, want = units[name.rsplit(".bn.", 1)[0]], theirs.numpy()
        kept = unit.norm.momentum * before[at : at + own.size]
        at += own.size
        if name.endswith("variance") and not unit.norm.unbiased:
            size = count * unit.output_shape[0] * unit.output_shape[1]
            want = kept + (want - kept) * (size - 1) / size
        assert np.abs(own - want).max() <= bound * np.abs(want).max(), name
