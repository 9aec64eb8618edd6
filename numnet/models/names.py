"""The names that people bring along from papers and other frameworks, and what numnet calls the same thing."""

from numnet.texts import nearest

BROUGHT = {  # a name elsewhere: an option of ``numnet.build``, or a sentence that says how it is done here
    **dict.fromkeys(
        (
            "alpha",
            "scale",
            "width_mult",
            "width_multiplier",
            "multiplier",
            "depth_multiplier",
            "channel_multiplier",
        ),
        "width",
    ),
    **dict.fromkeys(
        (
            "rho",
            "input_size",
            "input_shape",
            "img_size",
            "image_size",
            "im_size",
            "size",
            "resolution_multiplier",
        ),
        "resolution",
    ),
    **dict.fromkeys(
        ("class_num", "classes_num", "num_classes", "nb_classes", "n_classes", "num_class", "nclass"),
        "classes",
    ),
    **dict.fromkeys(("dropout_prob", "dropout_rate", "drop_rate", "keep_prob"), "dropout"),
    **dict.fromkeys(("eps", "epsilon", "bn_epsilon", "batch_norm_epsilon"), "bn_eps"),
    **dict.fromkeys(("momentum", "batch_norm_momentum", "bn_decay"), "bn_momentum"),
    **dict.fromkeys(("act", "act_layer", "activation_layer", "hidden_act", "nonlinearity"), "activation"),
    **dict.fromkeys(("kernel_size", "ksize"), "kernel"),
    **dict.fromkeys(("config", "cfg", "cfgs", "inverted_residual_setting", "blocks", "table"), "rows"),
    **dict.fromkeys(("inplanes", "stem_size", "stem_channels", "first_block_filters"), "stem"),
    **dict.fromkeys(("class_squeeze",), "last"),
    **dict.fromkeys(("class_expand", "last_channel", "num_features", "last_point_ch"), "wide"),
    **dict.fromkeys(("init", "initializer", "kernel_initializer", "weight_init"), "initialiser"),
    "minimalistic": "the models mobilenet_v3_large_minimalistic and mobilenet_v3_small_minimalistic are",
    "include_top": "classes=0 is a net without its top; net.features(x) gives what the top reads",
    "pooling": "net.features(x) is what the pooling gives, net.features(x, pooled=False) what it reads",
    **dict.fromkeys(("in_chans", "in_channels", "input_channels", "n_channels"), "channels"),
    **dict.fromkeys(
        ("pretrained", "weights", "checkpoint_path"),
        "weights come with `numnet import FILE`, then numnet.load(CHECKPOINT) or `numnet train --init`",
    ),
    **dict.fromkeys(
        ("return_patterns", "features_only", "out_indices"), 'net.maps(x, "block*") gives inner maps'
    ),
}


def hint(name, known, prefix="") -> str:
    """ " (did you mean …?)" for an option that does not exist, else nothing.

    known: the options that do; ``prefix``: what stands before an option, "--" in a shell. A name that is used elsewhere for
    one of them comes first, then the nearest in spelling.
    """
    word = str(name).lstrip("-").replace("-", "_")
    meant = BROUGHT.get(word, "")
    if " " in meant:
        return f" ({meant})"
    if prefix + meant.replace("_", "-" if prefix else "_") in known:
        return f" (did you mean {prefix}{meant}?)"
    if meant and prefix and f"{prefix}set" in known:
        return f" (did you mean {prefix}set {meant}=…?)"
    return nearest(name, known)
