"""AHIQ: an image beside its reference, by a transformer's map, a convolutional one and a deformable convolution."""
