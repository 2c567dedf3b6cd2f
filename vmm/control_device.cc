#include "vmm/control_device.h"

#include <algorithm>
#include <cstring>

namespace cube::vmm {

void ControlDevice::InitMailbox(std::span<uint8_t> mailbox) {
  auto* header = reinterpret_cast<abi::MailboxHeader*>(mailbox.data());
  header->magic = abi::kMailboxMagic;
  header->version = abi::kMailboxVersion;
}

void ControlDevice::Read(uint64_t, std::span<uint8_t> data) {
  std::fill(data.begin(), data.end(), 0xff);
}

void ControlDevice::Write(uint64_t offset, std::span<const uint8_t> data) {
  if (offset == abi::kDoorbellNotify) {
    callbacks_.notify();
    return;
  }
  if (offset != abi::kDoorbellCommand || data.size() != sizeof(uint64_t)) return;
  uint64_t value;
  memcpy(&value, data.data(), sizeof value);
  auto command = static_cast<abi::Command>(value & 0xffffffff);
  switch (command) {
    case abi::Command::kBooted:
    case abi::Command::kSettle:
    case abi::Command::kPark:
    case abi::Command::kReady:
    case abi::Command::kExit:
      callbacks_.command(command, static_cast<uint32_t>(value >> 32));
      return;
  }
}

}  // namespace cube::vmm
