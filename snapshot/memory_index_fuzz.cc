// What says where memory lies: the index of a diff, that of a stored snapshot, that of a pack. Any
// bytes, and any bytes as entries under a header whose checksum is right.
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/unique_fd.h"
#include "snapshot/cold_index.h"
#include "snapshot/memory_file.h"
#include "snapshot/store_pack.h"

namespace {

using namespace cube::snapshot;

constexpr uint64_t kImage = 64 << 20;

void Require(bool condition) {
  if (!condition) abort();
}

// A file of `bytes`, which is as long as `length` if that is more.
cube::UniqueFd FileOf(std::span<const uint8_t> bytes, uint64_t length = 0) {
  cube::UniqueFd fd(memfd_create("fuzz", MFD_CLOEXEC));
  Require(fd.valid() &&
          write(fd.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  if (length > bytes.size()) Require(ftruncate(fd.get(), static_cast<off_t>(length)) == 0);
  return fd;
}

template <typename T>
void Put(std::vector<uint8_t>* bytes, const T& value) {
  const auto* from = reinterpret_cast<const uint8_t*>(&value);
  bytes->insert(bytes->end(), from, from + sizeof value);
}

void ReadDiff(std::span<const uint8_t> bytes, uint64_t length) {
  cube::UniqueFd fd = FileOf(bytes, length);
  auto runs = ReadDiffIndex(fd.get(), kImage);
  if (!runs.ok()) return;
  uint64_t end = 0;
  for (const PlacedRun& run : *runs) {
    Require(run.start >= end && run.size <= kImage && run.start + run.size <= kImage);
    end = run.start + run.size;
  }
}

void ReadPack(std::span<const uint8_t> bytes) {
  auto pack = Pack::Open(FileOf(bytes), "pack");
  if (!pack.ok()) return;
  std::vector<uint8_t> chunk(kChunkSize);
  for (const PackEntry& entry : pack->entries()) {
    (void)pack->Read(entry, chunk);
    Require(pack->Find(entry.key()) != nullptr);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::span<const uint8_t> bytes(data, size);
  ReadDiff(bytes, 0);
  ReadPack(bytes);
  (void)ColdIndex::Decode(bytes);

  // A diff: header and runs, in a file long enough for some pages.
  std::span<const uint8_t> runs = bytes.first(size / sizeof(PlacedRun) * sizeof(PlacedRun));
  std::vector<uint8_t> file;
  Put(&file, std::array<char, 8>{'C', 'U', 'B', 'E', 'D', 'I', 'F', 'F'});
  Put(&file, uint32_t{1});
  Put(&file, static_cast<uint32_t>(runs.size() / sizeof(PlacedRun)));
  Put(&file, uint64_t{XXH3_64bits(runs.data(), runs.size())});
  Put(&file, uint64_t{0});
  file.insert(file.end(), runs.begin(), runs.end());
  ReadDiff(file, 1 << 20);

  // A stored snapshot's.
  ColdIndex index;
  index.image_bytes = kImage;
  index.entries.resize(size / sizeof(ColdIndex::Entry));
  if (!index.entries.empty()) {
    memcpy(index.entries.data(), data, index.entries.size() * sizeof(ColdIndex::Entry));
  }
  auto decoded = ColdIndex::Decode(index.Encode());
  if (decoded.ok()) {
    for (const ColdIndex::Entry& entry : decoded->entries) {
      Require(uint64_t{entry.number} * kChunkSize < kImage);
    }
  }

  // A pack: the first half are chunks, the second is the index.
  size_t entries = size / 2 / sizeof(PackEntry);
  std::span<const uint8_t> packed = bytes.last(entries * sizeof(PackEntry));
  file.clear();
  Put(&file, std::array<char, 8>{'C', 'U', 'B', 'E', 'P', 'A', 'C', 'K'});
  Put(&file, uint32_t{1});
  Put(&file, kChunkSize);
  file.insert(file.end(), data, data + (size - packed.size()));
  uint64_t offset = file.size();
  file.insert(file.end(), packed.begin(), packed.end());
  Put(&file, offset);
  Put(&file, uint64_t{entries});
  Put(&file, uint64_t{XXH3_64bits(packed.data(), packed.size())});
  Put(&file, std::array<char, 8>{'C', 'U', 'B', 'E', 'P', 'E', 'N', 'D'});
  ReadPack(file);
  return 0;
}
