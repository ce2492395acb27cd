"""``synthct downstream``: whether painted lesions help a segmenter of real ones."""
