"""The address and the profile with which clients of the fake service are made."""

from msgspec.structs import replace

from cachesvc_client.instances.profiles import IN_REGION
from cachesvc_client.instances.retries import Retries

URL = "http://cache.test"


PROFILE = replace(IN_REGION, retries=Retries(first_pause=0.0, longest_pause=0.0))
"""The profile IN_REGION, with the retries of production but without their pauses."""
