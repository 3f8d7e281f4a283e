"""The adapters, the only modules that train: the paper's MSE-Adapter, the rivals of its Table 5, three plain ones."""
