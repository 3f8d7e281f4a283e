"""What is to be measured on a GPU, in parts; `suite.py` has the table."""
