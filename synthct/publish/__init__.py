"""To the Hub: what may go there, and how it gets there whole or not at all."""

from synthct.publish.connection import Patience
from synthct.publish.deliver import Delivery, deliver
from synthct.publish.gate import pack, require_repo_name
from synthct.publish.hub import HubRepo
from synthct.publish.parcel import Parcel

__all__ = ["Delivery", "HubRepo", "Parcel", "Patience", "deliver", "pack", "require_repo_name"]
