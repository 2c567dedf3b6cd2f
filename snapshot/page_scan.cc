#include "snapshot/page_scan.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace cube::snapshot {
namespace {

constexpr uint64_t kPage = 4096;

// Debian 12's headers are older than the ioctl: its interface, from <linux/fs.h> of Linux 6.7.
struct PmScanArg {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};
struct PmPageRegion {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, PmScanArg);
constexpr uint64_t kPageIsFile = 1 << 2;
constexpr uint64_t kPageIsPresent = 1 << 3;
constexpr uint64_t kPageIsSwapped = 1 << 4;
constexpr uint64_t kPageIsZero = 1 << 5;
constexpr uint64_t kPageIsHuge = 1 << 6;

// Entries of /proc/PID/pagemap.
constexpr uint64_t kEntryPresent = 1ull << 63;
constexpr uint64_t kEntrySwapped = 1ull << 62;
constexpr uint64_t kEntryFile = 1ull << 61;  // "page is file-page or shared-anon"

void Append(uint64_t start, uint64_t size, std::vector<PageRun>* runs) {
  if (!runs->empty() && runs->back().start + runs->back().size == start) {
    runs->back().size += size;
  } else {
    runs->push_back({start, size});
  }
}

}  // namespace

Result<PageScan> PageScan::Open(Method method) {
  CUBE_ASSIGN(UniqueFd pagemap, OpenFile("/proc/self/pagemap", O_RDONLY));
  bool with_ioctl = false;
  if (method == Method::kBest) {
    // Behaviour decides, not a version: an empty range is scanned at once where it is known.
    PmScanArg argument = {};
    argument.size = sizeof argument;
    argument.return_mask = kPageIsPresent;
    PmPageRegion region;
    argument.vec = reinterpret_cast<uint64_t>(&region);
    argument.vec_len = 1;
    with_ioctl = ioctl(pagemap.get(), kPagemapScan, &argument) == 0;
  }
  return PageScan(std::move(pagemap), with_ioctl);
}

Status PageScan::Find(std::span<const uint8_t> memory, uint64_t image_offset,
                      std::vector<PageRun>* runs, Which which) {
  return ioctl_ ? FindByIoctl(memory, image_offset, runs, which)
                : FindByPagemap(memory, image_offset, runs);
}

Status PageScan::FindByIoctl(std::span<const uint8_t> memory, uint64_t image_offset,
                             std::vector<PageRun>* runs, Which which) {
  std::array<PmPageRegion, 512> regions;
  auto base = reinterpret_cast<uint64_t>(memory.data());
  PmScanArg argument = {};
  argument.size = sizeof argument;
  argument.start = base;
  argument.end = base + memory.size();
  argument.vec = reinterpret_cast<uint64_t>(regions.data());
  argument.vec_len = regions.size();
  // Present or swapped, not of a file, and not the one page of zeros that stands for what was only
  // read of a stretch without a file: anonymous.
  argument.category_inverted = kPageIsFile | kPageIsZero;
  if (which == Which::kSmall) argument.category_inverted |= kPageIsHuge;
  argument.category_mask = argument.category_inverted;
  argument.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  argument.return_mask = kPageIsPresent | kPageIsSwapped;
  while (argument.start < argument.end) {
    int count = ioctl(pagemap_.get(), kPagemapScan, &argument);
    if (count < 0) return ErrnoError("PAGEMAP_SCAN");
    for (int i = 0; i < count; ++i) {
      const PmPageRegion& region = regions[static_cast<size_t>(i)];
      Append(image_offset + (region.start - base), region.end - region.start, runs);
    }
    if (argument.walk_end <= argument.start) return Errorf("PAGEMAP_SCAN does not go on");
    argument.start = argument.walk_end;
  }
  return OkStatus();
}

Status PageScan::FindByPagemap(std::span<const uint8_t> memory, uint64_t image_offset,
                               std::vector<PageRun>* runs) {
  std::array<uint64_t, 4096> entries;
  uint64_t first = reinterpret_cast<uint64_t>(memory.data()) / kPage;
  uint64_t pages = memory.size() / kPage;
  for (uint64_t done = 0; done < pages;) {
    size_t wanted = std::min<uint64_t>(entries.size(), pages - done) * sizeof(uint64_t);
    ssize_t got = pread(pagemap_.get(), entries.data(), wanted,
                        static_cast<off_t>((first + done) * sizeof(uint64_t)));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return ErrnoError("/proc/self/pagemap");
    for (uint64_t i = 0; i < static_cast<uint64_t>(got) / sizeof(uint64_t); ++i) {
      uint64_t entry = entries[i];
      if ((entry & (kEntryPresent | kEntrySwapped)) != 0 && (entry & kEntryFile) == 0) {
        Append(image_offset + (done + i) * kPage, kPage, runs);
      }
    }
    done += static_cast<uint64_t>(got) / sizeof(uint64_t);
  }
  return OkStatus();
}

Result<std::vector<PageRun>> PrivateRuns(const vmm::GuestMemory& memory) {
  CUBE_ASSIGN(PageScan scan, PageScan::Open());
  std::vector<PageRun> runs;
  uint64_t offset = 0;
  for (const vmm::MemoryRegion& region : memory.regions()) {
    std::vector<PageRun> here;
    CUBE_TRY(scan.Find(region.host, offset, &here));
    runs.insert(runs.end(), here.begin(), here.end());
    offset += region.host.size();
  }
  return runs;
}

std::vector<PageRun> MappableRuns(const vmm::GuestMemory& memory, std::span<const PageRun> runs) {
  std::vector<PageRun> cut;
  for (PageRun run : runs) {
    uint64_t end = 0;
    for (const vmm::MemoryRegion& region : memory.regions()) {
      end += region.host.size();
      if (run.start >= end || run.size <= end - run.start) continue;
      cut.push_back({run.start, end - run.start});
      run = {end, run.start + run.size - end};
    }
    cut.push_back(run);
  }
  return cut;
}

}  // namespace cube::snapshot
