"""The tags around what the plug-in says. Apart from the layout, so that a plan can count them without torch."""

OPENING_TAG = "<av>"  # tags are read at every step of every sample: short ones save a tenth of the tokens
CLOSING_TAG = "</av>"
