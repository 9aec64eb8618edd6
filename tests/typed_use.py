"""What a user writes, as a type checker sees it; nothing here runs. A wrong use has an "ignore": mypy says if it is none."""

import numpy as np

import numnet


def right(x: np.ndarray, labels: np.ndarray) -> None:
    net = numnet.build("mobilenet_v4_small", width=0.5, resolution=(96, 160), classes=10, dtype=np.float64)
    logits: np.ndarray = net.forward(x, training=True)
    loss, dlogits = numnet.softmax_cross_entropy(logits, labels)
    dx = net.backward(dlogits)
    if dx is not None:
        print(dx.shape, loss)
    net.flat -= 0.1 * net.flat_grad
    wide: tuple[int, ...] = net.params["stem.weight"].shape
    features: np.ndarray = net.features(x, pooled=False)
    maps: dict[str, np.ndarray] = net.maps(x, "block*", batch_size=8)
    net.save("net.safetensors", input=net.scaling, classes=net.class_names)
    parts: list[numnet.Net] = [numnet.with_head(net, 0), numnet.with_channels(net, 1)]
    macs: int = net.cost().macs
    data = numnet.data.load("shapes", resolution=32)
    history: list[dict] = numnet.fit(net, data, epochs=3, lr=0.1, callbacks=[])
    probe = numnet.linear_probe(numnet.load("net.safetensors"), data)
    accuracy: float = probe.accuracy
    own = numnet.Net([numnet.layers.GlobalAverage(), numnet.layers.Dense(3)], (32, 32, 3))
    errors: dict[str, float] = numnet.check_gradients(own, x)
    imported = numnet.weights.import_file("v1.h5", width=0.25, resolution=160)
    names: list[str] = numnet.models() + imported.notes
    print(wide, features, maps, parts, macs, history, accuracy, errors, names)


def wrong(x: np.ndarray) -> None:
    net = numnet.build(3)  # type: ignore[arg-type]
    net.forward("photo.jpg")  # type: ignore[arg-type]
    net.predict(x, batch_size="8")  # type: ignore[arg-type]
    net.logits  # type: ignore[attr-defined]  # noqa: B018
    numnet.with_head("net.safetensors", 3)  # type: ignore[arg-type]
    numnet.with_channels(net)  # type: ignore[call-arg]
    numnet.fit(net, x, epochs=1)  # type: ignore[arg-type]
    numnet.load(3)  # type: ignore[arg-type]
