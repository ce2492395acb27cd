"""To the Hub: what may go there, and how it gets there whole or not at all."""

from synthct.publish.hub.connection import Patience
from synthct.publish.hub.deliver import Delivery, deliver
from synthct.publish.hub.gate import pack, require_repo_name
from synthct.publish.hub.parcel import Parcel
from synthct.publish.hub.repo import HubRepo

__all__ = ["Delivery", "HubRepo", "Parcel", "Patience", "deliver", "pack", "require_repo_name"]
