"""The plug-ins that train: the paper's MSE-Adapter, the rivals of its Table 5, plain ones. Modules of plain sizes."""
