"""Channels that must go together: found in the graph alone, and cut out of it.

Every entry of every axis of every tensor gets a tag (`tags`). Going through the graph once, each operator
makes axes meet, moves their entries, splits, joins or fixes them (`rules`, `linear`, `moving`); whatever
is not understood is fixed, with the operator as the reason. Numbers in the graph that repeat a size are
found and follow (`sizes`). What is left are groups (`groups`): units that may go one by one, each from
all weights at once.
"""

from compressor.graph.channels.coupling import Shapes
from compressor.graph.channels.groups import ChannelGroup, Channels, Kind, Place
from compressor.graph.channels.prepare import prepare, tidy
from compressor.graph.channels.streams import Stream

__all__ = ["ChannelGroup", "Channels", "Kind", "Place", "Shapes", "Stream", "prepare", "tidy"]
