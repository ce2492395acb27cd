"""``synthct reader-study``: can people tell painted from real?

Pictures of both are mixed and blinded, every reader gives one answer to each with a confidence, and
nobody is told anything before the last of the answers.
"""
