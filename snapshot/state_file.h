#ifndef CUBE_SNAPSHOT_STATE_FILE_H_
#define CUBE_SNAPSHOT_STATE_FILE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace cube::snapshot {

// Sections of the file `state`, in the order of their tags' first appearance: a header, then each
// section with tag, number (which vCPU, which device), length and the xxh3-64 of its bytes.
enum class SectionTag : uint32_t {
  kVm = 1,      // vmm/kvm/vm_state.h
  kVcpu = 2,    // vmm/kvm/vcpu_state.h; the number is the vCPU's
  kSerial = 3,  // the console's UART
  kDevice = 4,  // a virtio transport and its device; the number is its place on the bus
};

struct Section {
  SectionTag tag;
  uint32_t number;
  std::vector<uint8_t> bytes;
};

inline constexpr size_t kMaxStateFile = 256 << 20;
inline constexpr size_t kMaxSections = 1024;

// The file's bytes.
std::vector<uint8_t> EncodeState(const std::vector<Section>& sections);

// The sections of `bytes`, which may be anything: an error says which part is cut off, unknown or
// does not match its checksum.
Result<std::vector<Section>> DecodeState(std::span<const uint8_t> bytes);

// The one section of that tag and number; an error if it is not there.
Result<const Section*> FindSection(const std::vector<Section>& sections, SectionTag tag,
                                   uint32_t number);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_STATE_FILE_H_
