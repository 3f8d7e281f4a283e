"""Models without an LLM that read the same cache: TF-IDF, EF-LSTM, LF-LSTM, TFN, LMF."""
