"""Uploads to the Hugging Face Hub: what may be published, and uploads that are atomic."""
