"""Hypothesis must not mind how busy the machine is: no deadline for single examples."""

from hypothesis import settings

settings.register_profile("ike", deadline=None)
settings.load_profile("ike")
