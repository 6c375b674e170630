from pathlib import Path

OWN_METHOD = Path(__file__).with_name("own_method.py")
"""A method as a user writes one, for a folder outside the package."""
