"""A trained model at work: features and scores of images."""
