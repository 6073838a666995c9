"""IQA-Conformer: Conformer blocks on the maps of a frozen network, with a reference or without."""
