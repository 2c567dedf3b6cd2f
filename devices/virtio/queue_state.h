#ifndef CUBE_DEVICES_VIRTIO_QUEUE_STATE_H_
#define CUBE_DEVICES_VIRTIO_QUEUE_STATE_H_

#include <cstdint>

namespace cube::devices::virtio {

// Where the driver has put a queue: guest-physical addresses of the descriptor table, the driver's
// (available) and the device's (used) area, and the number of descriptors.
struct QueueLayout {
  uint64_t descriptors;
  uint64_t driver;
  uint64_t device;
  uint32_t size;
  uint32_t reserved;
};

// A queue as it is saved.
struct QueueState {
  QueueLayout layout;
  uint8_t ready;
  uint8_t broken;
  uint16_t next_available;
  uint16_t next_used;
  uint16_t notified_used;
};

}  // namespace cube::devices::virtio

#endif  // CUBE_DEVICES_VIRTIO_QUEUE_STATE_H_
