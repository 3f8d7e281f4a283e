"""What msekit costs and what it is worth, measured: speed, memory, accuracy, and what is to be run on a GPU."""
