#ifndef CUBE_DEVICES_NET_FRAME_HEADER_H_
#define CUBE_DEVICES_NET_FRAME_HEADER_H_

#include <cstdint>

#include "devices/net/spec.h"

namespace cube::devices::net {

// Checks the header of a frame of `size` bytes that a driver sends (5.1.6.2), with `features`
// negotiated, and clears what the device must ignore. False if the frame cannot be sent: a size out
// of range, an offload that was not negotiated, or fields that point outside the frame.
bool CheckTransmit(uint64_t features, uint64_t size, Header* header);

// What of a frame is looked at for where its checksum is: up to IPv6's next header.
struct FrameStart {
  uint8_t bytes[22];
};

// Whether the checksum that a frame with these first bytes asks for is that of its TCP or UDP. It
// is made once nobody looks at the frame any more: anywhere else it would write over the addresses
// and ports by which the frame was let through. Of frames that are not IP: not over Ethernet's
// header.
bool ChecksumIsItsOwn(const Header& header, const FrameStart& start);

// Checks the header of a frame for the driver (5.1.6.4) in the same way, clearing what it has not
// asked to be told. False if the frame needs an offload that was not negotiated: it was on its way
// when they changed.
bool CheckReceive(uint64_t features, Header* header);

}  // namespace cube::devices::net

#endif  // CUBE_DEVICES_NET_FRAME_HEADER_H_
