"""The virtio entropy device (VIRTIO 1.2, 5.4)."""

from __future__ import annotations

import os

from cpufw.virtio.device import VirtioDevice, fill, total
from cpufw.virtio.ring import DriverError

_QUEUE_SIZE = 8
_MOST_BYTES = 4096  # a request's; a driver that wants more asks again


class EntropyDevice(VirtioDevice):
    """Random bytes of the host's, at most 4096 a request."""

    name, device_id, queue_sizes = "rng", 4, (_QUEUE_SIZE,)

    def serve(self) -> bool:
        """Fill one buffer."""
        queue = self.queues[0]
        chain = queue.pop()
        if chain is None:
            return False
        wanted = min(total(chain.writable), _MOST_BYTES)
        if chain.readable or not wanted:
            raise DriverError("an entropy request that is not all writable (5.4.6.1)")
        self.give_back(queue, chain, fill(chain.writable, os.urandom(wanted)))
        return True
