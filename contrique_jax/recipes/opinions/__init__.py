"""What systems trained on opinion scores share: a new one is a network, a config and the functions of these modules.

`config` has the parts of its config, `rows` the loader's half of the contract, `scale` the line between a network's output and
opinions, `judge` the training's and the meter's half.
"""
