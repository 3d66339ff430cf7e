"""Runs on disk: folder (the record), checkpoints, follow (training in a folder).

The folder and its records can be read without anything heavy; only `follow` imports the trainer.
"""
