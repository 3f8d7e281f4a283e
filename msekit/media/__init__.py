"""Clips → a data set: sound and pictures decoded, features extracted, tables of clips read and samples written."""
