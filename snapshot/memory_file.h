#ifndef CUBE_SNAPSHOT_MEMORY_FILE_H_
#define CUBE_SNAPSHOT_MEMORY_FILE_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::snapshot {

// A stretch of a memory image (vmm/guest_memory.h has its layout): bytes, multiples of the page.
struct PageRun {
  uint64_t start;
  uint64_t size;
};

// Where a run of a diff lies in its file.
struct PlacedRun {
  uint64_t start;  // in the image
  uint64_t size;
  uint64_t file_offset;  // multiple of the page
};

// The file `memory` of a base: the image itself, with holes where it is zero, to be mapped as it
// is. The checksum covers the data and where it lies.
struct MemoryFileInfo {
  uint64_t file_bytes = 0;  // its length
  uint64_t data_bytes = 0;  // of pages written
  std::string xxh3;         // xxh3-128 in hexadecimal
};

// Writes `image` to `fd`, an empty file: pages of zeros become holes. Only `runs` of it are looked
// at, which are sorted: the rest is zeros.
Result<MemoryFileInfo> WriteBaseMemory(int fd, std::span<const std::span<const uint8_t>> image,
                                       std::span<const PageRun> runs);
// The same for an image of `image_bytes` that `read` gives, at most a MiB a time.
using ReadImage = std::function<Status(uint64_t offset, std::span<uint8_t> out)>;
Result<MemoryFileInfo> WriteBaseMemory(int fd, uint64_t image_bytes, const ReadImage& read,
                                       std::span<const PageRun> runs);
// The stretches of `fd` that are not holes, in whole pages.
Result<std::vector<PageRun>> FileDataRuns(int fd);
// The checksum of what is there now, to hold against the manifest.
Result<std::string> HashBaseMemory(int fd);

// The file `memory` of a diff: a page-aligned index of runs, then their pages.
//
// `pages` gives the content of a stretch of the image, in the order of `runs`, which are sorted and
// do not overlap. The long ones lie behind the others and are not left in the page cache, if they
// are much in all (SequentialWriter): what a machine needs to go on is scattered.
inline constexpr uint64_t kLongRun = 1 << 20;
Result<MemoryFileInfo> WriteDiffMemory(int fd, const std::vector<PageRun>& runs,
                                       const std::vector<std::span<const uint8_t>>& pages);
// The index of a diff over an image of `image_bytes`; every run is within image and file, sorted,
// and without overlap.
Result<std::vector<PlacedRun>> ReadDiffIndex(int fd, uint64_t image_bytes);
// The checksum of index and pages.
Result<std::string> HashDiffMemory(int fd);

// The union of two sorted lists of runs.
std::vector<PageRun> MergeRuns(const std::vector<PageRun>& a, const std::vector<PageRun>& b);

// Whether all of `bytes`, at least eight, is zero.
bool IsZero(std::span<const uint8_t> bytes);

// Joins runs until there are at most `limit`, closing the smallest gaps first: each run becomes a
// mapping of its own in a clone, of which the kernel allows some tens of thousands.
std::vector<PageRun> LimitRuns(std::vector<PageRun> runs, size_t limit);
inline constexpr size_t kMaxRuns = 4096;

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_MEMORY_FILE_H_
