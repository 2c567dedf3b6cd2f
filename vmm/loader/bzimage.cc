#include "vmm/loader/bzimage.h"

#include <algorithm>
#include <cinttypes>
#include <cstddef>
#include <cstring>

namespace cube::vmm {
namespace {

constexpr size_t kHeaderOffset = offsetof(boot_params, hdr);
constexpr size_t kBootFlagOffset = kHeaderOffset + offsetof(setup_header, boot_flag);
constexpr size_t kMagicOffset = kHeaderOffset + offsetof(setup_header, header);
constexpr uint8_t kBootFlag[] = {0x55, 0xaa};
constexpr uint8_t kMagic[] = {'H', 'd', 'r', 'S'};
constexpr uint16_t kFirstVersionWithPayload = 0x0208;
constexpr uint64_t kSectorSize = 512;

static_assert(kHeaderOffset == 0x1f1 && kBootFlagOffset == 0x1fe && kMagicOffset == 0x202);

}  // namespace

bool IsBzImage(std::span<const uint8_t> file) {
  return file.size() >= kMagicOffset + sizeof kMagic &&
         memcmp(file.data() + kBootFlagOffset, kBootFlag, sizeof kBootFlag) == 0 &&
         memcmp(file.data() + kMagicOffset, kMagic, sizeof kMagic) == 0;
}

Result<BzImage> ParseBzImage(std::span<const uint8_t> file) {
  if (!IsBzImage(file)) return Errorf("no Linux boot header");
  if (file.size() < kHeaderOffset + sizeof(setup_header)) {
    return Errorf("truncated: the boot header ends at byte %zu, the file has %zu",
                  kHeaderOffset + sizeof(setup_header), file.size());
  }
  BzImage image = {};
  // The second byte of the jump over the header is its length from the magic on.
  size_t header_end = kMagicOffset + file[kMagicOffset - 1];
  memcpy(&image.header, file.data() + kHeaderOffset,
         std::min(header_end - kHeaderOffset, sizeof image.header));
  const setup_header& header = image.header;
  if (header.version < kFirstVersionWithPayload) {
    return Errorf("boot protocol %u.%02u is too old, 2.08 is the least that is supported",
                  header.version >> 8, header.version & 0xff);
  }
  // 0 stands for 4; the boot sector itself is not counted.
  uint64_t setup_sectors = header.setup_sects == 0 ? 4 : header.setup_sects;
  uint64_t start = (setup_sectors + 1) * kSectorSize + header.payload_offset;
  uint64_t end = start + header.payload_length;
  if (end > file.size()) {
    return Errorf("truncated: the compressed kernel ends at byte %" PRIu64
                  ", the file has %zu",
                  end, file.size());
  }
  if (header.payload_length == 0) return Errorf("the compressed kernel has a length of 0 bytes");
  image.payload = file.subspan(start, header.payload_length);
  return image;
}

}  // namespace cube::vmm
