"""A name that would break a page or a file system if it were more than text."""

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> &amp; ‮ سرطان " + "long" * 100
